"""Logs of PyCIL and its family (PILOT, PROOF, RevisitingCIL ...) as accuracy matrices.

Such a log has one line a task,
    ... => CNN: {'total': 84.5, '00-09': 90.1, '10-19': 78.9, 'old': 90.1, 'new': 78.9}
and the same with NME: for nearest-mean classifiers. '00-09' are groups of classes; they are read as tasks, which they
are when the classes are grouped by the increment (if not, this is noticed and said). 'total' is over images. Beside it stands
`CNN top1 curve: [...]`, the accuracy over images after each task so far; what the lines do not say is taken from its last
occurrence. So the end of a log, which lacks the lines of the first tasks, still gives its last row and every moment, and a log
whose groups are no tasks still gives every moment.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.results.foreign.accuracy_matrix import AccuracyMatrix
from bench.results.foreign.literals import display, number
from bench.results.run_data import CLASS_INCREMENTAL

_LINE = re.compile(r"(?:\b(CNN|NME)\s*:\s*)?(\{'total'.*\})\s*$")
_CURVE = re.compile(r"\b(CNN|NME) top1 curve:\s*(\[.*\])\s*$")
_FAMILY = "read as a log of the PyCIL family"


def is_pycil(text: str) -> bool:
    return any(_LINE.search(line) or _CURVE.search(line) for line in text.split("\n"))


@dataclass
class _Moment:
    """What is logged after one task."""

    place: str
    groups: list[float]
    total: float
    first: bool  # nothing had been learned before: 'old' is 0 and all images are new
    last_is_new: bool  # the last group has the accuracy of the new classes, as a task has


@dataclass
class _Run:
    kind: str
    moments: list[_Moment] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)


def read_pycil(text: str, where: str) -> list[AccuracyMatrix]:
    """One matrix for each run in the log and each classifier (CNN, NME)."""
    runs: list[_Run] = []
    current: dict[str, _Run] = {}

    def begin(kind: str) -> _Run:
        runs.append(_Run(kind))
        current[kind] = runs[-1]
        return runs[-1]

    for line_number, line in enumerate(text.split("\n"), start=1):
        place = f"{where}, line {line_number}"
        curve = _CURVE.search(line)
        if curve:
            values = [number(value, place) for value in display(curve[2], list, place)]
            if not values:
                raise BenchError(f"{place}: the curve is empty")
            run = current.get(curve[1]) or begin(curve[1])
            if not run.moments and len(values) < len(run.curve):
                run = begin(curve[1])  # the next run of a log that has only curves
            run.curve = values
        match = _LINE.search(line)
        if match:
            moment = _moment(match[2], place)
            kind = match[1] or "CNN"
            known = current.get(kind)
            before = known.moments[-1] if known and known.moments else None
            if before and (moment.groups, moment.total) == (before.groups, before.total):
                continue  # the same line from a second log handler
            if known is None or (known.curve and not before) or (before and len(moment.groups) <= len(before.groups)):
                known = begin(kind)
            known.moments.append(moment)
    return [_matrix(run, run_number, where) for run_number, run in enumerate(runs, start=1)]


def _moment(text: str, place: str) -> _Moment:
    logged = display(text, dict, place)
    groups = [number(value, place) for key, value in logged.items() if re.fullmatch(r"\d+-\d+", str(key))]
    if not groups:
        raise BenchError(f"{place}: no groups of classes such as '00-09' in it")
    total, new = number(logged.get("total"), place), logged.get("new", groups[-1])
    return _Moment(place, groups, total, logged.get("old") == 0 and new == total, new == groups[-1])


def _matrix(run: _Run, run_number: int, where: str) -> AccuracyMatrix:
    wrong = _not_by_task(run)
    if wrong and not run.curve:
        raise BenchError(wrong)
    tasks = len(run.curve) if wrong or not run.moments else len(run.moments[-1].groups)
    matrix, moments, notes = np.full((tasks, tasks), np.nan), np.full(tasks, np.nan), [_FAMILY]
    if len(run.curve) == tasks:
        moments[:] = run.curve
    if not run.moments:
        notes = [f"{_FAMILY}; it has the accuracy after each task only, no matrix"]
    elif wrong:
        notes = [f"{_FAMILY}; it does not group the classes by task, so only the accuracy after each task is taken"]
    else:
        for moment in run.moments:
            matrix[len(moment.groups) - 1, : len(moment.groups)] = moment.groups
            moments[len(moment.groups) - 1] = moment.total
        absent = sorted(set(range(1, tasks + 1)) - {len(moment.groups) for moment in run.moments})
        if absent:
            notes.append(f"the log has no lines of {_tasks(absent)}; the groups of classes are taken as tasks")
    label = f"{Path(where).stem}, {run.kind}" + (f", run {run_number}" if run.moments else "")
    names = [f"task {k + 1}" for k in range(tasks)]
    return AccuracyMatrix(label, names, matrix / 100, moments=moments / 100, notes=notes, scenario=CLASS_INCREMENTAL)


def _tasks(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"task {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"tasks {numbers[0]} to {numbers[-1]}"
    return f"tasks {', '.join(map(str, numbers))}"


def _not_by_task(run: _Run) -> str:
    """Why the groups of classes cannot be the tasks; "" if they can.

    A task adds one group, and the curve has a value a task. Without a curve, lines may lack in front only, and a line that
    says that nothing is old must have one group.
    """
    expected = len(run.moments[0].groups) if run.moments else 0
    for moment in run.moments:
        groups = len(moment.groups)
        follows = groups == expected or bool(run.curve)
        if not follows or not moment.last_is_new or (moment.first and groups > 1):
            task = 1 if moment.first else expected
            return (
                f"{moment.place}: {groups} groups of classes after task {task}; the log does not group the classes by task, so it"
                " holds no accuracy matrix"
            )
        expected = groups + 1
    if run.moments and run.curve:
        final = run.moments[-1]
        totals = all(_close(run.curve[len(m.groups) - 1], m.total) for m in run.moments if len(m.groups) <= len(run.curve))
        if len(run.curve) != len(final.groups) or not totals:
            return (
                f"{final.place}: {len(final.groups)} groups of classes, but {len(run.curve)} values in the curve; the log does"
                " not group the classes by task, so it holds no accuracy matrix"
            )
    return ""


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 0.011  # both printed with two digits
