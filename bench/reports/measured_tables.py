"""Tables of nothing but measured results that were handed in: what there is before anything was run here."""

from collections.abc import Sequence

import pandas as pd

from bench.reports.formats import Table
from bench.reports.layout import Layout
from bench.reports.measured_rows import MeasuredRows
from bench.reports.published_rows import PublishedRows
from bench.reports.rows import Block, metric_block, metric_column, task_blocks
from bench.results.conditions import heading, label
from bench.results.measured.groups import grouped
from bench.results.measured.schema import MeasuredRun
from bench.results.metrics import DEFAULTS
from bench.results.run_data import TASK_INCREMENTAL


def apart(
    runs: Sequence[MeasuredRun],
    metrics: Sequence[str] | None,
    view: str,
    sort: str | None,
    published: pd.DataFrame | None,
    layout: Layout,
) -> list[Table]:
    """One table, or one for each block of the per-task view, for every set of conditions under which runs were handed in."""
    layout.refuse_unknown(name for theirs in grouped(runs) for name in (theirs["method"], theirs.label))
    runs = [run for run in runs if layout.wants(run["method"], label(run["method"], run["overrides"]))]
    found: dict[tuple[str, ...], list[MeasuredRun]] = {}
    for theirs in grouped(runs):
        found.setdefault((*theirs.conditions.values(), str(len(theirs.runs[0].tasks))), []).extend(theirs.runs)
    return [_table(own, block, sort, published, layout) for own in found.values() for block in _blocks(own, metrics, view)]


def _table(runs: Sequence[MeasuredRun], block: Block, sort: str | None, published: pd.DataFrame | None, layout: Layout) -> Table:
    methods = grouped(runs)
    conditions = methods[0].conditions
    spread = "mean ± standard deviation over runs" if max(len(one.runs) for one in methods) > 1 else "one run a row"
    order = metric_column(sort or ("mtil_last" if conditions["scenario"] == TASK_INCREMENTAL else "last"))
    head = heading(conditions, also=("exemplars", "templates"))
    lower = [column.title for column in block.columns if not column.higher_is_better]
    table = Table(
        caption=f"{head}; {block.title}" if block.title else head,
        reading=f"Percent, {spread}, measured by others.",
        header=["method", *[column.title for column in block.columns], "runs"],
        rows=[],
        notes=[f"lower is better: {', '.join(lower)}"] if lower else [],
        conditions=dict(conditions),
        digits=layout.digits,
    )
    MeasuredRows(table, block.columns, runs, {}, len(runs[0].tasks), order, layout).finish()
    if published is not None:
        PublishedRows(table, block.columns, published, layout).finish()
    return table


def _blocks(runs: Sequence[MeasuredRun], metrics: Sequence[str] | None, view: str) -> list[Block]:
    if view == "summary":
        return [metric_block(metrics or DEFAULTS[runs[0]["scenario"]])]
    names = {tuple(run.tasks) for run in runs}
    tasks = list(names.pop()) if len(names) == 1 else [f"task {k + 1}" for k in range(len(runs[0].tasks))]
    return task_blocks(runs[0]["scenario"], tasks)
