"""Records -> sets of runs that may be compared. What tables and pictures start from.

Runs that differ in anything that voids a comparison (protocol version, backbone, weights, templates, exemplars, image
limits) never meet: each such combination makes a set of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bench.results.run_data import RunData, matrices_of_runs
from bench.results.run_table import SHARED


@dataclass(frozen=True)
class Comparable:
    """Runs under the same conditions."""

    conditions: dict[str, str]
    methods: dict[tuple[str, str], pd.DataFrame]  # (method, overrides) -> a record of each of its runs
    data: dict[str, RunData]  # run id -> what its metrics are computed from, without per-image arrays
    tasks: list[str]  # their names


def sets(records: pd.DataFrame) -> Iterator[Comparable]:
    """All sets, in the order in which their records were found; runs without an accuracy are left out."""
    found = matrices_of_runs(records)
    runs = records.drop_duplicates("run_id")
    runs = runs[runs["run_id"].isin(found)]
    named = records.drop_duplicates(["run_id", "eval_task"])[["run_id", "eval_task", "eval_name"]]
    for shared, group in runs.groupby(SHARED, sort=False, dropna=False):
        conditions = {name: str(value) for name, value in zip(SHARED, shared)}
        methods = {
            (method, overrides if isinstance(overrides, str) else ""): own
            for (method, overrides), own in group.groupby(["method", "overrides"], sort=False, dropna=False)
        }
        data = {run_id: RunData(conditions["scenario"], *found[run_id]) for run_id in group["run_id"]}
        yield Comparable(conditions, methods, data, _task_names(named[named["run_id"].isin(group["run_id"])]))


def _task_names(named: pd.DataFrame) -> list[str]:
    """Names of the tasks; numbers where class orders give a task different names, or two tasks have the same."""
    found = named.groupby("eval_task")["eval_name"].unique()
    names = [own[0] if len(own) == 1 else f"task {task + 1}" for task, own in found.items()]
    return names if len(set(names)) == len(names) else [f"task {k + 1}" for k in range(len(names))]
