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
from bench.reports import measured_tables, notes, significance
from bench.reports.foreign_rows import Foreign, add_rows, apart, marked, place_of
from bench.reports.formats import Mark, Table, TableCell, percent, write
from bench.reports.layout import Layout, laid_out
from bench.reports.measured_rows import MeasuredRows
from bench.reports.published_rows import PublishedRows
from bench.reports.rows import Block, Column, metric_block, metric_column, task_blocks
from bench.results.conditions import ZERO_SHOT, heading
from bench.results.groups import Group, MethodRuns, comparable
from bench.results.measured.schema import MeasuredRun
from bench.results.metrics import DEFAULTS, find
from bench.results.records import refuse_mixture
from bench.results.run_data import TASK_AGNOSTIC
from bench.results.samples import SamplesOf

VIEWS = ("summary", "tasks", "matrix")
AS_EVER = Layout()


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
    measured: Sequence[MeasuredRun] | None = None,
    layout: Layout = AS_EVER,
) -> str:
    """The tables of these records as text.

    metrics: names from bench.results.metrics.METRICS (default: those of the scenario). view: "summary" (one number a metric),
    "tasks" (one a task), "matrix" (accuracy matrices). sort: the metric that orders the methods (default Last).
    samples_of: from a run id to its per-sample scores (bench.results.samples.of_runs), asked only if a metric needs them.
    published: numbers from papers (bench.results.published.load()) to stand beside the measured ones. foreign: matrices that
    other programs measured (bench.reports.foreign_rows.load), with rows of their own. manifests: by run id, for notes on what
    differs between averaged runs. measured: results that others handed in (bench.results.measured.files), beside own ones.
    layout: which rows, how many digits, which caption.
    """
    tables = build(records, metrics, view, sort, samples_of, published, foreign, manifests, measured, layout)
    return write(laid_out(tables, layout, format), format)


def build(
    records: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    view: str = "summary",
    sort: str | None = None,
    samples_of: SamplesOf | None = None,
    published: pd.DataFrame | None = None,
    foreign: Sequence[Foreign] = (),
    manifests: Mapping[str, Mapping[str, Any]] | None = None,
    measured: Sequence[MeasuredRun] | None = None,
    layout: Layout = AS_EVER,
) -> list[Table]:
    """As render, before a format is chosen."""
    if view not in VIEWS:
        raise BenchError(f"unknown view {view!r}; known: {', '.join(VIEWS)}")
    named = [*(metrics or []), *([sort] if sort else [])]
    need_samples = [name for name in named if find(name).needs == "samples"]
    if not len(records) and (foreign or measured):
        handed_in = measured_tables.apart(measured or [], metrics, view, sort, published, layout)
        return [*handed_in, *apart(foreign, metrics, view, [], layout.digits)]
    if not len(records):
        raise BenchError("no records to make a table of; bench run writes them")
    refuse_mixture(records)
    groups = comparable(records)
    if samples_of and need_samples:
        groups = [group.with_samples(samples_of) for group in groups]
    groups = [_sorted(group.with_baselines(), sort) for group in groups]
    _refuse_unknown(layout, groups, published, measured)
    # other programs report test images: their matrices never stand beside numbers of a validation part
    shapes = [(group.conditions["scenario"], 0 if group.validation else len(group.tasks)) for group in groups]
    places = [place_of(one, shapes) for one in foreign]
    tables: list[Table] = []
    for number, group in enumerate(groups):
        methods = layout.chosen(group.methods, ordered=sort is not None)
        if view == "matrix":
            tables += [_matrix_table(own, group, layout.digits) for own in methods]
            continue
        for block in _blocks(group, metrics, view):
            table = _comparison(group, methods, block, published, measured, manifests or {}, layout)
            beside = [one for one, place in zip(foreign, places) if place == number]
            add_rows(table, beside, block.columns, group.conditions["scenario"])
            tables.append(table)
        tables[-1].notes += notes.on_mixtures(methods, manifests or {}) + notes.on_ties(group, methods, manifests or {})
    alone = [one for one, place in zip(foreign, places) if place is None or view == "matrix"]
    if alone:
        tables += apart(alone, metrics, view, shapes, layout.digits)
    tables = _with_rows(tables, groups)
    return marked(tables) if foreign else tables


def _refuse_unknown(
    layout: Layout, groups: Sequence[Group], published: pd.DataFrame | None, measured: Sequence[MeasuredRun] | None
) -> None:
    """BenchError where a row is wanted that none of these results could have."""
    if layout.methods is None:
        return
    known = {name for group in groups for own in group.methods for name in (own.label, own.method)}
    known |= {run["method"] for run in measured or []}
    layout.refuse_unknown(known | (set(published["method"]) if published is not None else set()))


def _with_rows(tables: Sequence[Table], groups: Sequence[Group]) -> list[Table]:
    """The tables that have rows; where a choice of methods leaves one empty, a note says so."""
    kept = [table for table in tables if table.rows]
    empty = list(dict.fromkeys(str(table.conditions["protocol"]) for table in tables if not table.rows))
    if not kept:
        raise BenchError(f"none of these methods was run on {', '.join(empty or [group.protocol for group in groups])}")
    if empty:
        kept[-1].notes.append(f"none of these methods was run on {', '.join(empty)}")
    return kept


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


# -- from a group to a table ------------------------------------------------------------------------------------


def _comparison(
    group: Group,
    methods: Sequence[MethodRuns],
    block: Block,
    published: pd.DataFrame | None,
    measured: Sequence[MeasuredRun] | None,
    manifests: Mapping[str, Mapping[str, Any]],
    layout: Layout,
) -> Table:
    """A row for every method, with what others measured and what papers say of it below."""
    columns = block.columns
    below = _below_zero_shot(group)
    runs = max((len(own.runs) for own in methods), default=1)
    spread = "mean ± standard deviation over runs (seeds and class orders)" if runs > 1 else "one run a row"
    table = Table(
        caption=f"{_head(group)}; {block.title}" if block.title else _head(group),
        reading=f"Percent, {spread}.",
        header=["method", *[column.title for column in columns], "runs"],
        rows=[],
        notes=_notes(group, methods, columns, below),
        conditions=group.conditions,
        digits=layout.digits,
    )
    signs_of = significance.marks(methods, columns) if layout.significance else None
    if signs_of:
        table.notes += signs_of.notes()
    own_manifests = {run_id: manifests[run_id] for run_id in group.run_ids if run_id in manifests}
    others: list[MeasuredRows | PublishedRows] = []
    if measured is not None:
        others.append(MeasuredRows(table, columns, measured, own_manifests, len(group.tasks), _final(group), layout))
    if published is not None:
        others.append(PublishedRows(table, columns, published, layout))
    marks = {column.key: _marks(methods, column, layout.digits) for column in columns}
    for own in methods:
        signs = (" †" if own.label in below else "") + (" ‡" if own.joint else "")
        cells = [
            TableCell(
                _text(own, column, layout.digits),
                marks[column.key].get(own.label, ""),
                signs_of.sign(column, own.label) if signs_of else "",
            )
            for column in columns
        ]
        table.rows.append([TableCell(own.label + signs), *cells, TableCell(str(len(own.runs)))])
        table.data.append(_data(own, columns, own.label in below))
        for beside in others:
            beside.below(own)
    for beside in others:
        beside.finish()
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


def _marks(methods: Sequence[MethodRuns], column: Column, digits: int) -> dict[str, Mark]:
    """Label of a method -> best or second, judged on what is printed; equal numbers share a mark."""
    sign = 1 if column.higher_is_better else -1
    printed = {}
    for own in methods:
        mean = column.mean(own)
        if mean is not None and not own.joint:
            printed[own.label] = sign * round(100 * mean, digits)
    ranks = sorted(set(printed.values()), reverse=True)
    if len(ranks) < 2:
        return {}
    places: dict[float, Mark] = {ranks[0]: "best"}
    if len(printed) > 2:
        places[ranks[1]] = "second"
    return {label: places[value] for label, value in printed.items() if value in places}


def _text(own: MethodRuns, column: Column, digits: int) -> str:
    mean, std, known = column.mean(own), column.std(own), len(column.known(own))
    if mean is None:
        return "-"
    text = percent(mean, digits) + (f" ± {percent(std, digits)}" if std is not None else "")
    return text if known == len(own.runs) else f"{text} (n={known})"


def _data(own: MethodRuns, columns: Sequence[Column], below: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"method": own.method, "overrides": own.overrides, "source": "measured"}
    data |= {"runs": len(own.runs), "below_zero_shot": below}
    for column in columns:
        data[column.key] = column.mean(own)
        data[f"{column.key}_std"] = column.std(own)
        data[f"{column.key}_n"] = len(column.known(own))
    return data


def _notes(group: Group, methods: Sequence[MethodRuns], columns: Sequence[Column], below: set[str]) -> list[str]:
    found = []
    lower = [column.title for column in columns if not column.higher_is_better]
    if lower:
        found.append(f"lower is better: {', '.join(lower)}")
    if below & {own.label for own in methods}:
        found.append(f"† ends below zero-shot ({_final(group).title})")
    if any(own.joint for own in methods):
        found.append("‡ learned all tasks at once (upper bound), not ranked")
    if any(column.mean(own) is None for own in methods for column in columns):
        found.append("a dash: not available")
    return found + notes.on_seeds(methods)


def _matrix_table(own: MethodRuns, group: Group, digits: int) -> Table:
    """Accuracy matrix of one method: learned tasks as the scenario scores them, future tasks to the right of them."""
    mean = np.mean([run.learned_and_future for run in own.runs], axis=0)  # (T, T)
    rows, data = [], []
    for after, (name, line) in enumerate(zip(group.tasks, mean)):
        rows.append([TableCell(f"after {name}"), *[TableCell(percent(value, digits)) for value in line]])
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
