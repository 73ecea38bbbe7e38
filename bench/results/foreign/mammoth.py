"""Results files of mammoth as accuracy matrices.

`data/results/<setting>/<dataset>/<model>/logs.pyd` holds one Python dictionary a line and run, with the arguments and, in
percent, 'accuracy_J_taskI' = accuracy on task J after task I (both from 1). Domain-incremental runs log means only and cannot
be imported.
"""

import ast
import re
from pathlib import PurePath
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.results.foreign.accuracy_matrix import AccuracyMatrix
from bench.results.foreign.literals import NUMPY_SCALAR, number
from bench.results.run_data import CLASS_INCREMENTAL, TASK_INCREMENTAL

_KEYS = re.compile(r"""["'](?:accuracy_\d+_task\d+|accmean_task\d+)["']\s*:""")
_CELL = re.compile(r"accuracy_(\d+)_task(\d+)$")
_SETTINGS = {"class-il": CLASS_INCREMENTAL, "task-il": TASK_INCREMENTAL}  # folders of its results
MOST_TASKS = 10_000


def is_mammoth(text: str) -> bool:
    """Does the text begin as a dictionary, and have the keys of mammoth's accuracies?"""
    return text.lstrip().startswith("{") and bool(_KEYS.search(text))


def read_mammoth(text: str, where: str) -> list[AccuracyMatrix]:
    """One matrix for each line."""
    found = []
    for line_number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{where}, line {line_number}"
            setting = next((_SETTINGS[part] for part in PurePath(where).parts if part in _SETTINGS), "")
            found.append(_run(_literals(line, place), place, line_number, setting))
    return found


def _literals(line: str, where: str) -> dict[str, Any]:
    """A dictionary display as data. Values that are not plain literals (a torch.device, nan) are left out."""
    try:
        parsed = ast.parse(NUMPY_SCALAR.sub(r"\1", line.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BenchError(f"{where}: not a Python literal; mammoth writes one dictionary a line") from None
    if not isinstance(parsed, ast.Dict):
        raise BenchError(f"{where}: not a dictionary; mammoth writes one dictionary a line")
    pairs = {}
    for key, value in zip(parsed.keys, parsed.values):
        try:
            pairs[ast.literal_eval(key)] = ast.literal_eval(value)  # type: ignore[arg-type]  # no key: refused as any other
        except (ValueError, TypeError, RecursionError, MemoryError):
            continue  # an argument that only its program understands
    return pairs


def _run(logged: dict[str, Any], where: str, line_number: int, setting: str) -> AccuracyMatrix:
    cells = {}
    for key, value in logged.items():
        match = _CELL.match(str(key))
        if match and isinstance(value, int | float):
            evaluated, after = (int(digits) if len(digits) < 6 else 0 for digits in match.groups())
            if not (1 <= evaluated <= MOST_TASKS and 1 <= after <= MOST_TASKS):
                raise BenchError(f"{where}: {key}: tasks are counted from 1 to at most {MOST_TASKS}")
            cells[after - 1, evaluated - 1] = number(value, where)
    if not cells:
        raise BenchError(f"{where}: no accuracy_J_taskI in it (mammoth logs only means for domain-incremental runs)")
    tasks = 1 + max(max(cell) for cell in cells)
    matrix = np.full((tasks, tasks), np.nan)
    for cell, value in cells.items():
        matrix[cell] = value / 100
    seed = f", seed {logged['seed']}" if logged.get("seed") is not None else ""
    label = f"{logged.get('model', 'run')} on {logged.get('dataset', 'an unnamed data set')}{seed} (line {line_number})"
    names = [f"task {k + 1}" for k in range(tasks)]
    return AccuracyMatrix(label, names, matrix, notes=["read as a results file of mammoth"], scenario=setting)
