"""Records -> comparison tables: a row per method, mean and standard deviation over runs.

Runs that differ in anything that voids a comparison (protocol version, backbone, weights, templates, exemplars, image
limits) never meet: each such combination gets a table of its own. Zero-shot CLIP comes first; a method that ends below
it is marked; a method that learned all tasks at once is shown, but not ranked. Nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.reports.foreign_rows import Foreign, add_rows, apart, marked, place_of
from bench.reports.formats import DECIMALS, Mark, Table, TableCell, percent, write
from bench.reports.published_rows import PublishedRows
from bench.reports.rows import Block, Column, metric_block, metric_column, task_blocks
from bench.results import run_facts
from bench.results.conditions import ZERO_SHOT, heading
from bench.results.groups import Group, MethodRuns, comparable
from bench.results.metrics import DEFAULTS, find
from bench.results.records import refuse_mixture
from bench.results.run_data import TASK_AGNOSTIC
from bench.results.samples import SamplesOf

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
    named = [*(metrics or []), *([sort] if sort else [])]
    need_samples = [name for name in named if find(name).needs == "samples"]
    if not len(records) and foreign:
        return apart(foreign, metrics, view, [])
    if not len(records):
        raise BenchError("no records to make a table of; bench run writes them")
    refuse_mixture(records)
    groups = comparable(records)
    if samples_of and need_samples:
        groups = [group.with_samples(samples_of) for group in groups]
    groups = [_sorted(group.with_baselines(), sort) for group in groups]
    # other programs report test images: their matrices never stand beside numbers of a validation part
    shapes = [(group.conditions["scenario"], 0 if group.validation else len(group.tasks)) for group in groups]
    places = [place_of(one, shapes) for one in foreign]
    tables: list[Table] = []
    for number, group in enumerate(groups):
        if view == "matrix":
            tables += [_matrix_table(own, group) for own in group.methods]
            continue
        for block in _blocks(group, metrics, view):
            table = _comparison(group, block, published)
            beside = [one for one, place in zip(foreign, places) if place == number]
            add_rows(table, beside, block.columns, group.conditions["scenario"])
            tables.append(table)
        tables[-1].notes += _mixtures(group, manifests or {}) + _ties(group, manifests or {})
    alone = [one for one, place in zip(foreign, places) if place is None or view == "matrix"]
    if alone:
        tables += apart(alone, metrics, view, shapes)
    return marked(tables) if foreign else tables


def _sorted(group: Group, sort: str | None) -> Group:
    """Zero-shot first, then from best to worst in the metric `sort`, methods without it last."""
    column = metric_column(sort) if sort else _final(group)
    sign = -1 if column.higher_is_better else 1

    def place(own: MethodRuns) -> tuple[bool, bool, float, str]:
        mean = column.mean(own)
        return own.method != ZERO_SHOT, mean is None, sign * (mean or 0), own.label

    return replace(group, methods=sorted(group.methods, key=place))


def _final(group: Group) -> Column:
    """The accuracy at the end of the stream: by it methods are ordered, and held against zero-shot."""
    return metric_column("mtil_last" if group.task_incremental else "last")


def _blocks(group: Group, metrics: Sequence[str] | None, view: str) -> list[Block]:
    """The columns of each of a group's tables."""
    scenario = group.conditions["scenario"]
    if view == "summary":
        return [metric_block(metrics or DEFAULTS[scenario])]
    return task_blocks(scenario, group.tasks)


def _head(group: Group) -> str:
    return heading(group.conditions, also=("exemplars", "templates"))


def _mixtures(group: Group, manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on every row that averages over runs which differ in how they were made."""
    notes = []
    for own in group.methods:
        found = run_facts.mixtures([manifests[run_id] for run_id in own.run_ids if run_id in manifests])
        if found:
            notes.append(f"{own.label}: averaged over runs that differ in {', '.join(found)}")
    return notes


def _ties(group: Group, manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on the images that only the order of the classes decides, where data sets of a stream share names."""
    last, found = len(group.tasks) - 1, []
    for own in group.methods:
        ties = [manifests[run_id].get("ties", []) for run_id in own.run_ids if run_id in manifests]
        counts = sorted({sum(cell["images"] for cell in cells if cell["after_task"] == last) for cells in ties})
        if any(counts):
            found.append(f"{own.label} {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))}")
    how = f"{group.scored} images whose best score several classes share, of which the first counts, after the last task"
    return [f"{how}: {', '.join(found)}"] if found else []


# -- from a group to a table ------------------------------------------------------------------------------------


def _comparison(group: Group, block: Block, published: pd.DataFrame | None) -> Table:
    """A row for every method, with what papers say of it below."""
    columns = block.columns
    below = _below_zero_shot(group)
    runs = max(len(own.runs) for own in group.methods)
    spread = "mean ± standard deviation over runs (seeds and class orders)" if runs > 1 else "one run a row"
    table = Table(
        caption=f"{_head(group)}; {block.title}" if block.title else _head(group),
        reading=f"Percent, {spread}.",
        header=["method", *[column.title for column in columns], "runs"],
        rows=[],
        notes=_notes(group, columns, below),
        conditions=group.conditions,
    )
    papers = PublishedRows(table, columns, published) if published is not None else None
    marks = {column.key: _marks(group.methods, column) for column in columns}
    for own in group.methods:
        signs = (" †" if own.label in below else "") + (" ‡" if own.joint else "")
        cells = [TableCell(_text(own, column), marks[column.key].get(own.label, "")) for column in columns]
        table.rows.append([TableCell(own.label + signs), *cells, TableCell(str(len(own.runs)))])
        table.data.append(_data(own, columns, own.label in below))
        if papers:
            papers.below(own)
    if papers:
        papers.finish()
    return table


def _below_zero_shot(group: Group) -> set[str]:
    """The methods that end below zero-shot CLIP: training has cost them more than it gave."""
    final = _final(group)
    floor = final.mean(group.zero_shot) if group.zero_shot else None
    found = set()
    for own in group.methods:
        mean = final.mean(own)
        if floor is not None and mean is not None and mean < floor - 1e-9:
            found.add(own.label)
    return found


def _marks(methods: Sequence[MethodRuns], column: Column) -> dict[str, Mark]:
    """Label of a method -> best or second, judged on what is printed; equal numbers share a mark."""
    sign = 1 if column.higher_is_better else -1
    printed = {}
    for own in methods:
        mean = column.mean(own)
        if mean is not None and not own.joint:
            printed[own.label] = sign * round(100 * mean, DECIMALS)
    ranks = sorted(set(printed.values()), reverse=True)
    if len(ranks) < 2:
        return {}
    places: dict[float, Mark] = {ranks[0]: "best"}
    if len(printed) > 2:
        places[ranks[1]] = "second"
    return {label: places[value] for label, value in printed.items() if value in places}


def _text(own: MethodRuns, column: Column) -> str:
    mean, std, known = column.mean(own), column.std(own), len(column.known(own))
    if mean is None:
        return "-"
    text = percent(mean) + (f" ± {percent(std)}" if std is not None else "")
    return text if known == len(own.runs) else f"{text} (n={known})"


def _data(own: MethodRuns, columns: Sequence[Column], below: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"method": own.method, "overrides": own.overrides, "source": "measured"}
    data |= {"runs": len(own.runs), "below_zero_shot": below}
    for column in columns:
        data[column.key] = column.mean(own)
        data[f"{column.key}_std"] = column.std(own)
        data[f"{column.key}_n"] = len(column.known(own))
    return data


def _notes(group: Group, columns: Sequence[Column], below: set[str]) -> list[str]:
    notes = []
    lower = [column.title for column in columns if not column.higher_is_better]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}")
    if below:
        notes.append(f"† ends below zero-shot ({_final(group).title})")
    if any(own.joint for own in group.methods):
        notes.append("‡ learned all tasks at once (upper bound), not ranked")
    if any(column.mean(own) is None for own in group.methods for column in columns):
        notes.append("a dash: not available")
    return notes + _notes_on_seeds(group.methods)


def _notes_on_seeds(methods: Sequence[MethodRuns]) -> list[str]:
    """What a reader must know of seeds: one that was run twice, class orders that only some methods have met."""
    notes = []
    for own in methods:
        repeated = sorted({pair for pair in own.seeds if own.seeds.count(pair) > 1})
        if repeated:
            order, seed = repeated[0]
            notes.append(f"{own.label}: several runs of order seed {order}, seed {seed}, which differ outside the records")
    orders = {own.label: sorted({order for order, _ in own.seeds}) for own in methods}
    if len({tuple(found) for found in orders.values()}) > 1:
        listed = "; ".join(f"{label}: {', '.join(map(str, found))}" for label, found in orders.items())
        notes.append(f"class orders differ between rows, compare with care ({listed})")
    return notes


def _matrix_table(own: MethodRuns, group: Group) -> Table:
    """Accuracy matrix of one method: learned tasks as the scenario scores them, future tasks to the right of them."""
    mean = np.mean([run.learned_and_future for run in own.runs], axis=0)  # (T, T)
    rows, data = [], []
    for after, (name, line) in enumerate(zip(group.tasks, mean)):
        rows.append([TableCell(f"after {name}"), *[TableCell(percent(value)) for value in line]])
        known = {task: None if np.isnan(value) else float(value) for task, value in zip(group.tasks, line)}
        data.append({"method": own.method, "overrides": own.overrides, "after_task": after, **known})
    how = "own classes compete"
    if group.conditions["scenario"] == TASK_AGNOSTIC:
        how = f"among the candidates of the stream ({own.runs[0].own_candidates}), learned or not"
    elif not group.task_incremental:
        how = "among the seen classes, right of the diagonal (future tasks) among all"
    reading = f"Percent, mean over {len(own.runs)} run(s); {how}."
    caption = f"{own.label}: accuracy matrix on {_head(group)}"
    return Table(caption, reading, ["", *group.tasks], rows, conditions=group.conditions, data=data)
