"""Accuracy matrices on the page: a table whose cells are coloured, or a picture where a stream has many tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.reports.formats import percent

STEPS = 10  # colours from low to high accuracy; page.css has them
NUMBERED = 12  # a matrix of more tasks is drawn without numbers


@dataclass(frozen=True)
class HeatCell:
    text: str
    step: int  # -1: not measured
    future: bool  # the task is still to come


@dataclass(frozen=True)
class Heat:
    """One method's matrix: a row after each task, a column per evaluated task; rows that were not measured are left out."""

    label: str
    note: str
    tasks: list[str]
    rows: list[tuple[str, list[HeatCell]]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)  # of a large matrix: its cells of every colour
    stairs: str = ""  # of a large matrix: the line between learned tasks and those still to come
    size: tuple[int, int] = (0, 0)  # of a large matrix: columns, rows


def heat(label: str, note: str, matrix: np.ndarray, tasks: Sequence[str], low: float) -> Heat:
    """low: where the colours begin."""
    after = [t for t in range(len(matrix)) if not np.isnan(matrix[t]).all()]
    if len(tasks) > NUMBERED:
        return _large(label, note, matrix[after], after, tasks, low)
    rows = []
    for t in after:
        cells = [HeatCell(percent(value, 0), step_of(value, low), k > t) for k, value in enumerate(matrix[t])]
        rows.append((f"after {tasks[t]}", cells))
    return Heat(label, note, list(tasks), rows)


def _large(label: str, note: str, matrix: np.ndarray, after: Sequence[int], tasks: Sequence[str], low: float) -> Heat:
    paths = [""] * STEPS
    stairs = ""
    for row, t in enumerate(after):
        for column, value in enumerate(matrix[row]):
            if (step := step_of(value, low)) >= 0:
                paths[step] += f"M{column} {row}h1v1h-1z"
        if t + 1 < len(tasks):
            stairs += f"M{t + 1} {row}v1" + ("h1" if row + 1 < len(after) else "")
    return Heat(label, note, list(tasks), [], paths, stairs, (len(tasks), len(after)))


def step_of(value: float, low: float) -> int:
    """The colour of an accuracy; -1 where there is none.

    >>> step_of(0.3, 0.3), step_of(0.65, 0.3), step_of(1.0, 0.3), step_of(float("nan"), 0.3)
    (0, 5, 9, -1)
    """
    return -1 if np.isnan(value) else int(np.clip(STEPS * (value - low) / (1 - low) + 1e-9, 0, STEPS - 1))
