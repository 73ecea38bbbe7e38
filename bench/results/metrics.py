"""Every metric of a run, by name: a pure function of its records and per-sample scores.

The formulas live in bench.results.accuracy, bench.results.calibration and bench.results.novelty; here each one is given a name,
told which classes compete, and described. `bench list metrics` prints METRICS; a value of None means "not available": a cell that
the formula needs was not measured, or the quantity does not exist (backward transfer of a stream of one task).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError, unknown_name
from bench.results import accuracy, calibration, novelty

if TYPE_CHECKING:
    import pandas as pd

CLASS_INCREMENTAL, TASK_INCREMENTAL = "class-incremental", "task-incremental"


@dataclass(frozen=True)
class RunData:
    """What the metrics of one run are computed from."""

    scenario: str
    matrices: dict[str, np.ndarray]  # candidates -> (T, T) fractions, NaN = not measured
    n: np.ndarray  # (T,) test images of each task, NaN = not recorded
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)  # content of samples.safetensors
    baseline: np.ndarray | None = None  # (T,) zero-shot accuracy among the candidates of `future`

    def matrix(self, candidates: str) -> np.ndarray:
        """(T, T), all NaN if nothing was scored among these candidates."""
        return self.matrices.get(candidates, np.full((len(self.n), len(self.n)), np.nan))

    @property
    def own_candidates(self) -> str:
        """Among which classes this scenario scores a learned task."""
        return "task" if self.scenario == TASK_INCREMENTAL else "seen"

    @property
    def learned(self) -> np.ndarray:
        """The matrix of learned tasks: among the seen classes, or the task's own where the task is given."""
        return self.matrix(self.own_candidates)

    @property
    def future(self) -> np.ndarray:
        """The matrix of future tasks: among all classes, or the task's own where the task is given."""
        return self.matrix("task" if self.scenario == TASK_INCREMENTAL else "all")

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


@dataclass(frozen=True)
class Metric:
    """A named number of a run; fractions inside, percent on paper."""

    title: str  # as a table heads it
    meaning: str
    function: Callable[[RunData], float]
    higher_is_better: bool = True
    unit: str = "percent"
    needs: str = "records"  # or "samples" (per-sample scores), "zero-shot" (the zero-shot run of the same stream)

    @property
    def summary(self) -> str:
        """Unit, direction and meaning on one line."""
        return f"{self.unit}, {'higher' if self.higher_is_better else 'lower'} is better: {self.meaning}"


def final_cells(run: RunData) -> list[tuple[np.ndarray, np.ndarray]]:
    """(confidence, correct) of every task after the last one; empty if they were not kept of all tasks."""
    tasks, cells = len(run.n), []
    for k in range(tasks):
        confidence = run.scores("confidence", tasks - 1, k, run.own_candidates)
        prediction = run.scores("prediction", tasks - 1, k, run.own_candidates)
        if confidence is None or prediction is None or f"labels/{k}" not in run.samples:
            return []
        cells.append((confidence, prediction == run.samples[f"labels/{k}"]))
    return cells


def final_scores(run: RunData) -> tuple[np.ndarray, np.ndarray] | None:
    """(confidence, correct) of all test images after the last task; None if they were not kept."""
    cells = final_cells(run)
    if not cells:
        return None
    confidences, hits = zip(*cells)
    return np.concatenate(confidences).astype(float), np.concatenate(hits)


def _ece(run: RunData) -> float:
    scores = final_scores(run)
    return calibration.ece(*scores) if scores else accuracy.NOT_AVAILABLE


def _novelty(function: Callable[[np.ndarray, np.ndarray], float], score: str) -> Callable[[RunData], float]:
    name, sign = novelty.SCORES[score]

    def compute(run: RunData) -> float:
        tasks = len(run.n)
        moments: list[tuple[np.ndarray, np.ndarray]] = []
        for t in range(tasks - 1):
            found = [run.scores(name, t, k, "seen") for k in range(tasks)]
            cells = [cell for cell in found if cell is not None]
            if len(cells) < tasks:
                return accuracy.NOT_AVAILABLE
            moments.append((sign * np.concatenate(cells[: t + 1]), sign * np.concatenate(cells[t + 1 :])))
        return novelty.over_moments(function, moments)

    return compute


def _forward_transfer(run: RunData) -> float:
    return accuracy.NOT_AVAILABLE if run.baseline is None else accuracy.forward_transfer(run.future, run.baseline)


DEFAULTS = {  # scenario -> the metrics that its tables show unless told otherwise
    CLASS_INCREMENTAL: ("last", "avg", "bwt", "forgetting", "ci_transfer", "ci_transfer_future", "ci_transfer_task"),
    TASK_INCREMENTAL: ("mtil_transfer", "mtil_avg", "mtil_last", "bwt"),
}
METRICS: dict[str, Metric] = {
    "last": Metric(
        "Last", "accuracy after the last task, mean over tasks", lambda run: accuracy.last(run.learned),
    ),
    "last_samples": Metric(
        "Last/images", "accuracy after the last task, mean over images",
        lambda run: accuracy.last_samples(run.learned, run.n),
    ),
    "avg": Metric(
        "Avg", "accuracy on the tasks learned so far (mean over tasks), mean over moments",
        lambda run: accuracy.avg(run.learned),
    ),
    "avg_samples": Metric(
        "Avg/images", "accuracy on the tasks learned so far (mean over images), mean over moments",
        lambda run: accuracy.avg_samples(run.learned, run.n),
    ),
    "avg_cells": Metric(
        "Avg/cells", "mean of every accuracy on a learned task (Diaz-Rodriguez et al.)",
        lambda run: accuracy.avg_cells(run.learned),
    ),
    "last_task": Metric(
        "Last/task", "as last, but only the task's own classes compete (task-aware)",
        lambda run: accuracy.last(run.matrix("task")),
    ),
    "avg_task": Metric(
        "Avg/task", "as avg, but only the task's own classes compete (task-aware)",
        lambda run: accuracy.avg(run.matrix("task")),
    ),
    "bwt": Metric(
        "BwT", "backward transfer: accuracy at the end minus right after learning the task; negative = forgetting",
        lambda run: accuracy.bwt(run.learned),
    ),
    "bwt_all_moments": Metric(
        "BwT/moments", "backward transfer, mean over all later moments (Diaz-Rodriguez et al.)",
        lambda run: accuracy.bwt_all_moments(run.learned),
    ),
    "forgetting": Metric(
        "Forgetting", "best accuracy since learning the task minus the last (Chaudhry et al.)",
        lambda run: accuracy.forgetting(run.learned), higher_is_better=False,
    ),
    "forgetting_from_start": Metric(
        "Forgetting/start", "as forgetting, the best may lie before learning the task; own classes compete",
        lambda run: accuracy.forgetting_from_start(run.matrix("task")), higher_is_better=False,
    ),
    "forgetting_nonnegative": Metric(
        "Forgetting/max0", "as forgetting, but no task counts less than 0 (PyCIL, PILOT, L2P)",
        lambda run: accuracy.forgetting_nonnegative(run.learned), higher_is_better=False,
    ),
    "forward_transfer": Metric(
        "FwT", "accuracy on the next task just before learning it, minus zero-shot CLIP's",
        _forward_transfer, needs="zero-shot",
    ),
    "ci_transfer": Metric(
        "CI-Transfer", "accuracy on future tasks among all classes: mean over tasks, then over moments (CGIL)",
        lambda run: accuracy.ci_transfer(run.matrix("all")),
    ),
    "ci_transfer_future": Metric(
        "CI-Transfer/future", "CI-Transfer among the classes that are not learned yet",
        lambda run: accuracy.ci_transfer(run.matrix("future")),
    ),
    "ci_transfer_task": Metric(
        "CI-Transfer/task", "CI-Transfer among the task's own classes",
        lambda run: accuracy.ci_transfer(run.matrix("task")),
    ),
    "column_mean_transfer": Metric(
        "Transfer/columns", "accuracy on future tasks among all classes: mean over moments, then over tasks",
        lambda run: accuracy.column_mean_transfer(run.matrix("all")),
    ),
    "flat_mean_transfer": Metric(
        "Transfer/cells", "accuracy on future tasks among all classes: mean of all cells",
        lambda run: accuracy.flat_mean_transfer(run.matrix("all")),
    ),
    "image_pooled_transfer": Metric(
        "Transfer/images", "accuracy on future tasks among all classes: mean over future images, then over moments",
        lambda run: accuracy.image_pooled_transfer(run.matrix("all"), run.n),
    ),
    "mtil_transfer": Metric(
        "MTIL Transfer", "accuracy on future tasks among their own classes: mean over moments, then over tasks (ZSCL)",
        lambda run: accuracy.column_mean_transfer(run.matrix("task")),
    ),
    "mtil_avg": Metric(
        "MTIL Avg", "accuracy on all tasks at all moments, own classes compete (ZSCL)",
        lambda run: accuracy.all_cells_avg(run.matrix("task")),
    ),
    "mtil_last": Metric(
        "MTIL Last", "accuracy after the last task, mean over tasks, own classes compete (ZSCL)",
        lambda run: accuracy.last(run.matrix("task")),
    ),
    "ece": Metric(
        "ECE", "expected calibration error at the end: 15 equal-width bins over all test images",
        _ece, higher_is_better=False, needs="samples",
    ),
    "ece_batch32": Metric(
        "ECE/batch32", "ECE at the end of test batches of 32, mean over batches (as CLAP4CLIP's code; biased upwards)",
        lambda run: calibration.ece_batched(final_cells(run), 32), higher_is_better=False, needs="samples",
    ),
}  # fmt: skip
for _score in novelty.SCORES:
    _suffix, _label = ("", "") if _score == "energy" else (f"_{_score}", f"/{_score.replace('_', ' ')}")
    _how = f"by {_score.replace('_', ' ')}, after every task but the last"
    METRICS[f"auroc{_suffix}"] = Metric(
        f"AUROC{_label}", f"seen against novel images {_how}", _novelty(novelty.auroc, _score), needs="samples"
    )
    METRICS[f"aupr{_suffix}"] = Metric(
        f"AUPR{_label}", f"average precision of seen among novel images {_how}", _novelty(novelty.aupr, _score),
        needs="samples",
    )  # fmt: skip
    METRICS[f"fpr95{_suffix}"] = Metric(
        f"FPR95{_label}", f"novel images taken for seen when 95% of the seen are found, {_how}",
        _novelty(novelty.fpr95, _score), higher_is_better=False, needs="samples",
    )  # fmt: skip


def find(name: str) -> Metric:
    """The metric of that name, or an error that offers the closest ones."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


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
    tasks = np.zeros(len(run_ids), dtype=int)
    np.maximum.at(tasks, run, np.maximum(after, evaluated) + 1)
    start = np.concatenate([[0], np.cumsum(len(names) * tasks**2)])
    cells = np.full(start[-1], np.nan)
    cells[start[run] + (candidates * tasks[run] + after) * tasks[run] + evaluated] = rows["value"].to_numpy(float)
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


def compute(
    run_records: "pd.DataFrame",
    samples: Mapping[str, np.ndarray] | None = None,
    names: Iterable[str] | None = None,
    baseline: np.ndarray | None = None,
) -> dict[str, float | None]:
    """The named metrics (default: all) of one run; None = not available.

    samples: the arrays of its samples.safetensors, for calibration and novelty. baseline: (T,) zero-shot accuracies,
    for forward transfer.
    """
    by_candidates, n = matrices(run_records)
    scenario = run_records["scenario"].iloc[0] if "scenario" in run_records else CLASS_INCREMENTAL
    return of_run(RunData(scenario, by_candidates, n, samples or {}, baseline), names)


def of_run(run: RunData, names: Iterable[str] | None = None) -> dict[str, float | None]:
    """As compute, for matrices that are already there."""
    values = {name: find(name).function(run) for name in (METRICS if names is None else names)}
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}
