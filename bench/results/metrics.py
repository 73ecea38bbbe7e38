"""Every metric of a run, by name: a pure function of its records and per-sample scores.

The formulas live in bench.results.accuracy, bench.results.calibration and bench.results.novelty; here each one is given a name,
told which classes compete, and described. `bench list metrics` prints METRICS; a value of None means "not available": a cell that
the formula needs was not measured, or the quantity does not exist (backward transfer of a stream of one task).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import unknown_name
from bench.results import accuracy, calibration, novelty
from bench.results.run_data import CLASS_INCREMENTAL, TASK_AGNOSTIC, TASK_INCREMENTAL, RunData, matrices

if TYPE_CHECKING:
    import pandas as pd


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


def _zero_shot_transfer(run: RunData) -> float:
    return accuracy.NOT_AVAILABLE if run.zero_shot is None else accuracy.column_mean_transfer(run.zero_shot)


def _of_novelty() -> dict[str, Metric]:
    """Three metrics for each score that can tell seen from novel images; the energy's have the plain names."""
    found = {}
    for score in novelty.SCORES:
        said = score.replace("_", " ")
        suffix, label = ("", "") if score == "energy" else (f"_{score}", f"/{said}")
        how = f"by {said}, after every task but the last"
        found[f"auroc{suffix}"] = Metric(
            f"AUROC{label}",
            f"seen against novel images {how}",
            _novelty(novelty.auroc, score),
            needs="samples",
        )
        found[f"aupr{suffix}"] = Metric(
            f"AUPR{label}",
            f"average precision of seen among novel images {how}",
            _novelty(novelty.aupr, score),
            needs="samples",
        )
        found[f"fpr95{suffix}"] = Metric(
            f"FPR95{label}",
            f"novel images taken for seen when 95% of the seen are found, {how}",
            _novelty(novelty.fpr95, score),
            higher_is_better=False,
            needs="samples",
        )
    return found


DEFAULTS = {  # scenario -> the metrics that its tables show unless told otherwise
    CLASS_INCREMENTAL: ("last", "avg", "bwt", "forgetting", "ci_transfer", "ci_transfer_future", "ci_transfer_task"),
    TASK_INCREMENTAL: ("mtil_transfer", "mtil_avg", "mtil_last", "bwt"),
    # "zero-shot 57.7" of X-TAIL's tables is a mean over all data sets, Transfer leaves out the first: both from one set of cells
    TASK_AGNOSTIC: ("agnostic_transfer", "zero_shot_transfer", "agnostic_avg", "last", "bwt"),
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
    "agnostic_transfer": Metric(
        "Transfer", "as MTIL Transfer, but the task is not given: among the classes that compete for it (RAIL, LADA)",
        lambda run: accuracy.column_mean_transfer(run.future),
    ),
    "zero_shot_transfer": Metric(
        "Transfer/zero-shot", "the same of zero-shot CLIP, over the same cells: what Transfer is to be compared with",
        _zero_shot_transfer, needs="zero-shot",
    ),
    "agnostic_avg": Metric(
        "Average", "as MTIL Avg, but the task is not given: among the classes that compete for it (RAIL, LADA)",
        lambda run: accuracy.all_cells_avg(run.learned_and_future),
    ),
    "ece": Metric(
        "ECE", "expected calibration error at the end: 15 equal-width bins over all test images",
        _ece, higher_is_better=False, needs="samples",
    ),
    "ece_batch32": Metric(
        "ECE/batch32", "ECE at the end of test batches of 32, mean over batches (as CLAP4CLIP's code; biased upwards)",
        lambda run: calibration.ece_batched(final_cells(run), 32), higher_is_better=False, needs="samples",
    ),
    **_of_novelty(),
}  # fmt: skip


def find(name: str) -> Metric:
    """The metric of that name, or an error that offers the closest ones."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


def compute(
    run_records: "pd.DataFrame",
    samples: Mapping[str, np.ndarray] | None = None,
    names: Iterable[str] | None = None,
    baseline: np.ndarray | None = None,
    zero_shot: np.ndarray | None = None,
) -> dict[str, float | None]:
    """The named metrics (default: all) of one run; None = not available.

    samples: the arrays of its samples.safetensors, for calibration and novelty. baseline: (T,) zero-shot accuracies,
    for forward transfer; zero_shot: (T, T) of them after every task, for zero-shot Transfer.
    """
    by_candidates, n = matrices(run_records)
    scenario = run_records["scenario"].iloc[0] if "scenario" in run_records else CLASS_INCREMENTAL
    return of_run(RunData(scenario, by_candidates, n, samples or {}, baseline, zero_shot), names)


def of_run(run: RunData, names: Iterable[str] | None = None) -> dict[str, float | None]:
    """As compute, for matrices that are already there."""
    values = {name: find(name).function(run) for name in (METRICS if names is None else names)}
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}
