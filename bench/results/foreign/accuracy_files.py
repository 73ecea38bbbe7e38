"""Accuracy matrices that others have made, read from a file of any origin.

Read are CSV files, wide (bench.results.foreign.wide_matrix) or tidy (bench.results.foreign.tidy_matrix), Markdown and LaTeX
tables, numpy files, JSON, printed arrays (bench.results.foreign.number_arrays), and what other toolkits leave behind: mammoth,
the PyCIL family, Avalanche. What a file is, is told from its content, never from its name; what cannot be read gets one line that
names it (bench.results.foreign.files).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.results.foreign import avalanche, files, mammoth, number_arrays, pycil, sheets
from bench.results.foreign.accuracy_matrix import AccuracyMatrix
from bench.results.foreign.sheets import Sheet
from bench.results.foreign.tidy_matrix import is_tidy, read_tidy
from bench.results.foreign.wide_matrix import read_wide

RECORDS = {"run_id", "candidates", "metric", "eval_task"}  # columns of a file that bench run has written
SPREAD = "values behind ± are left out"
UNCLEAR = 2.0  # a largest value between 1 and this may be a fraction gone wrong as well as a percentage


def read_all(
    paths: Sequence[Path], order: Sequence[str] | None = None, unit: str | None = None
) -> list[tuple[Path, AccuracyMatrix]]:
    """The matrices in several files, each with its file; of matrices with one label, the label names the file too."""
    found = [(path, one) for path in paths for one in read(path, order, unit)]
    labels = [one.label for _, one in found]
    twice = {label for label in labels if labels.count(label) > 1} if len(set(paths)) > 1 else set()
    return [(path, replace(one, label=f"{path}: {one.label}") if one.label in twice else one) for path, one in found]


def read(path: Path, order: Sequence[str] | None = None, unit: str | None = None) -> list[AccuracyMatrix]:
    """The matrices in a file, "-" being standard input. order: names of the tasks as they were learned, where the file does
    not say; unit: "percent" or "fraction" (default: percent if a value is above 1)."""
    where = "standard input" if str(path) == files.STANDARD_INPUT else str(path)
    data = files.read_bytes(path)
    if number_arrays.is_numpy(data):
        return _of_sheets(number_arrays.read_numpy(data, where), where, order, unit, bare=True)
    text, notes = files.text_of(data, where)
    return [replace(one, notes=[*notes, *one.notes]) for one in read_text(text, where, order, unit)]


def read_text(text: str, where: str, order: Sequence[str] | None = None, unit: str | None = None) -> list[AccuracyMatrix]:
    """The matrices in a text of any form; `where` names it in error messages."""
    if mammoth.is_mammoth(text):
        return mammoth.read_mammoth(text, where)
    if pycil.is_pycil(text):
        return pycil.read_pycil(text, where)
    if number_arrays.is_json(text):
        return _of_sheets(number_arrays.read_json(text, where), where, order, unit)
    for tables in (sheets.markdown_tables(text), sheets.latex_tables(text)):
        if tables:
            return _of_sheets(tables, where, order, unit)
    if number_arrays.is_printed(text):
        return _of_sheets(number_arrays.read_printed(text, where), where, order, unit, bare=True)
    if text.lstrip()[:1] in ("{", "["):
        raise BenchError(
            f"{where}: begins as JSON or a Python {'dictionary' if text.lstrip()[0] == '{' else 'list'} does, but is neither JSON"
            " nor a list of rows of numbers, [[...], [...]]"
        )
    return read_csv(text, where, order, unit)


def read_csv(text: str, where: str, order: Sequence[str] | None = None, unit: str | None = None) -> list[AccuracyMatrix]:
    """The matrices in the text of a CSV file."""
    return _of_sheets([Sheet("", sheets.delimited(text, where))], where, order, unit)


def _of_sheets(
    found: list[Sheet], where: str, order: Sequence[str] | None, unit: str | None, bare: bool = False
) -> list[AccuracyMatrix]:
    """bare: arrays, in which no cell is a name."""
    matrices = []
    for number, sheet in enumerate(found, start=1):
        place = where if len(found) == 1 else f"{where}, {sheet.label or f'table {number}'}"
        stem = where if where == "standard input" else Path(where).stem
        label = stem if len(found) == 1 else sheet.label or f"{stem}, table {number}"
        for one in _matrices(sheet.rows, label, place, order, bare):
            notes = [*sheet.notes, *one.notes]
            if any("±" in cell or "+/-" in cell for row in sheet.rows for cell in row):
                notes.append(SPREAD)
            matrices.append(_checked(replace(one, notes=notes), place, unit))
    return matrices


def _matrices(rows: list[list[str]], label: str, where: str, order: Sequence[str] | None, bare: bool) -> list[AccuracyMatrix]:
    raw = [[cell.strip() for cell in row] for row in rows]
    raw = [row for row in raw if any(row) and not row[0].startswith("#")]
    if not raw:
        raise BenchError(f"{where}: is empty; a matrix of accuracies is expected")
    head = [cell.lower() for cell in raw[0]]
    if set(head) >= RECORDS:
        raise BenchError(f"{where}: was written by bench run; use bench table {where}")
    if is_tidy(head):
        return read_tidy(head, raw[1:], label, where, order)
    rows = raw if bare else sheets.tidied(rows)
    width = max(map(len, rows))
    rows = [row + [""] * (width - len(row)) for row in rows]
    head = [cell.lower() for cell in rows[0]]
    if avalanche.is_avalanche(head):
        return avalanche.read_avalanche(head, rows[1:], label, where)
    if is_tidy(head):  # below a title
        return read_tidy(head, rows[1:], label, where, order)
    return [read_wide(rows, label, where, order, bare)]


def _checked(one: AccuracyMatrix, where: str, unit: str | None) -> AccuracyMatrix:
    """Percent or fraction, padding, orientation; what was decided goes into the notes."""
    matrix, notes = one.matrix, list(one.notes)
    known = np.concatenate([matrix.ravel(), [] if one.baseline is None else one.baseline])
    known = known[~np.isnan(known)]
    if not known.size:
        raise BenchError(f"{where}: {one.label}: no accuracy in it")
    if not (known.min() >= 0 and known.max() <= 100):
        raise BenchError(f"{where}: {one.label}: {known.min() if known.min() < 0 else known.max():g} is not an accuracy")
    if unit == "fraction" and one.unit == "percent":
        raise BenchError(f"{where}: {one.label}: the accuracies have percent signs, so they are not fractions")
    unit = unit or one.unit or _guessed_unit(known.max(), f"{where}: {one.label}")
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


def _guessed_unit(largest: float, where: str) -> str:
    if 1 < largest <= UNCLEAR:
        raise BenchError(f"{where}: values up to {largest:g} may be percent or wrong fractions; say which with --unit")
    return "percent" if largest > 1 else "fraction"
