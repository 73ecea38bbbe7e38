"""Records -> groups of runs that may be compared, and in each group the runs of every method.

Tables, pictures, comparisons, rankings and the gate all start from these groups, so that none of them can let runs meet that
another one keeps apart, and all hold a method against the same zero-shot runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from bench.results import accuracy
from bench.results.conditions import SEEDS, SHARED, ZERO_SHOT, heading, label
from bench.results.loaded import Results
from bench.results.records import validation_part
from bench.results.run_data import TASK_INCREMENTAL, RunData, matrices_of_runs
from bench.results.samples import SamplesOf


@dataclass(frozen=True)
class MethodRuns:
    """A method with its hyper-parameters: all of its runs in one group."""

    method: str
    overrides: str
    table: pd.DataFrame  # one row a run: CONDITIONS, SEEDS, run_id
    runs: list[RunData]  # the same runs
    _numbers: dict[str, list[float]] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def label(self) -> str:
        return label(self.method, self.overrides)

    @property
    def run_ids(self) -> list[str]:
        return list(self.table["run_id"])

    @property
    def seeds(self) -> list[tuple[int, int]]:
        """(order seed, seed) of each run."""
        return list(zip(*(self.table[column].astype(int).tolist() for column in SEEDS)))

    @property
    def joint(self) -> bool:
        """Did it learn all tasks at once?"""
        return self.runs[0].joint

    @cached_property
    def last(self) -> np.ndarray:
        """(runs,) accuracy after the last task, mean over tasks."""
        return np.array([accuracy.last(run.learned) for run in self.runs])

    def numbers(self, name: str, function: Callable[[RunData], float]) -> list[float]:
        """The number of that name of each run, NaN = not available. Computed once, because those of images take their time."""
        if name not in self._numbers:
            self._numbers[name] = [function(run) for run in self.runs]
        return self._numbers[name]

    def with_samples(self, samples_of: SamplesOf) -> "MethodRuns":
        """The same runs with their per-image arrays, as far as those were kept."""
        runs = [replace(run, samples=samples_of(run_id) or {}) for run_id, run in zip(self.run_ids, self.runs)]
        return replace(self, runs=runs)

    def by_seed(self) -> "MethodRuns":
        """The same runs in the order of their seeds."""
        data = dict(zip(self.run_ids, self.runs))
        table = self.table.sort_values(SEEDS)
        return replace(self, table=table, runs=[data[run_id] for run_id in table["run_id"]])


@dataclass(frozen=True)
class ZeroShot:
    """What zero-shot CLIP scores on tasks to come, mean over its runs of one class order."""

    before_learning: np.ndarray  # (T,) just before each is learned
    future: np.ndarray  # (T, T) after every task

    def beside(self, run: RunData) -> RunData:
        return replace(run, baseline=self.before_learning, zero_shot=self.future)


@dataclass(frozen=True)
class Group:
    """Runs under the same conditions."""

    conditions: dict[str, str]  # SHARED
    tasks: list[str]  # their names
    methods: list[MethodRuns]
    apart: str = ""  # what sets it apart from other groups of its protocol, as name=value;...

    @property
    def protocol(self) -> str:
        return self.conditions["protocol"]

    @property
    def task_incremental(self) -> bool:
        return self.conditions["scenario"] == TASK_INCREMENTAL

    @property
    def validation(self) -> str:
        """The part of the training images that was scored in the place of the test images; empty if these were."""
        return validation_part(self.conditions["limits"])

    @property
    def scored(self) -> str:
        """What its images are called: "test", or "validation"."""
        return "validation" if self.validation else "test"

    @property
    def heading(self) -> str:
        return heading(self.conditions)

    @property
    def run_ids(self) -> list[str]:
        return [run_id for own in self.methods for run_id in own.run_ids]

    @property
    def zero_shot(self) -> MethodRuns | None:
        """The method that the others are read against; of several kinds of it, that with its own hyper-parameters."""
        found = sorted((own for own in self.methods if own.method == ZERO_SHOT), key=lambda own: own.overrides)
        return found[0] if found else None

    def with_samples(self, samples_of: SamplesOf) -> "Group":
        """The same runs with their per-image arrays, as far as those were kept."""
        return replace(self, methods=[own.with_samples(samples_of) for own in self.methods])

    def with_baselines(self) -> "Group":
        """The same runs, each with the zero-shot accuracies of its class order, which transfer is read against."""
        zero_shot = self._of_zero_shot()
        methods = []
        for own in self.methods:
            runs = [zero_shot[order].beside(run) if order in zero_shot else run for run, (order, _) in zip(own.runs, own.seeds)]
            methods.append(replace(own, runs=runs))
        return replace(self, methods=methods)

    def _of_zero_shot(self) -> "dict[int, ZeroShot]":
        """Order seed -> zero-shot accuracies on tasks to come."""
        if self.zero_shot is None:
            return {}
        found: dict[int, list[RunData]] = {}
        for run, (order, _) in zip(self.zero_shot.runs, self.zero_shot.seeds):
            found.setdefault(order, []).append(run)
        return {
            order: ZeroShot(
                np.mean([run.before_learning for run in runs], axis=0), np.mean([run.future for run in runs], axis=0)
            )
            for order, runs in found.items()
        }

    def method(self, method_label: str) -> MethodRuns:
        return next(own for own in self.methods if own.label == method_label)


def comparable(records: pd.DataFrame) -> list[Group]:
    """All groups; these, their methods and runs as they come in the records. Runs without an accuracy are left out."""
    found = matrices_of_runs(records)
    runs = records.drop_duplicates("run_id")
    runs = runs[runs["run_id"].isin(found)]
    named = records.drop_duplicates(["run_id", "eval_task"])[["run_id", "eval_task", "eval_name"]]
    groups = []
    for shared, together in runs.groupby(SHARED, sort=False, dropna=False):
        conditions = {name: str(value) for name, value in zip(SHARED, shared)}
        methods = []
        for (method, overrides), table in together.groupby(["method", "overrides"], sort=False, dropna=False):
            data = [RunData(conditions["scenario"], *found[run_id]) for run_id in table["run_id"]]
            methods.append(MethodRuns(method, overrides if isinstance(overrides, str) else "", table, data))
        tasks = _task_names(named[named["run_id"].isin(together["run_id"])])
        groups.append(Group(conditions, tasks, methods))
    return groups


def _task_names(named: pd.DataFrame) -> list[str]:
    """Names of the tasks; numbers where class orders give a task different names, or two tasks have the same."""
    found = named.groupby("eval_task")["eval_name"].unique()
    names = [own[0] if len(own) == 1 else f"task {task + 1}" for task, own in found.items()]
    return names if len(set(names)) == len(names) else [f"task {k + 1}" for k in range(len(names))]


def arranged(results: Results) -> list[Group]:
    """All groups as pictures and pages show them: zero-shot first, then from best to worst, runs in the order of their seeds."""
    groups = []
    for group in comparable(results.table):
        methods = [own.by_seed() for own in group.methods]
        methods.sort(key=lambda own: (own.method != ZERO_SHOT, -np.nan_to_num(own.last.mean(), nan=-1), own.label))
        groups.append(replace(group, methods=methods))
    return [_set_apart(group, groups) for group in groups]


def _set_apart(group: Group, groups: list[Group]) -> Group:
    """Note the conditions in which a group differs from others of its protocol."""
    siblings = [other.conditions for other in groups if other.protocol == group.protocol]
    differing = [column for column in SHARED if len({conditions[column] for conditions in siblings}) > 1]
    return replace(group, apart=";".join(f"{column}={group.conditions[column] or 'none'}" for column in differing))
