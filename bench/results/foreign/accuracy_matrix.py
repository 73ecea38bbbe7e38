"""One accuracy matrix of somebody's run, and every metric that it determines."""

from dataclasses import dataclass, field

import numpy as np

from bench.results.metrics import of_run
from bench.results.run_data import CLASS_INCREMENTAL, RunData

# formulas that differ; a foreign matrix does not say which classes competed, so each is offered once
DETERMINED = (
    "last", "last_samples", "avg", "avg_samples", "avg_cells", "bwt", "bwt_all_moments", "forgetting", "forgetting_from_start",
    "forgetting_nonnegative", "forward_transfer", "ci_transfer", "mtil_transfer", "mtil_avg", "mtil_last",
    "flat_mean_transfer", "image_pooled_transfer",
)  # fmt: skip

# the formulas of MTIL Transfer and MTIL Avg where the task is not given: not offered once more
ALSO_DETERMINED = ("agnostic_transfer", "agnostic_avg")


@dataclass(frozen=True)
class AccuracyMatrix:
    """One matrix of somebody's run, as fractions."""

    label: str
    tasks: list[str]
    matrix: np.ndarray  # (T, T), NaN = not measured
    images: np.ndarray | None = None  # (T,) test images of each task
    baseline: np.ndarray | None = None  # (T,) accuracies before the first task
    moments: np.ndarray | None = None  # (T,) accuracy over all images of the learned tasks, where the file has it
    notes: list[str] = field(default_factory=list)
    scenario: str = ""  # where the program that wrote it has only one, or says it
    unit: str = ""  # of the values as they were read: "percent" where they have percent signs

    def metrics(self) -> dict[str, float | None]:
        """Every formula of DETERMINED; None = this matrix does not determine it."""
        n = np.full(len(self.tasks), np.nan) if self.images is None else self.images
        same = dict.fromkeys(("seen", "task", "all"), self.matrix)
        values = of_run(RunData(CLASS_INCREMENTAL, same, n, baseline=self.baseline), DETERMINED)
        if self.moments is not None:
            over_images = {"last_samples": float(self.moments[-1]), "avg_samples": float(np.mean(self.moments))}
            values |= {name: None if np.isnan(value) else value for name, value in over_images.items()}
        return values
