"""The numbers behind the pictures: pure functions of runs, per-image arrays and manifests. Accuracies are fractions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.results import calibration
from bench.results.groups import MethodRuns
from bench.results.run_data import RunData


def future_accuracy(run: RunData) -> np.ndarray:
    """(T-1,) zero-shot accuracy after each task but the last: the mean over the tasks still to come.

    Its mean is CI-Transfer (among all classes; in a task-incremental stream, among each task's own).
    """
    return np.array([row[t + 1 :].mean() for t, row in enumerate(run.future[:-1])])


def mean_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(runs, ...) -> mean and standard deviation over runs; the latter is NaN for a single run.

    >>> mean, spread = mean_and_spread(np.array([[0.25], [0.75]]))
    >>> mean.tolist(), spread.round(4).tolist()
    ([0.5], [0.3536])
    """
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full_like(values[0], np.nan)
    return values.mean(axis=0), spread


def mean_matrix(own: MethodRuns) -> np.ndarray:
    """(T, T) accuracy, mean over runs: learned tasks as the scenario scores them, future ones right of the diagonal."""
    return np.mean([run.learned_and_future for run in own.runs], axis=0)


def bins(confidence: np.ndarray, correct: np.ndarray, count: int = calibration.BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bins of the ECE, each (count,): mean confidence, accuracy, share of the images; NaN where a bin is empty.

    >>> confidence, accuracy, share = bins(np.array([0.9, 0.7, 0.2]), np.array([True, False, True]), count=2)
    >>> confidence.round(2).tolist(), accuracy.tolist(), share.round(2).tolist()
    ([0.2, 0.8], [1.0, 0.5], [0.33, 0.67])
    """
    place = calibration.bin_of(confidence, count)
    size = np.bincount(place, minlength=count)
    with np.errstate(invalid="ignore"):
        mean, hit = (np.bincount(place, weights=weights, minlength=count) / size for weights in (confidence, correct))
    return mean, hit, size / len(confidence)


def training_seconds(manifest: Mapping[str, Any]) -> float:
    """Seconds spent in learning, all tasks together; NaN if they were not noted."""
    tasks = manifest.get("cost", {}).get("seconds_per_task")
    return float(sum(task["learn"] for task in tasks)) if tasks else float("nan")


def stored_bytes(manifest: Mapping[str, Any]) -> float:
    """What goes from task to task, exemplars, trained weights and statistics together; NaN where a part of it is not stated.

    >>> stored_bytes({"cost": {"state_bytes": 8192, "exemplar_bytes": 0}}), stored_bytes({"cost": {"exemplar_bytes": None}})
    (8192.0, nan)
    """
    parts = [manifest.get("cost", {}).get(name) for name in ("state_bytes", "exemplar_bytes")]
    return float("nan") if None in parts else float(sum(parts))
