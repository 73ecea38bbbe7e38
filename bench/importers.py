"""What other toolkits leave behind, as accuracy matrices. Text is parsed, never executed.

mammoth (`data/results/<setting>/<dataset>/<model>/logs.pyd`): one Python dictionary a line and run, with the arguments
and, in percent, 'accuracy_J_taskI' = accuracy on task J after task I (both from 1). Domain-incremental runs log means
only and cannot be imported.

PyCIL and its family (PILOT, PROOF, RevisitingCIL ...): a log with one line a task,
    ... => CNN: {'total': 84.5, '00-09': 90.1, '10-19': 78.9, 'old': 90.1, 'new': 78.9}
and the same with NME: for nearest-mean classifiers. '00-09' are groups of classes; they are read as tasks, which they
are when the classes are grouped by the increment (if not, this is noticed and said). 'total' is over images. Where a log
has only `CNN top1 curve: [...]`, the accuracy over images after each task is read from its last occurrence.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy_matrix import AccuracyMatrix
from bench.errors import BenchError

_MAMMOTH_CELL = re.compile(r"accuracy_(\d+)_task(\d+)$")
_PYCIL_LINE = re.compile(r"(?:\b(CNN|NME)\s*:\s*)?(\{'total'.*\})\s*$")
_PYCIL_CURVE = re.compile(r"\b(CNN|NME) top1 curve:\s*(\[.*\])\s*$")
MOST_TASKS = 10_000
_NUMPY_SCALAR = re.compile(r"np\.float\d+\(([^()]*)\)")


def is_mammoth(text: str) -> bool:
    return text.lstrip().startswith("{")


def read_mammoth(text: str, where: str) -> list[AccuracyMatrix]:
    """One matrix for each line."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            found.append(_mammoth_run(_literals(line, f"{where}, line {number}"), f"{where}, line {number}", number))
    return found


def _literals(line: str, where: str) -> dict[str, Any]:
    """A dictionary display as data. Values that are not plain literals (a torch.device, nan) are left out."""
    try:
        display = ast.parse(_NUMPY_SCALAR.sub(r"\1", line.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BenchError(f"{where}: not a Python literal; mammoth writes one dictionary a line") from None
    if not isinstance(display, ast.Dict):
        raise BenchError(f"{where}: not a dictionary; mammoth writes one dictionary a line")
    pairs = {}
    for key, value in zip(display.keys, display.values):
        try:
            pairs[ast.literal_eval(key)] = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            continue  # an argument that only its program understands
    return pairs


def _mammoth_run(logged: dict[str, Any], where: str, number: int) -> AccuracyMatrix:
    cells = {}
    for key, value in logged.items():
        match = _MAMMOTH_CELL.match(str(key))
        if match and isinstance(value, int | float):
            evaluated, after = (int(number) if len(number) < 6 else 0 for number in match.groups())
            if not (1 <= evaluated <= MOST_TASKS and 1 <= after <= MOST_TASKS):
                raise BenchError(f"{where}: {key}: tasks are counted from 1 to at most {MOST_TASKS}")
            cells[after - 1, evaluated - 1] = _number(value, where)
    if not cells:
        raise BenchError(f"{where}: no accuracy_J_taskI in it (mammoth logs only means for domain-incremental runs)")
    tasks = 1 + max(max(cell) for cell in cells)
    matrix = np.full((tasks, tasks), np.nan)
    for cell, value in cells.items():
        matrix[cell] = value / 100
    seed = f", seed {logged['seed']}" if logged.get("seed") is not None else ""
    label = f"{logged.get('model', 'run')} on {logged.get('dataset', 'an unnamed data set')}{seed} (line {number})"
    return AccuracyMatrix(label, [f"task {k + 1}" for k in range(tasks)], matrix, notes=["read as a results file of mammoth"])


def is_pycil(text: str) -> bool:
    return any(_PYCIL_LINE.search(line) or _PYCIL_CURVE.search(line) for line in text.splitlines())


@dataclass
class _Run:
    kind: str
    rows: list[list[float]] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)


def read_pycil(text: str, where: str) -> list[AccuracyMatrix]:
    """One matrix for each run in the log and each classifier (CNN, NME)."""
    runs: list[_Run] = []
    current: dict[str, _Run] = {}
    curves: dict[str, list[float]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        curve = _PYCIL_CURVE.search(line)
        if curve:
            place = f"{where}, line {number}"
            curves[curve[1]] = [_number(value, place) for value in _numbers_of(curve[2], list, place)]
        match = _PYCIL_LINE.search(line)
        if not match:
            continue
        place = f"{where}, line {number}"
        logged = _numbers_of(match[2], dict, place)
        row = [_number(value, place) for key, value in logged.items() if re.fullmatch(r"\d+-\d+", str(key))]
        kind = match[1] or "CNN"
        if kind not in current or (len(row) == 1 and len(current[kind].rows) > 1):
            runs.append(_Run(kind))
            current[kind] = runs[-1]
        run = current[kind]
        if run.rows and row == run.rows[-1]:
            continue  # the same line from a second log handler
        if len(row) != len(run.rows) + 1:
            raise BenchError(
                f"{where}, line {number}: {len(row)} groups of classes after task {len(run.rows) + 1}; the log does not group"
                " the classes by task, so it holds no accuracy matrix"
            )
        run.rows.append(row)
        run.totals.append(_number(logged.get("total"), place))
    if not runs:
        return [_curve_only(kind, values, where) for kind, values in curves.items()]
    return [_pycil_run(run, number, where) for number, run in enumerate(runs, start=1)]


def _numbers_of(text: str, kind: type, where: str) -> Any:
    """A list or dictionary display as data."""
    try:
        found = ast.literal_eval(_NUMPY_SCALAR.sub(r"\1", text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, kind):
        raise BenchError(f"{where}: accuracies that cannot be read: {text[:60]}")
    return found


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise BenchError(f"{where}: {str(value)[:60]!r} where a number is expected") from None


def _pycil_run(run: _Run, number: int, where: str) -> AccuracyMatrix:
    tasks = len(run.rows)
    matrix = np.full((tasks, tasks), np.nan)
    for t, row in enumerate(run.rows):
        matrix[t, : t + 1] = np.array(row) / 100
    label = f"{Path(where).stem}, {run.kind}, run {number}"
    names = [f"task {k + 1}" for k in range(tasks)]
    return AccuracyMatrix(label, names, matrix, moments=np.array(run.totals) / 100, notes=["read as a log of the PyCIL family"])


def _curve_only(kind: str, curve: list[float], where: str) -> AccuracyMatrix:
    tasks = len(curve)
    return AccuracyMatrix(
        f"{Path(where).stem}, {kind}",
        [f"task {k + 1}" for k in range(tasks)],
        np.full((tasks, tasks), np.nan),
        moments=np.array(curve, dtype=float) / 100,
        notes=["read as a log of the PyCIL family; it has the accuracy after each task only, no matrix"],
    )


IMPORTERS: list[tuple[Callable[[str], bool], Callable[[str, str], list[AccuracyMatrix]]]] = [
    (is_mammoth, read_mammoth),
    (is_pycil, read_pycil),
]
