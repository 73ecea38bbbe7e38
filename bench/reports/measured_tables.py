"""Tables of nothing but measured results that were handed in: what there is before anything was run here."""

from collections.abc import Sequence

import pandas as pd

from bench.reports.formats import Table
from bench.reports.measured_rows import MeasuredRows
from bench.reports.published_rows import PublishedRows
from bench.reports.rows import Block, metric_block, task_blocks
from bench.results.conditions import heading
from bench.results.measured.groups import grouped
from bench.results.measured.schema import MeasuredRun
from bench.results.metrics import DEFAULTS


def apart(runs: Sequence[MeasuredRun], metrics: Sequence[str] | None, view: str, published: pd.DataFrame | None) -> list[Table]:
    """One table, or one for each block of the per-task view, for every set of conditions under which runs were handed in."""
    found: dict[tuple[str, ...], list[MeasuredRun]] = {}
    for theirs in grouped(runs):
        found.setdefault((*theirs.conditions.values(), str(len(theirs.runs[0].tasks))), []).extend(theirs.runs)
    return [table for own in found.values() for table in _tables(own, metrics, view, published)]


def _tables(runs: Sequence[MeasuredRun], metrics: Sequence[str] | None, view: str, published: pd.DataFrame | None) -> list[Table]:
    conditions = grouped(runs)[0].conditions
    made = []
    for block in _blocks(runs, metrics, view):
        head = heading(conditions, also=("exemplars", "templates"))
        table = Table(
            caption=f"{head}; {block.title}" if block.title else head,
            reading="Percent, mean ± standard deviation over runs, measured by others.",
            header=["method", *[column.title for column in block.columns], "runs"],
            rows=[],
            conditions=dict(conditions),
        )
        lower = [column.title for column in block.columns if not column.higher_is_better]
        table.notes += [f"lower is better: {', '.join(lower)}"] if lower else []
        MeasuredRows(table, block.columns, runs, {}).finish()
        if published is not None:
            PublishedRows(table, block.columns, published).finish()
        made.append(table)
    return made


def _blocks(runs: Sequence[MeasuredRun], metrics: Sequence[str] | None, view: str) -> list[Block]:
    if view == "summary":
        return [metric_block(metrics or DEFAULTS[runs[0]["scenario"]])]
    names = {tuple(run.tasks) for run in runs}
    tasks = list(names.pop()) if len(names) == 1 else [f"task {k + 1}" for k in range(len(runs[0].tasks))]
    return task_blocks(runs[0]["scenario"], tasks)
