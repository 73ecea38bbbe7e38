"""Matrices of numbers as programs write them: .npy, .npz and JSON files, and what print() makes of lists, numpy arrays and
torch tensors. All of it is data: nothing is evaluated or unpickled."""

import io
import json
import re
import zipfile
from itertools import pairwise
from typing import Any

import numpy as np

from bench.errors import BenchError, reading
from bench.results.foreign.files import MOST_BYTES, NUMPY, is_npz
from bench.results.foreign.sheets import MOST_CELLS, Sheet

MOST_DEPTH = 30
_NO_ACCURACY = re.compile(r"loss|forget|confusion|std|error|time|second|epoch", re.IGNORECASE)
_ACCURACY = re.compile(r"acc|matrix|result|perf", re.IGNORECASE)
_WRAPPER = re.compile(r"\b(?:np\.|numpy\.)?float\d*\(\s*([^()]*)\)|\b(?:torch\.)?tensor\(\s*([-+.\w]+)\s*(?:,[^()]*)?\)")
_TOKEN = re.compile(
    r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?(?![\w.])|[-+]?(?:nan|inf|none|null)(?!\w)", re.IGNORECASE
)
_NOTHING = re.compile(r"none|null", re.IGNORECASE)
_ROW = re.compile(r"\[([^\[\]]*)\]")
_PYCIL_HEADING = re.compile(r"Accuracy Matrix \((?:CNN|NME)\)")


# -- numpy ------------------------------------------------------------------------------------------------------


def is_numpy(data: bytes) -> bool:
    return data.startswith(NUMPY) or is_npz(data)


def read_numpy(data: bytes, where: str) -> list[Sheet]:
    """The array of an .npy file, or the only matrix of an .npz file."""
    if data.startswith(NUMPY):
        return [_array_sheet(_load(data, where), where, "")]
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = [info.filename for info in archive.infolist()]
    if sum(info.file_size for info in archive.infolist()) > MOST_BYTES:
        raise BenchError(f"{where}: unpacks to more than {MOST_BYTES >> 20} MB; write the matrix alone with numpy.save")
    with reading(where, "is a damaged .npz file", (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError)):
        arrays = {name.removesuffix(".npy"): _load(archive.read(name), f"{where}, {name}") for name in names}
    square = {name: array for name, array in arrays.items() if array.ndim == 2}
    if len(square) != 1:
        listed = ", ".join(f"{name} {'x'.join(map(str, array.shape)) or 'scalar'}" for name, array in arrays.items())
        raise BenchError(f"{where}: is an .npz file with {len(square)} matrices ({listed}); write one with numpy.save")
    ((name, array),) = square.items()
    return [_array_sheet(array, where, f"the array {name} of the .npz file")]


def _load(data: bytes, where: str) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged header fails in many ways
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise BenchError(
                f"{where}: is an array of Python objects, which numpy pickles; unpickling runs what is in the file, so it is"
                " never done: write array.astype(float) with numpy.save"
            ) from None
        raise BenchError(f"{where}: is a damaged .npy file") from error
    if array.dtype.kind not in "fiu":
        raise BenchError(f"{where}: is an array of {array.dtype}; an accuracy matrix holds plain numbers")
    return array


def _array_sheet(array: np.ndarray, where: str, note: str) -> Sheet:
    if array.ndim != 2 or 0 in array.shape or array.size > MOST_CELLS:
        shape = " x ".join(map(str, array.shape)) or "single number"
        raise BenchError(f"{where}: is an array of shape {shape}; a square is expected, row = after learning a task")
    return Sheet("", [[str(float(value)) for value in row] for row in array], [note] if note else [])


# -- JSON -------------------------------------------------------------------------------------------------------


def is_json(text: str) -> bool:
    """Is it JSON, or JSON Lines? Only what starts with a bracket is looked at."""
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        _parsed(text)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2:
            raise
        return [json.loads(line) for line in lines]


def read_json(text: str, where: str) -> list[Sheet]:
    """The only matrix in a JSON document, at any depth: rows of numbers, records, or rows by name."""
    try:
        found = _matrices(_parsed(text), "", 0)
    except RecursionError:
        raise BenchError(f"{where}: is JSON nested too deeply to hold a matrix; give the matrix alone, [[...], [...]]") from None
    if len(found) > 1:
        named = [(path, rows) for path, rows in found if _ACCURACY.search(path)]
        found = named if len(named) == 1 else found
    if len(found) > 1 and not all(re.fullmatch(r"(.*/)?\d+", path) for path, _ in found):
        paths = ", ".join(path or "the document itself" for path, _ in found[:6])
        raise BenchError(f"{where}: is JSON with {len(found)} matrices ({paths}); keep the one of accuracies")
    if not found:
        raise BenchError(
            f"{where}: is JSON without an accuracy matrix; expected are rows of numbers, [[...], [...]], also below a key,"
            " or records with after_task, eval_task and accuracy"
        )
    if len(found) > 1:
        return [Sheet(f"matrix {k}", rows) for k, (_, rows) in enumerate(found, start=1)]
    ((path, rows),) = found
    return [Sheet("", rows, [f"matrix at {path}"] if path else [])]


def _matrices(node: Any, path: str, depth: int) -> list[tuple[str, list[list[str]]]]:
    if depth > MOST_DEPTH:
        raise RecursionError
    rows = _rows(node)
    if rows is not None:
        return [(path, rows)]
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = []
    for key, value in inner:
        if isinstance(value, dict | list) and not _NO_ACCURACY.search(str(key)):
            found += _matrices(value, f"{path}/{key}".lstrip("/"), depth + 1)
    return found


def _rows(node: Any) -> list[list[str]] | None:
    """A node as rows of cells; None if it is no matrix by itself."""
    if isinstance(node, list) and node:
        if all(isinstance(row, list) and row and all(map(_scalar, row)) for row in node):
            return [list(map(_cell, row)) for row in node]
        if all(isinstance(row, dict) and row and all(map(_scalar, row.values())) for row in node):
            head = list(dict.fromkeys(str(key) for row in node for key in row))
            return [head, *[[_cell(row.get(key)) for key in head] for row in node]]
        if all(isinstance(row, dict) for row in node):
            lists = [[value for value in row.values() if _numbers(value)] for row in node]
            if all(len(one) == 1 for one in lists) and len(node) > 1:
                return [list(map(_cell, one[0])) for one in lists]
    if isinstance(node, dict) and node:
        values = list(node.values())
        if all(map(_numbers, values)) and len(values) > 1 and max(map(len, values)) == len(values):
            return [[str(name), *map(_cell, row)] for name, row in node.items()]
        if all(isinstance(row, dict) and row and all(map(_scalar, row.values())) for row in values):
            head = list(dict.fromkeys(str(key) for row in values for key in row))
            rows = [["", *head], *[[str(name), *[_cell(row.get(key)) for key in head]] for name, row in node.items()]]
            if all(name.startswith("after") for name in head) and not all(row[0].startswith("after") for row in rows[1:]):
                rows = [list(column) for column in zip(*rows)]
            return rows
    return None


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(one is None or type(one) in (int, float) for one in value)


def _scalar(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | str) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


# -- printed ----------------------------------------------------------------------------------------------------


def is_printed(text: str) -> bool:
    """Does it show arrays: brackets in brackets, or lines that are one row in brackets each?"""
    if re.search(r"\[\s*\[\s*[-+.\dntN]", text) or (re.search(r"\[\s*\[", text) and "..." in text):
        return True
    lines = [line.strip().rstrip(",") for line in text.split("\n") if line.strip()]
    return sum(line.startswith("[") and line.endswith("]") for line in lines) > len(lines) / 2


def read_printed(text: str, where: str) -> list[Sheet]:
    """Printed lists, arrays and tensors. Of a matrix that is printed again as it grows, the last one."""
    if re.search(r"\[[^\]]*(\.\.\.|…)", text):
        raise BenchError(f"{where}: is an array that was printed cut short (...); print it whole, or use numpy.save")
    text = _WRAPPER.sub(lambda match: match[1] or match[2] or "", text)
    found = []
    for heading, body in _groups(text):
        rows = [[_NOTHING.sub("nan", cell) for cell in _TOKEN.findall(row)] for row in _ROW.findall(body)]
        left = _TOKEN.sub("", " ".join(_ROW.findall(body))).replace(",", "").strip()
        if left:
            raise BenchError(f"{where}: is a printed array with {left[:30]!r} in it where numbers are expected")
        notes = ["read as a printed array"]
        if _PYCIL_HEADING.search(heading) and _only_above(rows):
            rows = [list(column) for column in zip(*rows)]
            notes.append("the PyCIL family prints a row for each evaluated task; transposed")
        found.append(Sheet(heading.strip(" :=>"), rows, notes))
    grown = [one for one, later in pairwise(found) if _grows(one.rows, later.rows)]
    found = [one for one in found if not any(one is other for other in grown)]
    if not found or max(len(one.rows) for one in found) < 2:
        count = len(found[0].rows[0]) if found and found[0].rows else 0
        if count != 1:
            raise BenchError(f"{where}: is a printed list of {count} numbers; a matrix has a row after each task, [[...], [...]]")
    if len(found) == 1:
        found[0].label = ""
    return found


def _groups(text: str) -> list[tuple[str, str]]:
    """(the line above, the text of the brackets) of every outermost pair; rows that have no pair around them are one group."""
    found, depth, start, last = [], 0, 0, 0
    for place in re.finditer(r"[\[\]]", text):
        if place[0] == "[":
            if not depth:
                start = place.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                above = re.sub(r"\b(?:np\.|numpy\.|torch\.)?(?:array|tensor)\($|\w+\s*=\s*$", "", text[last:start].strip())
                lines = [line.strip() for line in above.split("\n") if line.strip(" ,;:()")]
                found.append((lines[-1] if lines else "", text[start : place.end()]))
                last = place.end()
    nested = [one for one in found if re.match(r"\[\s*\[", one[1])]
    return nested or ([("", " ".join(body for _, body in found))] if found else [])


def _only_above(rows: list[list[str]]) -> bool:
    if any(len(row) != len(rows) for row in rows):
        return False
    matrix = np.nan_to_num(np.array(rows, dtype=float))
    return not np.tril(matrix, -1).any() and bool(np.triu(matrix, 1).any())


def _grows(rows: list[list[str]], later: list[list[str]]) -> bool:
    """Is the later matrix the same with more rows?"""
    same = (a == b or float(a) == float(b) for row, other in zip(rows, later) for a, b in zip(row, other))
    return len(later) > len(rows) and all(len(row) <= len(other) for row, other in zip(rows, later)) and all(same)
