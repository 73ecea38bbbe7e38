"""Rows of cells out of text: CSV with any delimiter, Markdown and LaTeX tables. What the cells mean is decided elsewhere."""

import csv
import io
import re
from dataclasses import dataclass, field

from bench.errors import NO_CSV, BenchError, reading
from bench.results.foreign.written_numbers import is_missing, is_number, plain

_RULER = re.compile(r"\s*[|+]?\s*:?-+:?\s*([|+]\s*:?-+:?\s*)*[|+]?\s*")
_TABULAR = re.compile(r"\\begin\{(tabular[x*]?|array|longtable)\}(.*?)\\end\{\1\}", re.DOTALL)
_LATEX_RULE = re.compile(r"\\(?:top|mid|bottom|h|c|cmid)(?:rule|line)\b\s*(?:\([^)]*\))?(?:\{[^}]*\})?(?:\[[^\]]*\])?")
_SPANNING = re.compile(r"\\multi(?:column|row)\{[^{}]*\}\{[^{}]*\}\{((?:[^{}]|\{[^{}]*\})*)\}")
MOST_CELLS = 1_000_000
LONGEST_LABEL = 60


@dataclass
class Sheet:
    """Rows of cells."""

    label: str  # "" if the file has only this one
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def markdown_tables(text: str) -> list[Sheet]:
    """Every pipe table, with the line above it as its label; [] if there is no rule |---|---| in the text."""
    lines = text.split("\n")
    found = []
    position = 0
    while position < len(lines):
        line = lines[position]
        if not ("|" in line and _RULER.fullmatch(line) and position and "|" in lines[position - 1]):
            position += 1
            continue
        start = position - 1
        end = position
        while end < len(lines) and "|" in lines[end]:
            end += 1
        rows = [_pipes(one) for one in lines[start:end] if one != line and not ("---" in one and _RULER.fullmatch(one))]
        above = next((one for one in reversed(lines[:start]) if one.strip()), "")
        found.append(Sheet("" if "|" in above else _title(plain(_unescaped(above))), rows, ["read as a Markdown table"]))
        position = end
    return found


def _title(line: str) -> str:
    """A heading as a short label; of a caption of bench table, the method and the protocol."""
    own = re.match(r"(.+): accuracy matrix on (\S+)", line)
    text = f"{own[1]} on {own[2]}" if own else line.lstrip("# ").split(". ")[0].rstrip(":.")
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 3] + "..."


def _pipes(line: str) -> list[str]:
    text = line.strip().removeprefix("|")
    text = text[:-1] if text.endswith("|") and not text.endswith("\\|") else text
    return [plain(_unescaped(cell)) for cell in re.split(r"(?<!\\)\|", text)]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([|*_<>`\[\]\\])", r"\1", text)


def latex_tables(text: str) -> list[Sheet]:
    """Every tabular, or else lines of cells between & that end with \\\\."""
    bodies = [match[2] for match in _TABULAR.finditer(text)]
    if not bodies and "&" in text and "\\\\" in text:
        bodies = [text]
    found = []
    for body in bodies:
        body = re.sub(r"(?<!\\)%.*", "", body)
        body = _SPANNING.sub(r"\1", _LATEX_RULE.sub("", re.sub(r"^\s*(\[[^\]]*\])?(\{(?:[^{}]|\{[^{}]*\})*\})+", "", body)))
        rows = [re.split(r"(?<!\\)&", row) for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\tabularnewline", body) if row.strip()]
        rows = [[plain(cell) for cell in row] for row in rows]
        found.append(Sheet("", rows, ["read as a LaTeX table"]))
    return found


def delimited(text: str, where: str) -> list[list[str]]:
    """The rows of a CSV file; of the delimiters, the one that makes the most numbers of it."""
    text = "\n".join(line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#"))
    sample = text[:100_000]
    candidates = sorted((",", ";", "\t"), key=sample.count, reverse=True)  # of equal ones, the most frequent
    candidates = [one for one in candidates if one in sample] + [" "]
    best = candidates[0] if len(candidates) == 1 else max(candidates, key=lambda one: _score(_split(sample, one, where)))
    if best == " " and _score(_split(sample, best, where)) <= 0 and len(candidates) > 1:
        best = candidates[0]
    rows = [[plain(cell) for cell in row] for row in _split(text, best, where)]
    if sum(map(len, rows)) > MOST_CELLS:
        raise BenchError(f"{where}: has more than {MOST_CELLS} cells; no accuracy matrix has")
    shorter = len(rows) > 2 and {len(row) - 1 for row in rows[1:]} == {len(rows[0])}
    labels = [row[0] for row in rows[1:]]
    if best == " " and shorter and (not any(map(is_number, rows[0])) or rows[0] == labels):
        rows[0].insert(0, "")  # a header without a cell above the index, as pandas prints a table
    return rows


def _split(text: str, delimiter: str, where: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in text.split("\n")]
    with reading(where, NO_CSV, (csv.Error,)):
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))


def _score(rows: list[list[str]]) -> int:
    """Numbers minus what is neither number nor gap, outside the first row and column, which may be names."""
    body = [row[1:] for row in rows[1:]] if len(rows) > 1 else rows
    cells = [plain(cell) for row in body for cell in row]
    numbers = sum(map(is_number, cells))
    return 2 * numbers - sum(not is_missing(cell) for cell in cells)


def tidied(rows: list[list[str]]) -> list[list[str]]:
    """Rows of one width, without comments, titles above the table, and rows and columns that are empty."""
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if any(row) and not row[0].startswith("#")]
    while len(rows) > 2 and _is_title(rows[0], rows[1:]):
        rows = rows[1:]
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    kept = [j for j in range(width) if any(row[j] for row in rows)]
    return [[row[j] for j in kept] for row in rows]


def _is_title(row: list[str], others: list[list[str]]) -> bool:
    """Does the row hold one cell of text only, above a table that has several columns?"""
    filled = [cell for cell in row if cell]
    return len(filled) == 1 and not is_number(filled[0]) and all(sum(map(bool, other)) > 1 for other in others)
