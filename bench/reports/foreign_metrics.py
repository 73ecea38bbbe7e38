"""Every metric that accuracy matrices of other programs determine, as tables: what `bench metrics` prints."""

import numpy as np

from bench.reports.formats import Table, TableCell, counted, points, write
from bench.results import accuracy
from bench.results.foreign.accuracy_matrix import DETERMINED, AccuracyMatrix
from bench.results.metrics import METRICS


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
    meanings = {name: [TableCell(METRICS[name].meaning)] if single else [] for name in names}
    sizes = sorted({counted(len(one.tasks), "task") for one in found})
    table = Table(
        caption=f"Metrics of {found[0].label if single else f'{len(found)} matrices'}; {', '.join(sizes)}",
        reading="Percent.",
        header=["metric", *(["meaning", "value"] if single else [one.label for one in found])],
        rows=[[TableCell(name), *meanings[name], *[TableCell(points(value[name])) for value in values]] for name in names],
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
        rows=[[TableCell(task), *[TableCell(points(value)) for value in line]] for task, line in zip(one.tasks, lines)],
        data=[{"matrix": one.label, "task": task, **dict(zip(keys, line))} for task, line in zip(one.tasks, lines)],
    )
