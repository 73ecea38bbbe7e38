"""Rows and columns of averages in tables that people make: no tasks, whatever they are called.

Read as one more task they change every metric without a word. Those with a name are left out; one without a name is known by
its numbers: each is the mean of the others, as exactly as it was printed.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from bench.results.foreign.written_numbers import decimals, is_missing, number

NAMES = {
    "average", "averages", "avg", "mean", "transfer", "last", "total", "overall", "all", "all tasks", "final", "sum", "std",
    "average accuracy", "avg accuracy", "avg acc", "mean accuracy", "mean acc", "overall accuracy", "total accuracy", "aa",
    "average acc", "acc avg", "acc mean", "final average", "avg last", "last avg", "average transfer", "avg transfer",
    "bwt", "fwt", "backward transfer", "forward transfer", "forgetting", "avg forgetting", "average forgetting",
    "mittelwert", "durchschnitt", "moyenne", "promedio", "media", "ø", "average over tasks", "mean over tasks",
}  # fmt: skip


def is_summary(name: str) -> bool:
    """Is it the name of an average?

    >>> [is_summary(name) for name in ("Avg.", "average (%)", "MEAN", "Transfer", "aircraft", "task 1", "")]
    [True, True, True, True, False, False, False]
    """
    text = re.sub(r"\s*[(\[].*?[)\]]$", "", name.strip().lower()) or name.strip().lower()
    return " ".join(re.sub(r"[.:_%*/-]", " ", text).split()) in NAMES


def left_out(rows: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    """(the rows without summaries that have a name, a note on what was left out)."""
    columns = [j for j, name in enumerate(rows[0]) if is_summary(name) and _measured(row[j] for row in rows[1:])]
    names = [f"the column {rows[0][j]!r}" for j in columns]
    summaries = [i for i, row in enumerate(rows) if is_summary(row[0]) and 0 not in columns and _measured(row[1:])]
    names += [f"the row {rows[i][0]!r}" for i in summaries]
    kept = [[cell for j, cell in enumerate(row) if j not in columns] for i, row in enumerate(rows) if i not in summaries]
    return kept, [f"left out, not a task: {', '.join(names)}"] if names else []


def _measured(cells: Iterable[str]) -> bool:
    """Do the cells hold a number, and nothing that is neither number nor gap?"""
    cells = list(cells)
    return any(number(cell) is not None for cell in cells) and all(number(cell) is not None or is_missing(cell) for cell in cells)


def mean_column(cells: Sequence[Sequence[str]], matrix: np.ndarray) -> int | None:
    """The first or last column, if it is the mean of the other ones in every row; None if neither is.

    Rows without a spread say nothing: a mean is then like any other cell.
    """
    rows, columns = matrix.shape
    if columns < 3 or rows < 2:
        return None
    for place in (columns - 1, 0):
        others = np.delete(matrix, place, axis=1)
        if np.isnan(matrix[:, place]).any() or np.isnan(others).all(axis=1).any():
            continue
        digits = [min(decimals(row[place]), 4) for row in cells]
        finest = [max(min(decimals(cell), 4) for k, cell in enumerate(row) if k != place) for row in cells]
        allowed = np.array([0.51 * (10.0**-a + 10.0**-b) for a, b in zip(digits, finest)])
        spread = np.nanmax(others, axis=1) - np.nanmin(others, axis=1)
        near = np.abs(np.nanmean(others, axis=1) - matrix[:, place]) <= allowed
        if near.all() and (spread > 4 * allowed).sum() >= min(2, rows):
            return place
    return None
