"""What the metrics of a run are computed from: its accuracy matrices, numbers of test images, and per-image scores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

CLASS_INCREMENTAL, TASK_INCREMENTAL, TASK_AGNOSTIC = "class-incremental", "task-incremental", "task-agnostic"

# scenario -> among which classes it scores a learned task; a task-agnostic one among the first of these that a run has
OWN_CANDIDATES = {CLASS_INCREMENTAL: ("seen",), TASK_INCREMENTAL: ("task",), TASK_AGNOSTIC: ("all", "seen+task")}


@dataclass(frozen=True)
class RunData:
    """What the metrics of one run are computed from."""

    scenario: str
    matrices: dict[str, np.ndarray]  # candidates -> (T, T) fractions, NaN = not measured
    n: np.ndarray  # (T,) test images of each task, NaN = not recorded
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)  # content of samples.safetensors
    baseline: np.ndarray | None = None  # (T,) zero-shot accuracy among the candidates of `future`
    zero_shot: np.ndarray | None = None  # (T, T) the same after every task: more classes may compete

    def matrix(self, candidates: str) -> np.ndarray:
        """(T, T), all NaN if nothing was scored among these candidates."""
        return self.matrices.get(candidates, np.full((len(self.n), len(self.n)), np.nan))

    @property
    def own_candidates(self) -> str:
        """Among which classes this scenario scores a learned task."""
        names = OWN_CANDIDATES[self.scenario]
        # records that are read together give every run a matrix of every kind, empty where it was not scored
        return next((name for name in names if not np.isnan(self.matrix(name)).all()), names[0])

    @property
    def learned(self) -> np.ndarray:
        """The matrix of learned tasks: among the seen classes, the task's own where it is given, or all of the stream."""
        return self.matrix(self.own_candidates)

    @property
    def future(self) -> np.ndarray:
        """The matrix of future tasks: among all classes, or as a task-incremental or task-agnostic stream scores every task."""
        return self.matrix("all" if self.scenario == CLASS_INCREMENTAL else self.own_candidates)

    @property
    def learned_and_future(self) -> np.ndarray:
        """(T, T): every task as the scenario scores it, the future ones right of the diagonal."""
        return np.where(np.tri(len(self.n), dtype=bool), self.learned, self.future)

    @property
    def joint(self) -> bool:
        """Were all tasks learned at once, so that only the last row exists?"""
        return len(self.learned) > 1 and bool(np.isnan(self.learned[:-1]).all())

    @property
    def before_learning(self) -> np.ndarray:
        """(T,) accuracy on each task just before it is learned; the first one has none."""
        return np.concatenate([[np.nan], np.diag(self.future, 1)])

    def scores(self, name: str, after_task: int, eval_task: int, candidates: str) -> np.ndarray | None:
        """One per-sample array: prediction, confidence, entropy or energy."""
        return self.samples.get(f"{name}/{after_task}/{eval_task}/{candidates}")


# -- from records -----------------------------------------------------------------------------------------------


def matrices(records: "pd.DataFrame") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The records of one run as ({candidates: (T, T) accuracies}, (T,) test images of each task)."""
    if "run_id" in records and records["run_id"].nunique() > 1:
        raise ValueError("matrices are those of one run; these records hold several")
    return next(iter(matrices_of_runs(records).values()))[:2] if len(records) else ({}, np.zeros(0))


def matrices_of_runs(records: "pd.DataFrame") -> "dict[str, tuple[dict[str, np.ndarray], np.ndarray]]":
    """For every run id, in order of appearance, what `matrices` says of it.

    All cells of all runs are written into one flat buffer at once: run after run, candidates after candidates.
    """
    rows = records[records["metric"] == "accuracy"] if "metric" in records else records
    after, evaluated = rows["after_task"].to_numpy(int), rows["eval_task"].to_numpy(int)
    images = rows["n"].to_numpy(float)
    run_ids, run = _numbered(rows["run_id"] if "run_id" in rows else np.zeros(len(rows)))
    names, candidates = _numbered(rows["candidates"])
    tasks = np.zeros(len(run_ids), dtype=int)  # T of each run
    np.maximum.at(tasks, run, np.maximum(after, evaluated) + 1)
    # A run's part of the buffer begins at start[run]. In it lie as many (T, T) matrices as there are kinds of candidates, one
    # behind the other; so matrix `candidates` begins T * T * candidates further on, its row `after` T * after, and the cell of
    # the evaluated task another `evaluated`.
    start = np.concatenate([[0], np.cumsum(len(names) * tasks**2)])
    cells = np.full(start[-1], np.nan)
    place = start[run] + (candidates * tasks[run] + after) * tasks[run] + evaluated
    cells[place] = rows["value"].to_numpy(float)
    # the same for the numbers of images: a run's part begins at first[run] and holds one number a task
    first = np.concatenate([[0], np.cumsum(tasks)])
    n = np.full(first[-1], np.nan)
    n[first[run] + evaluated] = images
    wrong = n[first[run] + evaluated] != images
    if wrong.any():
        run_id = run_ids[run[wrong][0]]
        raise BenchError(f"run {run_id}: its records disagree on a task's number of test images; run it again with --fresh")
    return {
        run_id: (dict(zip(names, cells[start[i] : start[i + 1]].reshape(-1, tasks[i], tasks[i]))), n[first[i] : first[i + 1]])
        for i, run_id in enumerate(run_ids)
    }


def _numbered(values: Iterable[Any]) -> tuple[list[Any], np.ndarray]:
    """(distinct values in order of appearance, the number of each value among them)."""
    numbers: dict[Any, int] = {}
    codes = np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=int)
    return list(numbers), codes
