"""Tables as text: plain, Markdown, LaTeX (booktabs), HTML, CSV, JSON.

A Table carries what people read (caption, header, cells, notes) and, for CSV and JSON, the same numbers as data:
fractions at full precision. Cells know whether they are best or second best; each format shows that in its own way.
"""

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.errors import BenchError

INDENT = "  "  # a first cell that starts with this belongs to the row above
DECIMALS = 1  # of percentages in a table; what is compared gets one more (`points`)
Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class TableCell:
    """What one cell of a table prints."""

    text: str
    mark: Mark = ""
    sign: str = ""  # behind the number, explained in a note


@dataclass
class Table:
    """What people read, and the same numbers as data."""

    caption: str
    reading: str  # unit and what a cell is made of
    header: list[str]
    rows: list[list[TableCell]]
    notes: list[str] = field(default_factory=list)
    conditions: dict[str, Any] = field(default_factory=dict)  # what all rows have in common
    data: list[dict[str, Any]] = field(default_factory=list)  # the rows as numbers, for CSV and JSON
    left: int = 1  # so many columns hold text, the others numbers
    digits: int = DECIMALS  # of its percentages
    label: str = ""  # by which a paper or a page refers to it

    @property
    def marked(self) -> bool:
        """Is a cell the best or the second best of its column?"""
        return any(cell.mark for row in self.rows for cell in row)


def percent(fraction: float | None, digits: int = DECIMALS, signed: bool = False) -> str:
    """A fraction in percent, without a minus sign on a zero; "-" where there is none (None or NaN).

    >>> percent(0.12345), percent(0.12345, digits=2), percent(0.0, signed=True), percent(None), percent(float("nan"))
    ('12.3', '12.35', '0.0', '-', '-')
    """
    if fraction is None or math.isnan(fraction):
        return "-"
    number = round(100 * fraction, digits) + 0.0  # + 0.0: of -0.0 it makes 0.0
    sign = "+" if signed and number else ""
    return f"{number:{sign}.{digits}f}"


def points(fraction: float | None, signed: bool = False) -> str:
    """A percentage that is compared, or a difference of two: with one digit more than a table of levels needs.

    >>> points(0.12345), points(0.01, signed=True), points(-0.00001, signed=True), points(float("nan"))
    ('12.35', '+1.00', '0.00', '-')
    """
    return percent(fraction, DECIMALS + 1, signed)


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "task"), counted(3, "task")
    ('1 task', '3 tasks')
    """
    return f"{number} {noun}" + ("" if number == 1 else "s")


def write(tables: list[Table], format: str) -> str:
    """All tables in one format, without a final newline."""
    if format not in FORMATS:
        raise BenchError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    return FORMATS[format](tables)


def _all_notes(table: Table, key: str, escape: Callable[[str], str] = str) -> list[str]:
    """The notes below a table, with the key to its marks, if it has any, in front."""
    notes = [escape(note) for note in table.notes]
    return [key, *notes] if table.marked else notes


def _plain(tables: list[Table]) -> str:
    return "\n\n".join(_plain_one(table) for table in tables)


def _plain_one(table: Table) -> str:
    suffix = {"best": "**", "second": "*", "": ""}
    behind = [[suffix[cell.mark] + cell.sign for cell in row] for row in table.rows]
    pad = [max((len(row[i]) for row in behind), default=0) for i in range(len(table.header))]  # so that digits stay aligned
    body = [[cell.text + behind[k][i].ljust(pad[i]) for i, cell in enumerate(row)] for k, row in enumerate(table.rows)]
    titles = [title.replace("/", "/\n").split("\n") for title in table.header]
    height = max(map(len, titles))
    titles = [[""] * (height - len(title)) + title for title in titles]
    head = [[title[line] + " " * pad[i] for i, title in enumerate(titles)] for line in range(height)]
    widths = [max(map(len, column)) for column in zip(*head, *body)]

    def line(cells: list[str]) -> str:
        justified = [cell.ljust(w) if i < table.left else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths))]
        return "  ".join(justified).rstrip()

    notes = _all_notes(table, "** best, * second best")
    rule = "  ".join("-" * width for width in widths)
    gap = [""] if notes else []
    return "\n".join([table.caption, table.reading, "", *map(line, head), rule, *map(line, body), *gap, *notes])


def _markdown(tables: list[Table]) -> str:
    def escape(text: str) -> str:
        return re.sub(r"([|*_<>`\[\]\\])", r"\\\1", text).replace(INDENT, "&emsp;")

    def show(cell: TableCell) -> str:
        text = escape(cell.text)
        return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text) + cell.sign

    def one(table: Table) -> str:
        ruler = [":---"] * table.left + ["---:"] * (len(table.header) - table.left)
        rows = [list(map(escape, table.header)), ruler, *[[show(cell) for cell in row] for row in table.rows]]
        notes = _all_notes(table, "**bold**: best, <u>underlined</u>: second best", escape)
        body = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        return f"{escape(table.caption)}. {escape(table.reading)}\n\n{body}" + ("\n\n" + "  \n".join(notes) if notes else "")

    return "\n\n".join(map(one, tables))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "±": r"$\pm$", "†": r"$^\dagger$", "‡": r"$^\ddagger$", "§": r"\S{}", "×": r"$\times$", "≈": r"$\approx$", "→": r"$\to$",
}  # fmt: skip


def _latex(tables: list[Table]) -> str:
    def escape(text: str) -> str:
        text = "".join(_LATEX.get(character, character) for character in text)
        return re.sub(r"(?<![\w.)}])-(?=\d)", "$-$", text).replace(INDENT, r"\quad ")

    def show(cell: TableCell) -> str:
        text = escape(cell.text)
        return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(cell.mark, text) + escape(cell.sign)

    def one(table: Table) -> str:
        notes = _all_notes(table, "Bold: best; underlined: second best.", escape)
        return "\n".join(
            [
                r"\begin{table}[t]",
                r"\centering",
                r"\small",
                rf"\caption{{{escape(table.caption)}. {escape(table.reading)}}}"
                + (rf"\label{{{table.label}}}" if table.label else ""),
                rf"\begin{{tabular}}{{{'l' * table.left}{'r' * (len(table.header) - table.left)}}}",
                r"\toprule",
                " & ".join(map(escape, table.header)) + r" \\",
                r"\midrule",
                *[" & ".join(map(show, row)) + r" \\" for row in table.rows],
                r"\bottomrule",
                r"\end{tabular}",
                *[rf"\par {{\footnotesize {note}}}" for note in notes],
                r"\end{table}",
            ]
        )

    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(map(one, tables))


def _html(tables: list[Table]) -> str:
    def escape(text: str) -> str:
        return html.escape(text).replace(INDENT, "&emsp;").replace(" ± ", "&nbsp;±&nbsp;")

    def show(cell: TableCell, column: int) -> str:
        text = escape(cell.text)
        text = {"best": f"<strong>{text}</strong>", "second": f"<u>{text}</u>"}.get(cell.mark, text) + escape(cell.sign)
        return f'<th scope="row">{text}</th>' if column == 0 else f"<td>{text}</td>"

    def one(table: Table) -> str:
        head = "".join(f'<th scope="col">{escape(title)}</th>' for title in table.header)
        rows = ["<tr>" + "".join(show(cell, i) for i, cell in enumerate(row)) + "</tr>" for row in table.rows]
        notes = _all_notes(table, "<strong>bold</strong>: best, <u>underlined</u>: second best", escape)
        return "\n".join(
            [
                f'<table id="{table.label}">' if table.label else "<table>",
                f"<caption>{escape(table.caption)}. {escape(table.reading)}</caption>",
                f"<thead><tr>{head}</tr></thead>",
                "<tbody>",
                *rows,
                "</tbody>",
                "</table>",
                *[f"<p>{note}</p>" for note in notes],
            ]
        )

    return "\n".join(map(one, tables))


def _csv(tables: list[Table]) -> str:
    import pandas as pd

    rows = [{**table.conditions, **row} for table in tables for row in table.data]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").rstrip("\n")


def _json(tables: list[Table]) -> str:
    listed = [
        {"caption": t.caption, "unit": "fraction", "conditions": t.conditions, "rows": t.data, "notes": t.notes} for t in tables
    ]
    return json.dumps(listed, indent=1, ensure_ascii=False, allow_nan=False)


FORMATS: dict[str, Callable[[list[Table]], str]] = {
    "plain": _plain,
    "markdown": _markdown,
    "latex": _latex,
    "html": _html,
    "csv": _csv,
    "json": _json,
}
