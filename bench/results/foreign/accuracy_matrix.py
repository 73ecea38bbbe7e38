"""One accuracy matrix of somebody's run, and a report of every metric that it determines."""

from dataclasses import dataclass, field

import numpy as np

from bench.reports.formats import Cell, Table, write
from bench.results import accuracy
from bench.results.metrics import CLASS_INCREMENTAL, METRICS, RunData, of_run

# formulas that differ; a foreign matrix does not say which classes competed, so each is offered once
DETERMINED = (
    "last", "last_samples", "avg", "avg_samples", "avg_cells", "bwt", "bwt_all_moments", "forgetting", "forgetting_from_start",
    "forgetting_nonnegative", "forward_transfer", "ci_transfer", "mtil_transfer", "mtil_avg", "mtil_last",
    "flat_mean_transfer", "image_pooled_transfer",
)  # fmt: skip


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


def report(found: list[AccuracyMatrix], format: str = "plain") -> str:
    """All metrics of all matrices, and Transfer, Avg and Last of each task of a full matrix."""
    values = [one.metrics() for one in found]
    names = [name for name in DETERMINED if any(value[name] is not None for value in values)]
    missing = [name for name in DETERMINED if name not in names]
    shared = [note for note in found[0].notes if all(note in one.notes for one in found)]
    notes = shared + [f"{one.label}: {note}" for one in found for note in dict.fromkeys(one.notes) if note not in shared]
    notes.append("which classes competed is not in such a file: ci_transfer assumes all, mtil_* the task's own")
    if missing:
        notes.append(f"not determined by it: {', '.join(missing)}")
    single = len(found) == 1  # then there is room for what the metrics mean
    meanings = {name: [Cell(METRICS[name].meaning)] * single for name in names}
    sizes = sorted({f"{len(one.tasks)} task{'s' * (len(one.tasks) > 1)}" for one in found})
    table = Table(
        caption=f"Metrics of {found[0].label if single else f'{len(found)} matrices'}; {', '.join(sizes)}",
        reading="Percent.",
        header=["metric", *(["meaning", "value"] if single else [one.label for one in found])],
        rows=[[Cell(name), *meanings[name], *[Cell(_percent(value[name])) for value in values]] for name in names],
        notes=notes,
        data=[{"matrix": one.label, **value} for one, value in zip(found, values)],
        left=2 if single else 1,
    )
    full = [one for one in found if len(one.tasks) > 1 and not np.isnan(one.matrix).any()]
    return write([table, *map(_per_task, full)], format)


def _per_task(one: AccuracyMatrix) -> Table:
    columns = [accuracy.transfer_per_task(one.matrix), accuracy.avg_per_task(one.matrix), one.matrix[-1]]
    lines = [[None if np.isnan(value) else float(value) for value in line] for line in zip(*columns)]
    keys = ("mtil_transfer", "mtil_avg", "mtil_last")
    return Table(
        caption=f"{one.label}: each task",
        reading="Percent.",
        header=["task", *(METRICS[key].title for key in keys)],
        rows=[[Cell(task), *[Cell(_percent(value)) for value in line]] for task, line in zip(one.tasks, lines)],
        data=[{"matrix": one.label, "task": task, **dict(zip(keys, line))} for task, line in zip(one.tasks, lines)],
    )


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{round(100 * fraction, 2) + 0.0:.2f}"
