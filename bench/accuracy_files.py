"""Accuracy matrices that others have made, read from a file.

Read are CSV files, wide or tidy, and what other toolkits leave behind (bench.importers). Wide: a square of accuracies,
rows = after learning a task, columns = evaluated task, with or without a header and an index; cells that were not
measured are empty. Tidy: one row a cell, with columns such as after_task, eval_dataset and accuracy; columns beside
these (method, order, seed ...) tell several matrices in one file apart.
"""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import importers
from bench.accuracy_matrix import AccuracyMatrix
from bench.errors import BenchError
from bench.published import mtil_orders

AFTER = ("after_task", "after", "trained_task", "train_task", "learned_task", "step", "session")
EVALUATED = ("eval_dataset", "eval_task", "eval_name", "evaluated_task", "eval", "dataset", "task")
VALUE = ("accuracy", "acc", "value", "top1", "top-1")
IMAGES = ("n", "n_test", "images")
MISSING = ("", "-", "--", "nan", "none", "null", "n/a", "na")
BEFORE = ("zero-shot", "zeroshot", "zero_shot", "initial", "untrained", "before")  # names of a row before any task
RECORDS = {"run_id", "candidates", "metric", "eval_task"}  # columns of a file that bench run has written


def read(path: Path, order: Sequence[str] | None = None, unit: str | None = None) -> list[AccuracyMatrix]:
    """The matrices in a file. order: names of the tasks as they were learned, where the file does not say;
    unit: "percent" or "fraction" (default: percent if a value is above 1)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    for recognises, importer in importers.IMPORTERS:
        if recognises(text):
            return importer(text, str(path))
    return read_csv(text, str(path), order, unit)


def read_csv(text: str, where: str, order: Sequence[str] | None = None, unit: str | None = None) -> list[AccuracyMatrix]:
    """The matrices in the text of a CSV file; `where` names it in error messages."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), _delimiter(text))]
    except csv.Error as error:
        raise BenchError(f"{where}: not a CSV file that can be parsed ({error})") from error
    rows = [row for row in rows if any(row) and not row[0].startswith("#")]
    if not rows:
        raise BenchError(f"{where}: is empty; a matrix of accuracies is expected")
    head = [cell.lower() for cell in rows[0]]
    if RECORDS <= set(head):
        raise BenchError(f"{where}: was written by bench run; use bench table {where}")
    if _column(head, AFTER) is not None and _column(head, EVALUATED) is not None and _column(head, VALUE) is not None:
        found = _tidy(head, rows[1:], where, order)
    else:
        found = [_wide(rows, where, order)]
    return [_checked(one, where, unit) for one in found]


# -- wide -------------------------------------------------------------------------------------------------------


def _wide(rows: list[list[str]], where: str, order: Sequence[str] | None) -> AccuracyMatrix:
    """A square with or without a header row and an index column; short rows are filled up (lower triangles).

    The learning order is `order` if given, else that of the rows.
    """
    width = max(map(len, rows))
    rows = [row + [""] * (width - len(row)) for row in rows]
    header, index = _labelled(rows)
    body = rows[1:] if header else rows
    names = [row[0] for row in body] if index else []
    cells = [row[1:] if index else row for row in body]
    tasks = rows[0][1:] if header and index else rows[0] if header else names
    baseline = None
    if names and names[0].lower() in BEFORE:
        baseline, names, cells = _numbers([cells[0]], where)[0], names[1:], cells[1:]
    if not any(cells):
        raise BenchError(f"{where}: has a header but no accuracies")
    matrix = _numbers(cells, where)
    if matrix.shape[0] != matrix.shape[1]:
        raise BenchError(
            f"{where}: {matrix.shape[0]} rows and {matrix.shape[1]} columns of accuracies; a square is expected, rows = after"
            " learning a task, columns = evaluated task (or tidy columns after_task, eval_dataset, accuracy)"
        )
    notes = []
    if not tasks or _counts(tasks):
        tasks = [f"task {k + 1}" for k in range(len(matrix))]
    learned = names if names and set(names) == set(tasks) else tasks
    if len(set(tasks)) < len(tasks):
        raise BenchError(f"{where}: two columns have the same name")
    if order is not None and set(order) != set(tasks):
        raise BenchError(f"{where}: the tasks in it are {', '.join(tasks)}, the order names {', '.join(order)}")
    order = list(order or learned)
    if order != list(tasks) or order != list(learned):
        matrix = matrix[np.ix_([learned.index(name) for name in order], [tasks.index(name) for name in order])]
        baseline = None if baseline is None else baseline[[tasks.index(name) for name in order]]
        notes.append(f"tasks put into learning order: {', '.join(order)}")
    return AccuracyMatrix(Path(where).stem, order, matrix, baseline=baseline, notes=notes)


def _labelled(rows: list[list[str]]) -> tuple[bool, bool]:
    """Is the first row a header, is the first column an index? Labels are names, or count where a square needs them."""
    height, width = len(rows), len(rows[0])
    unnumbered = not _is_number(rows[0][0])
    corner = unnumbered and height == width > 1  # both labels, around a square
    header = unnumbered and _are_names(rows[0][1:])
    header = header or (corner and _counts(rows[0][1:])) or (height == width + 1 and _counts(rows[0]))
    first = [row[0] for row in rows[header:]]
    index = _are_names(first) or (header and corner and _counts(first)) or (width == len(first) + 1 and _counts(first))
    return header, index


def _delimiter(text: str) -> type[csv.Dialect]:
    best = max(",;\t", key=text.count)

    class Dialect(csv.excel):
        delimiter = best if best in text else " "
        skipinitialspace = True

    return Dialect


def _is_number(cell: str) -> bool:
    try:
        float(cell.removesuffix("%"))
    except ValueError:
        return False
    return True


def _are_names(cells: Sequence[str]) -> bool:
    return bool(cells) and all(not _is_number(cell) and cell.lower() not in MISSING for cell in cells)


def _counts(cells: Sequence[str]) -> bool:
    """Do the cells just count, from 0 or from 1?"""
    return list(cells) in ([str(k) for k in range(len(cells))], [str(k + 1) for k in range(len(cells))])


def _numbers(cells: Sequence[Sequence[str]], where: str) -> np.ndarray:
    def number(cell: str) -> float:
        if cell.lower() in MISSING:
            return np.nan
        if not _is_number(cell):
            raise BenchError(f"{where}: {cell!r} is not an accuracy")
        return float(cell.removesuffix("%"))

    return np.array([[number(cell) for cell in row] for row in cells], dtype=float)


# -- tidy -------------------------------------------------------------------------------------------------------


def _column(head: list[str], names: Sequence[str]) -> int | None:
    return next((head.index(name) for name in names if name in head), None)


def _tidy(head: list[str], rows: list[list[str]], where: str, order: Sequence[str] | None) -> list[AccuracyMatrix]:
    after, evaluated, value, images = (_column(head, names) for names in (AFTER, EVALUATED, VALUE, IMAGES))
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise BenchError(f"{where}: row {number} has {len(row)} cells, the header {len(head)}")
    if not rows:
        raise BenchError(f"{where}: has a header but no rows")
    beside = [i for i in range(len(head)) if i not in (after, evaluated, value, images)]
    telling = [i for i in beside if 1 < len({row[i] for row in rows}) and not _follows(rows, i, after, evaluated)]
    groups: dict[tuple, list[list[str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[i] for i in telling), []).append(row)
    known = _column(head, ("order",))
    found = []
    for key, own in groups.items():
        label = ", ".join(f"{head[i]} {part}" if part.isdigit() or head[i] == "order" else part for i, part in zip(telling, key))
        cells = [(row[after], row[evaluated], row[value], row[images] if images is not None else "") for row in own]
        named = order or _named_order({row[evaluated] for row in own}, own[0][known] if known is not None else "")
        found.append(_assemble(label or Path(where).stem, cells, named, where))
    return found


def _follows(rows: list[list[str]], column: int, after: int, evaluated: int) -> bool:
    """Is the column only another name of the task (its index, say), so that it tells no matrices apart?"""
    return any(len({(row[key], row[column]) for row in rows}) == len({row[key] for row in rows}) for key in (after, evaluated))


def _named_order(tasks: set[str], order: str) -> list[str] | None:
    """The learning order that an `order` column names, for the data sets of MTIL."""
    orders = mtil_orders()
    name = order.lower().removeprefix("order").strip(" -_").upper()
    name = {"1": "I", "2": "II"}.get(name, name)
    return orders[name] if name in orders and set(orders[name]) == tasks else None


def _assemble(label: str, cells: list[tuple[str, str, str, str]], order: Sequence[str] | None, where: str) -> AccuracyMatrix:
    """Cells (after, evaluated, accuracy, images) -> a matrix in learning order."""
    notes = []
    before = {after for after, *_ in cells if after.lower() in BEFORE or after == "-1"}
    learned = list(dict.fromkeys(after for after, *_ in cells if after not in before))
    scored = list(dict.fromkeys(evaluated for _, evaluated, *_ in cells))
    if order is None:
        order, how = _guess_order(cells, learned, scored, where)
        notes += [how] * bool(how)
    if set(order) != set(scored):
        raise BenchError(f"{where}: {label}: the tasks in it are {', '.join(scored)}, the order names {', '.join(order)}")
    place = {name: k for k, name in enumerate(order)}
    rows = place if set(learned) <= set(place) else _numbered(learned, len(order))
    if rows is None:
        raise BenchError(f"{where}: {label}: learned tasks {', '.join(learned)} are not among the evaluated {', '.join(scored)}")
    matrix = np.full((len(order), len(order)), np.nan)
    baseline, images = np.full(len(order), np.nan), np.full(len(order), np.nan)
    filled = set()
    for after, evaluated, value, n in cells:
        if (after, evaluated) in filled:
            raise BenchError(f"{where}: {label}: the cell after {after} on {evaluated} appears twice")
        filled.add((after, evaluated))
        number = _numbers([[value]], where)[0, 0]
        if after in before:
            baseline[place[evaluated]] = number
        else:
            matrix[rows[after], place[evaluated]] = number
        images[place[evaluated]] = float(n) if _is_number(n) else np.nan
    names = [f"task {k + 1}" for k in range(len(order))] if _all_digits(order) else list(order)
    return AccuracyMatrix(
        label,
        names,
        matrix,
        images=None if np.isnan(images).any() else images,
        baseline=baseline if before else None,
        notes=notes,
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


def _guess_order(cells, learned: list[str], scored: list[str], where: str) -> tuple[list[str], str]:
    """(tasks in learning order, a note on how it was found)."""
    if _all_digits(scored):
        return sorted(scored, key=int), ""
    seen_by = {name: sum(evaluated == name for _, evaluated, *_ in cells) for name in scored}
    if sorted(seen_by.values(), reverse=True) == list(range(len(scored), 0, -1)):
        return sorted(scored, key=lambda name: -seen_by[name]), ""  # only learned tasks are scored: the first one most often
    if set(learned) == set(scored):
        return learned, f"learning order taken from the rows: {', '.join(learned)}"
    if _all_digits(learned):
        return scored, f"learning order taken from the rows: {', '.join(scored)}"
    raise BenchError(f"{where}: the learning order cannot be told, after_task does not name every task; give the order")


# -- checks -----------------------------------------------------------------------------------------------------


def _checked(one: AccuracyMatrix, where: str, unit: str | None) -> AccuracyMatrix:
    """Percent or fraction, padding, orientation; what was decided goes into the notes."""
    matrix, notes = one.matrix, list(one.notes)
    known = np.concatenate([matrix.ravel(), [] if one.baseline is None else one.baseline])
    known = known[~np.isnan(known)]
    if not known.size:
        raise BenchError(f"{where}: {one.label}: no accuracy in it")
    if not (known.min() >= 0 and known.max() <= 100):
        raise BenchError(f"{where}: {one.label}: {known.min() if known.min() < 0 else known.max():g} is not an accuracy")
    unit = unit or ("percent" if known.max() > 1 else "fraction")
    if unit == "fraction" and known.max() > 1:
        raise BenchError(f"{where}: {one.label}: {known.max():g} is not a fraction")
    notes.append(f"values read as {'percent' if unit == 'percent' else 'fractions'}")
    scale = 100 if unit == "percent" else 1
    tasks = len(matrix)
    upper, lower = np.triu_indices(tasks, 1), np.tril_indices(tasks, -1)
    absent = [bool(tasks > 1 and (np.nan_to_num(matrix[cells]) == 0).all()) for cells in (upper, lower)]
    if absent == [False, True]:
        raise BenchError(
            f"{where}: {one.label}: nothing below the diagonal but something above it; rows must be after learning a task,"
            " columns the evaluated task: transpose it"
        )
    if absent[0] and not np.isnan(matrix[upper]).all() and not absent[1]:
        matrix = matrix.copy()
        matrix[upper] = np.nan
        notes.append("the zeros above the diagonal are taken as not measured")
    return replace(one, matrix=matrix / scale, baseline=None if one.baseline is None else one.baseline / scale, notes=notes)
