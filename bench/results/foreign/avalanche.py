"""What the CSV logger of Avalanche writes, as accuracy matrices.

eval_results.csv has a row for each experience that was evaluated: eval_exp and training_exp (the one that was learned last),
both counted from 0, eval_accuracy as a fraction, and losses. training_exp is empty or None before the first one.
"""

import numpy as np

from bench.errors import BenchError
from bench.results.foreign.accuracy_matrix import AccuracyMatrix
from bench.results.foreign.written_numbers import number

COLUMNS = ("eval_exp", "training_exp", "eval_accuracy")
TRAINING = {"training_exp", "epoch", "training_accuracy"}
MOST_TASKS = 1000


def is_avalanche(head: list[str]) -> bool:
    return set(COLUMNS) <= set(head) or set(head) >= TRAINING


def read_avalanche(head: list[str], rows: list[list[str]], label: str, where: str) -> list[AccuracyMatrix]:
    """One matrix for each run; a logger that is given the same folder again appends."""
    if not set(COLUMNS) <= set(head):
        raise BenchError(
            f"{where}: is the training log of Avalanche's CSV logger, which holds no accuracies of single experiences; give"
            " eval_results.csv, which lies beside it"
        )
    places = [head.index(name) for name in COLUMNS]
    runs: list[dict[tuple[int, int], float]] = []
    newest = 0
    for line, row in enumerate(rows, start=2):
        if [row[place].lower() for place in places] == list(COLUMNS):
            newest = MOST_TASKS  # the header again: a run was appended
            continue
        evaluated, after, value = _cell([row[place] for place in places], f"{where}, row {line}")
        if not runs or after < newest:
            runs.append({})
        newest = after
        known = runs[-1].get((after, evaluated))
        if known is not None and known != value:
            raise BenchError(f"{where}: the cell after experience {after} on {evaluated} appears twice")
        runs[-1][after, evaluated] = value
    if not runs:
        raise BenchError(f"{where}: has a header but no rows")
    several = len(runs) > 1
    return [_matrix(cells, f"{label}, run {k}" if several else label) for k, cells in enumerate(runs, start=1)]


def _cell(cells: list[str], where: str) -> tuple[int, int, float]:
    evaluated, after = number(cells[0]), -1.0 if cells[1].lower() in ("", "none") else number(cells[1])
    value = number(cells[2])
    if value is None:
        raise BenchError(f"{where}: {cells[2]!r} is not an accuracy")
    for found, cell, least in ((evaluated, cells[0], 0), (after, cells[1], -1)):
        if found is None or not found.is_integer() or not least <= found < MOST_TASKS:
            raise BenchError(f"{where}: {cell!r} is not the number of an experience")
    return int(evaluated), int(after), value  # type: ignore[arg-type]


def _matrix(cells: dict[tuple[int, int], float], label: str) -> AccuracyMatrix:
    tasks = 1 + max(max(cell) for cell in cells)
    matrix, baseline = np.full((tasks, tasks), np.nan), np.full(tasks, np.nan)
    for (after, evaluated), value in cells.items():
        if after < 0:
            baseline[evaluated] = value
        else:
            matrix[after, evaluated] = value
    names = [f"experience {k}" for k in range(tasks)]
    before = None if np.isnan(baseline).all() else baseline
    return AccuracyMatrix(label, names, matrix, baseline=before, notes=["read as eval_results.csv of Avalanche's CSV logger"])
