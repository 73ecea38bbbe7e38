"""A square of accuracies: rows = after learning a task, columns = evaluated task, with or without a header and an index.

Short rows are lower triangles. Averages beside the square are left out with a note (bench.results.foreign.summaries).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.errors import BenchError
from bench.results.foreign.accuracy_matrix import AccuracyMatrix
from bench.results.foreign.summaries import left_out, mean_column
from bench.results.foreign.written_numbers import is_missing, is_number, number, percent_sign

BEFORE = ("zero-shot", "zeroshot", "zero_shot", "zero shot", "initial", "untrained", "before")  # names of a row before any task
ONE_A_ROW = ("method", "methods", "model", "approach", "algorithm", "metric")  # such a table has no row after each task


def read_wide(rows: list[list[str]], label: str, where: str, order: Sequence[str] | None, bare: bool = False) -> AccuracyMatrix:
    """The matrix in rows of cells. The learning order is `order` if given, else that of the rows. bare: without any labels."""
    if not bare and rows[0][0].lower() in ONE_A_ROW:
        raise BenchError(
            f"{where}: is a table with one {rows[0][0]} a row, no accuracy matrix; expected are rows = after learning a task,"
            " columns = evaluated task"
        )
    rows, notes = left_out(rows) if not bare else (rows, [])
    if not rows or not any(map(any, rows)):
        raise BenchError(f"{where}: holds averages only, no accuracy matrix")
    header, index = _labelled(rows) if not bare else (False, False)
    body = rows[1:] if header else rows
    names = [row[0] for row in body] if index else []
    cells = [row[1:] if index else row for row in body]
    tasks = (rows[0][1:] if index else rows[0]) if header else names
    baseline = None
    if not any(map(any, cells)):
        raise BenchError(f"{where}: has a header but no accuracies")
    matrix, unit = numbers(cells, where)
    if names and names[0].lower() in BEFORE:
        baseline, names, cells, matrix = matrix[0], names[1:], cells[1:], matrix[1:]
        tasks = tasks if header else names
    found, more = _without_means(_Body(cells, matrix, list(tasks), names, baseline, header), where)
    matrix, tasks, names, baseline = found.matrix, found.tasks, found.names, found.baseline
    notes += more
    if matrix.shape[0] != matrix.shape[1]:
        raise BenchError(
            f"{where}: {matrix.shape[0]} rows and {matrix.shape[1]} columns of accuracies; a square is expected, rows = after"
            " learning a task, columns = evaluated task (or tidy columns after_task, eval_dataset, accuracy)"
            + "".join(f"; {note}" for note in notes)
        )
    tasks, names = _bare_names(tasks), _bare_names(names)
    if not tasks or _counts(tasks):
        tasks = [f"task {k + 1}" for k in range(len(matrix))]
    learned = names if names and set(names) == set(tasks) else tasks
    if len(set(tasks)) < len(tasks):
        raise BenchError(f"{where}: two columns have the same name")
    if order is not None and set(order) != set(tasks):
        raise BenchError(f"{where}: the tasks in it are {', '.join(tasks)}, the order names {', '.join(order)}")
    if order is None and (sorted_by_number := by_number(learned)):
        order = sorted_by_number
        notes.append("the names of tasks stand in alphabetical order; their numbers are taken as the learning order")
    order = list(order or learned)
    if order != list(tasks) or order != list(learned):
        matrix = matrix[np.ix_([learned.index(name) for name in order], [tasks.index(name) for name in order])]
        baseline = None if baseline is None else baseline[[tasks.index(name) for name in order]]
        notes.append(f"tasks put into learning order: {', '.join(order)}")
    return AccuracyMatrix(label, order, matrix, baseline=baseline, notes=notes, unit=unit)


@dataclass(frozen=True)
class _Body:
    """The accuracies of a table with their labels."""

    cells: list[list[str]]  # as they are written
    matrix: np.ndarray
    tasks: list[str]  # of the columns; those of the rows where there is no header
    names: list[str]  # of the rows; empty where there are none
    baseline: np.ndarray | None
    header: bool

    def without_column(self, column: int) -> "_Body":
        baseline = None if self.baseline is None else np.delete(self.baseline, column)
        tasks = self.tasks[:column] + self.tasks[column + 1 :] if self.header else self.tasks
        return replace(self, matrix=np.delete(self.matrix, column, axis=1), tasks=tasks, baseline=baseline)

    def without_row(self, row: int) -> "_Body":
        names = self.names[:row] + self.names[row + 1 :]
        return replace(self, matrix=np.delete(self.matrix, row, axis=0), names=names, tasks=self.tasks if self.header else names)


def _without_means(body: _Body, where: str) -> tuple[_Body, list[str]]:
    """The same without an unnamed last or first column, or row, of means, and a note for each."""
    notes = []
    column = mean_column(body.cells, body.matrix)
    row = mean_column([list(one) for one in zip(*body.cells)], body.matrix.T)
    height, width = body.matrix.shape
    found = body
    if height == width and (column is None) != (row is None):
        what = "column" if row is None else "row"
        raise BenchError(
            f"{where}: the {'first' if 0 in (column, row) else 'last'} {what} is the mean of the other {what}s; without it this"
            " is no square: leave the averages out"
        )
    if column is not None and (height < width or row is not None) and not (body.header and body.tasks[column]):
        found = found.without_column(column)
        notes.append("left out, not a task: a column that is the mean of the others")
    if row is not None and (height > width or column is not None) and not (body.names and body.names[row]):
        found = found.without_row(row)
        notes.append("left out, not a task: a row that is the mean of the others")
    return found, notes


def _bare_names(names: Sequence[str]) -> list[str]:
    """Names of rows without the "after" in front, as the tables of bench print them."""
    return [name[6:] for name in names] if names and all(name[:6] == "after " for name in names) else list(names)


def _labelled(rows: list[list[str]]) -> tuple[bool, bool]:
    """Is the first row a header, is the first column an index? Labels are names, or count where a square needs them."""
    height, width = len(rows), len(rows[0])
    unnumbered = not is_number(rows[0][0])
    corner = unnumbered and height == width > 1  # both labels, around a square
    header = unnumbered and (_are_names(rows[0][1:]) or (_are_names([rows[0][0] or "-", *rows[0][1:-1]]) and not rows[0][-1]))
    header = header or (corner and _counts(rows[0][1:])) or (height == width + 1 and _counts(rows[0]))
    untrained = height > 1 and rows[1][0].lower() in BEFORE  # one row more than tasks
    header = header or (unnumbered and untrained and height == width + 1 and _counts(rows[0][1:]))
    if not rows[0][0] and height == width > 2 and _same_numbers(rows[0][1:], [row[0] for row in rows[1:]]):
        return True, True
    first = [row[0] for row in rows[header:]]
    if header and untrained and _counts(first[1:]):
        return True, True
    index = _are_names(first) or (len(first) > 2 and not first[-1] and _are_names(first[:-1]))
    index = index or (header and corner and _counts(first)) or (width == len(first) + 1 and _counts(first))
    return header, index


def _are_names(cells: Sequence[str]) -> bool:
    return bool(cells) and all(not is_number(cell) and not is_missing(cell) for cell in cells)


def _same_numbers(head: Sequence[str], first: Sequence[str]) -> bool:
    """Do both hold the same whole numbers, each once? Around an empty corner they name tasks: 10, 20, 30."""
    return all(cell.isdecimal() for cell in head) and len(set(head)) == len(head) and sorted(head) == sorted(first)


def _counts(cells: Sequence[str]) -> bool:
    """Do the cells just count, from 0 or from 1?"""
    return list(cells) in ([str(k) for k in range(len(cells))], [str(k + 1) for k in range(len(cells))])


def by_number(names: Sequence[str]) -> list[str] | None:
    """The names in the order of their numbers, where they stand in alphabetical order and that is another one.

    >>> by_number(["task_0", "task_1", "task_10", "task_2"]), by_number(["b2", "b1", "b10"]), by_number(["a1", "b2", "b10"])
    (['task_0', 'task_1', 'task_2', 'task_10'], None, None)
    """
    parts = [re.fullmatch(r"(\D*)(\d{1,9})(\D*)", name) for name in names]
    if list(names) != sorted(names) or not all(parts) or len({(part[1], part[3]) for part in parts if part}) != 1:
        return None
    found = sorted(names, key=lambda name: int(re.sub(r"\D", "", name)))
    return found if found != list(names) else None


def numbers(cells: Sequence[Sequence[str]], where: str) -> tuple[np.ndarray, str]:
    """(the numbers, NaN where a cell is missing; "percent" if they have percent signs, else "")."""
    signs: set[bool] = set()

    def one(cell: str) -> float:
        if is_missing(cell):
            return np.nan
        value = number(cell)
        if value is None:
            raise BenchError(f"{where}: {cell[:60]!r} is not an accuracy")
        if value:  # a plain 0 may stand among percentages
            signs.add(percent_sign(cell))
        return value

    found = np.array([[one(cell) for cell in row] for row in cells], dtype=float)
    if len(signs) > 1:
        raise BenchError(f"{where}: some accuracies have a percent sign and others have none; write all of them alike")
    return found, "percent" if True in signs else ""
