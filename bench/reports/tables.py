"""Records -> comparison tables: a row per method, mean and standard deviation over runs.

Runs that differ in anything that voids a comparison (protocol version, backbone, weights, templates, exemplars, image
limits) never meet: each such combination gets a table of its own. Zero-shot CLIP comes first; a method that ends below
it is marked; a method that learned all tasks at once is shown, but not ranked. Nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.reports.foreign_rows import Foreign, add_rows, apart, marked, place_of
from bench.reports.formats import INDENT, Table, TableCell, write
from bench.reports.rows import Column, Row, SamplesOf, add_baselines, groups, metric_column, order, task_blocks, zero_shot_row
from bench.results import published as publications
from bench.results import run_facts
from bench.results.metrics import DEFAULTS, METRICS, find
from bench.results.records import refuse_mixture
from bench.results.run_data import TASK_INCREMENTAL
from bench.results.run_table import heading

DECIMALS = 1  # of percentages
VIEWS = ("summary", "tasks", "matrix")


def render(
    records: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    format: str = "plain",
    view: str = "summary",
    sort: str | None = None,
    samples_of: SamplesOf | None = None,
    published: pd.DataFrame | None = None,
    foreign: Sequence[Foreign] = (),
    manifests: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The tables of these records as text.

    metrics: names from bench.results.metrics.METRICS (default: those of the scenario). view: "summary" (one number a metric),
    "tasks" (one a task), "matrix" (accuracy matrices). sort: the metric that orders the methods (default Last).
    samples_of: from a run id to its per-sample scores (bench.results.samples.of_runs), asked only if a metric needs them.
    published: numbers from papers (bench.results.published.load()) to stand beside the measured ones. foreign: matrices that
    other programs measured (bench.reports.foreign_rows.load), with rows of their own. manifests: by run id, for notes on what
    differs between averaged runs.
    """
    return write(build(records, metrics, view, sort, samples_of, published, foreign, manifests), format)


def build(
    records: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    view: str = "summary",
    sort: str | None = None,
    samples_of: SamplesOf | None = None,
    published: pd.DataFrame | None = None,
    foreign: Sequence[Foreign] = (),
    manifests: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Table]:
    """As render, before a format is chosen."""
    if view not in VIEWS:
        raise BenchError(f"unknown view {view!r}; known: {', '.join(VIEWS)}")
    for name in [*(metrics or []), *([sort] if sort else [])]:
        find(name)
    if not len(records) and foreign:
        return apart(foreign, metrics, view, [])
    if not len(records):
        raise BenchError("no records to make a table of; bench run writes them")
    refuse_mixture(records)
    tables = []
    found = list(groups(records, samples_of if _need_samples(metrics, sort) else None))
    places = [place_of(one, [(conditions["scenario"], len(names)) for conditions, _, names in found]) for one in foreign]
    for number, (conditions, rows, names) in enumerate(found):
        scenario = conditions["scenario"]
        final = "mtil_last" if scenario == TASK_INCREMENTAL else "last"
        chosen = metrics or DEFAULTS[scenario]
        add_baselines(rows)
        key = sort or final
        for row in rows:
            row.fill([metric_column(name) for name in dict.fromkeys([key, final])])
        rows.sort(key=lambda row: order(row, key))
        head = heading(conditions, also=("exemplars", "templates"))
        if view == "matrix":
            tables += [_matrix_table(row, names, conditions, head) for row in rows]
            continue
        blocks = [("", [metric_column(name) for name in chosen])] if view == "summary" else task_blocks(scenario, names)
        for title, columns in blocks:
            caption = f"{head}; {title}" if title else head
            table = _comparison(rows, columns, final, conditions, caption, published)
            add_rows(table, [one for one, place in zip(foreign, places) if place == number], columns, scenario)
            tables.append(table)
        tables[-1].notes += _mixtures(rows, manifests or {})
    alone = [(one, place) for one, place in zip(foreign, places) if place is None or view == "matrix"]
    if alone:
        shapes = [(conditions["scenario"], len(names)) for conditions, _, names in found]
        tables += apart([one for one, _ in alone], metrics, view, shapes)
    return marked(tables) if foreign else tables


def _mixtures(rows: list[Row], manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on every row that averages over runs which differ in how they were made."""
    notes = []
    for row in rows:
        found = run_facts.mixtures([manifests[run_id] for run_id in row.run_ids if run_id in manifests])
        if found:
            notes.append(f"{row.label}: averaged over runs that differ in {', '.join(found)}")
    return notes


def _need_samples(metrics: Sequence[str] | None, sort: str | None) -> bool:
    return any(METRICS[name].needs == "samples" for name in [*(metrics or []), *([sort] if sort else [])])


# -- from rows to a table ---------------------------------------------------------------------------------------


def _number(fraction: float) -> str:
    return f"{round(100 * fraction, DECIMALS) + 0.0:.{DECIMALS}f}"  # + 0.0: no minus sign on a zero


def _text(row: Row, key: str) -> str:
    mean, std, known = row.mean(key), row.std(key), len(row.known(key))
    if mean is None:
        return "-"
    text = _number(mean) + (f" ± {_number(std)}" if std is not None else "")
    return text if known == len(row.runs) else f"{text} (n={known})"


def _marks(rows: list[Row], column: Column) -> dict[int, str]:
    """Row index -> best or second, judged on what is printed; equal numbers share a mark."""
    sign = 1 if column.higher_is_better else -1
    printed = {i: sign * round(100 * mean, DECIMALS) for i, row in enumerate(rows)
               if not row.joint and (mean := row.mean(column.key)) is not None}  # fmt: skip
    ranks = sorted(set(printed.values()), reverse=True)
    if len(ranks) < 2:
        return {}
    places = {ranks[0]: "best"} | ({ranks[1]: "second"} if len(printed) > 2 else {})
    return {i: places[value] for i, value in printed.items() if value in places}


def _comparison(rows, columns, final, conditions, caption, published) -> Table:
    for row in rows:
        row.fill(columns)
    marks = {column.key: _marks(rows, column) for column in columns}
    zero_shot = zero_shot_row(rows)
    floor = zero_shot.mean(final) if zero_shot else None
    below = [None not in (floor, mean := row.mean(final)) and mean < floor - 1e-9 for row in rows]
    runs = max(len(row.runs) for row in rows)
    spread = "mean ± standard deviation over runs (seeds and class orders)" if runs > 1 else "one run a row"
    table = Table(
        caption=caption,
        reading=f"Percent, {spread}.",
        header=["method", *[column.title for column in columns], "runs"],
        rows=[],
        notes=_notes(rows, columns, below, final),
        conditions=conditions,
    )
    beside = publications.beside(published, conditions) if published is not None else {}
    sources: dict[str, int] = {}
    for i, row in enumerate(rows):
        name = row.label + " †" * below[i] + " ‡" * row.joint
        cells = [TableCell(_text(row, column.key), marks[column.key].get(i, "")) for column in columns]
        table.rows.append([TableCell(name), *cells, TableCell(str(len(row.runs)))])
        table.data.append(_data(row, columns, below[i]))
        if not row.overrides:
            for source in beside.pop(row.method, []):
                _add_published(table, source, columns, row, sources)
    for method in sorted(beside):
        for source in beside[method]:
            _add_published(table, source, columns, None, sources)
    if published is not None:
        table.notes += _source_notes(sources, conditions)
    return table


def _add_published(table: Table, source: publications.Source, columns, row: Row | None, sources: dict[str, int]) -> None:
    """One published row: below the measured row of its method, or with the method's name when nothing was measured."""
    if not any(column.key in source.values for column in columns):
        return
    number = sources.setdefault(source.where, len(sources) + 1)
    label = f"published [{number}]" + (f", {source.flag}" if source.flag else "")
    comparable = row is not None and source.comparable and table.conditions["limits"] in ("", "nan")
    cells = []
    data = {"method": source.method, "source": source.where, "flag": source.flag}
    for column in columns:
        value, std = source.values.get(column.key), source.stds.get(column.key)
        if value is None:
            cells.append(TableCell(""))
            continue
        text = _printed(value) + (f" ± {_printed(std)}" if std is not None else "")
        data[column.key] = value / 100
        measured = row.mean(column.key) if comparable else None
        if measured is not None:
            text += f" ({100 * measured - value:+.{DECIMALS}f})"
            data[f"{column.key}_difference"] = measured - value / 100
        cells.append(TableCell(text))
    table.rows.append([TableCell(INDENT + label if row else f"{source.method}, {label}"), *cells, TableCell("")])
    table.data.append(data)


def _printed(percent: float) -> str:
    """A published number with the digits that it was published with, at least one decimal."""
    return f"{percent:.1f}" if round(percent, 1) == percent else f"{percent:g}"


def _source_notes(sources: dict[str, int], conditions: dict[str, str]) -> list[str]:
    if not sources:
        return [f"no published number of these metrics for {conditions['protocol']}"]
    notes = ["published: as printed there; in brackets: measured minus published"]
    if conditions["limits"] not in ("", "nan"):
        notes = ["published: as printed there; no difference, because the images here are others or fewer"]
    return notes + [f"[{number}] {where}" for where, number in sources.items()]


def _data(row: Row, columns: list[Column], below: bool) -> dict:
    data = {"method": row.method, "overrides": row.overrides, "source": "measured"}
    data |= {"runs": len(row.runs), "below_zero_shot": below}
    for column in columns:
        data[column.key] = row.mean(column.key)
        data[f"{column.key}_std"] = row.std(column.key)
        data[f"{column.key}_n"] = len(row.known(column.key))
    return data


def _notes(rows: list[Row], columns: list[Column], below: list[bool], final: str) -> list[str]:
    notes = []
    lower = [column.title for column in columns if not column.higher_is_better]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}")
    if any(below):
        notes.append(f"† ends below zero-shot ({METRICS[final].title})")
    if any(row.joint for row in rows):
        notes.append("‡ learned all tasks at once (upper bound), not ranked")
    if any(row.mean(column.key) is None for row in rows for column in columns):
        notes.append("a dash: not available")
    for row in rows:
        repeated = sorted({pair for pair in row.seeds if row.seeds.count(pair) > 1})
        if repeated:
            order, seed = repeated[0]
            notes.append(f"{row.label}: several runs of order seed {order}, seed {seed}, which differ outside the records")
    orders = {row.label: sorted({order for order, _ in row.seeds}) for row in rows}
    if len({tuple(found) for found in orders.values()}) > 1:
        listed = "; ".join(f"{label}: {', '.join(map(str, found))}" for label, found in orders.items())
        notes.append(f"class orders differ between rows, compare with care ({listed})")
    return notes


def _matrix_table(row: Row, names: list[str], conditions: dict[str, str], head: str) -> Table:
    """Accuracy matrix of one method: learned tasks as the scenario scores them, future tasks to the right of them."""
    mean = np.mean([run.learned_and_future for run in row.runs], axis=0)  # (T, T)
    rows = [[TableCell(f"after {name}"), *[TableCell("-" if np.isnan(value) else _number(value)) for value in line]]
            for name, line in zip(names, mean)]  # fmt: skip
    data = [{"method": row.method, "overrides": row.overrides, "after_task": t,
             **{name: None if np.isnan(value) else float(value) for name, value in zip(names, line)}}
            for t, line in enumerate(mean)]  # fmt: skip
    how = "own classes compete"
    if conditions["scenario"] != TASK_INCREMENTAL:
        how = "among the seen classes, right of the diagonal (future tasks) among all"
    reading = f"Percent, mean over {len(row.runs)} run(s); {how}."
    return Table(f"{row.label}: accuracy matrix on {head}", reading, ["", *names], rows, conditions=conditions, data=data)
