"""A tidy file as accuracy matrices: one row a cell, with columns such as after_task, eval_dataset and accuracy.

Columns beside these (method, order, seed ...) tell several matrices in one file apart; columns that were measured as the accuracy
was (losses, times) do not. Rows of averages over tasks are no cells and are left out with a note.
"""

import re
from collections.abc import Sequence

import numpy as np

from bench.errors import BenchError
from bench.results.foreign.accuracy_matrix import AccuracyMatrix
from bench.results.foreign.summaries import is_summary
from bench.results.foreign.wide_matrix import BEFORE, by_number, numbers
from bench.results.foreign.written_numbers import is_number
from bench.results.published import mtil_orders

AFTER = ("after_task", "after", "trained_task", "train_task", "trained_on", "learned_task", "step", "session")
EVALUATED = ("eval_dataset", "eval_task", "eval_name", "evaluated_task", "eval", "dataset", "task")
VALUE = ("accuracy", "acc", "value", "top1", "top-1")
IMAGES = ("n", "n_test", "images")
MEASURED = re.compile(r"loss|forget|std|error|time|second|top.?5", re.IGNORECASE)


def is_tidy(head: list[str]) -> bool:
    return all(_column(head, names) is not None for names in (AFTER, EVALUATED, VALUE))


def _column(head: list[str], names: Sequence[str]) -> int | None:
    return next((head.index(name) for name in names if name in head), None)


def read_tidy(head: list[str], rows: list[list[str]], stem: str, where: str, order: Sequence[str] | None) -> list[AccuracyMatrix]:
    """Every matrix in the rows."""
    after, evaluated, value = (_needed(head, names) for names in (AFTER, EVALUATED, VALUE))
    images = _column(head, IMAGES)
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise BenchError(f"{where}: row {number} has {len(row)} cells, the header {len(head)}")
    if not rows:
        raise BenchError(f"{where}: has a header but no rows")
    summaries = list(dict.fromkeys(row[i] for row in rows for i in (after, evaluated) if is_summary(row[i])))
    rows = [row for row in rows if row[after] not in summaries and row[evaluated] not in summaries]
    if not rows:
        raise BenchError(f"{where}: has rows of {', '.join(summaries)} only, no task")
    left_out = [f"left out, not a task: rows of {', '.join(summaries)}"] if summaries else []
    beside = [i for i in range(len(head)) if i not in (after, evaluated, value, images) and not MEASURED.search(head[i])]
    telling = [i for i in beside if 1 < len({row[i] for row in rows}) and not _follows(rows, i, after, evaluated)]
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[i] for i in telling), []).append(row)
    known = _column(head, ("order",))
    found = []
    for key, own in groups.items():
        label = ", ".join(f"{head[i]} {part}" if part.isdigit() or head[i] == "order" else part for i, part in zip(telling, key))
        cells = [(row[after], row[evaluated], row[value], row[images] if images is not None else "") for row in own]
        named = order or _named_order({row[evaluated] for row in own}, own[0][known] if known is not None else "")
        found.append(_assemble(label or stem, cells, named, where, left_out))
    return found


def _needed(head: list[str], names: Sequence[str]) -> int:
    """Where a column is that is_tidy has found."""
    return next(head.index(name) for name in names if name in head)


def _follows(rows: list[list[str]], column: int, after: int, evaluated: int) -> bool:
    """Is the column only another name of the task (its index, say), so that it tells no matrices apart?"""
    return any(len({(row[key], row[column]) for row in rows}) == len({row[key] for row in rows}) for key in (after, evaluated))


def _named_order(tasks: set[str], order: str) -> list[str] | None:
    """The learning order that an `order` column names, for the data sets of MTIL."""
    orders = mtil_orders()
    name = order.lower().removeprefix("order").strip(" -_").upper()
    name = {"1": "I", "2": "II"}.get(name, name)
    return orders[name] if name in orders and set(orders[name]) == tasks else None


def _assemble(
    label: str, cells: list[tuple[str, str, str, str]], order: Sequence[str] | None, where: str, left_out: list[str]
) -> AccuracyMatrix:
    """Cells (after, evaluated, accuracy, images) -> a matrix in learning order."""
    notes = list(left_out)
    before = {after for after, *_ in cells if after.lower() in BEFORE or after == "-1"}
    learned = list(dict.fromkeys(after for after, *_ in cells if after not in before))
    scored = list(dict.fromkeys(evaluated for _, evaluated, *_ in cells))
    if order is None:
        order, how = _guess_order(cells, learned, scored, where)
        if how:
            notes.append(how)
    if set(order) != set(scored):
        raise BenchError(f"{where}: {label}: the tasks in it are {', '.join(scored)}, the order names {', '.join(order)}")
    place = {name: k for k, name in enumerate(order)}
    rows = place if set(learned) <= set(place) else _numbered(learned, len(order))
    if rows is None:
        raise BenchError(f"{where}: {label}: learned tasks {', '.join(learned)} are not among the evaluated {', '.join(scored)}")
    matrix = np.full((len(order), len(order)), np.nan)
    baseline, images = np.full(len(order), np.nan), np.full(len(order), np.nan)
    filled = set()
    accuracies, unit = numbers([[value for _, _, value, _ in cells]], where)
    for (after, evaluated, _, n), accuracy in zip(cells, accuracies[0]):
        if (after, evaluated) in filled:
            raise BenchError(f"{where}: {label}: the cell after {after} on {evaluated} appears twice")
        filled.add((after, evaluated))
        if after in before:
            baseline[place[evaluated]] = accuracy
        else:
            matrix[rows[after], place[evaluated]] = accuracy
        images[place[evaluated]] = float(n) if is_number(n) else np.nan
    names = [f"task {k + 1}" for k in range(len(order))] if _all_digits(order) else list(order)
    return AccuracyMatrix(
        label,
        names,
        matrix,
        images=None if np.isnan(images).any() else images,
        baseline=baseline if before else None,
        notes=notes,
        unit=unit,
    )


def _numbered(learned: Sequence[str], tasks: int) -> dict[str, int] | None:
    """Places of learned tasks that are numbers, from 0 or from 1, while the evaluated ones have names."""
    if not _all_digits(learned) or max(map(int, learned)) > tasks:
        return None
    first = 1 if max(map(int, learned)) == tasks else 0
    if min(map(int, learned)) < first:
        return None
    return {name: int(name) - first for name in learned}


def _all_digits(names: Sequence[str]) -> bool:
    return all(name.isdecimal() and len(name) < 10 for name in names)


def _guess_order(
    cells: Sequence[tuple[str, str, str, str]], learned: list[str], scored: list[str], where: str
) -> tuple[list[str], str]:
    """(tasks in learning order, a note on how it was found)."""
    if _all_digits(scored):
        return sorted(scored, key=int), ""
    seen_by = {name: sum(evaluated == name for _, evaluated, *_ in cells) for name in scored}
    if sorted(seen_by.values(), reverse=True) == list(range(len(scored), 0, -1)):
        return sorted(scored, key=lambda name: -seen_by[name]), ""  # only learned tasks are scored: the first one most often
    if set(learned) == set(scored) and (ordered := by_number(learned)):
        return ordered, "the names of tasks stand in alphabetical order; their numbers are taken as the learning order"
    if set(learned) == set(scored):
        return learned, f"learning order taken from the rows: {', '.join(learned)}"
    if _all_digits(learned):
        return scored, f"learning order taken from the rows: {', '.join(scored)}"
    raise BenchError(f"{where}: the learning order cannot be told, after_task does not name every task; give the order")
