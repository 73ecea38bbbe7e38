"""How a table is laid out for print: which rows, how many digits, which caption. Nothing here changes a number.

What a reader must know stays: whatever a caption or a column that is left out would have said stands in the notes, and results
on stand-in or fewer images say so in any caption.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.errors import BenchError, printable, unknown_name
from bench.reports.formats import DECIMALS, INDENT, Table
from bench.results.groups import MethodRuns
from bench.results.records import restrictions

MARKS = " †‡"  # behind the label of a row
RUNS = "runs"  # the heading of the last column
MOST_DIGITS = 6
PROTOCOL = "{protocol}"  # in a caption: the name of the table's protocol
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]*")


@dataclass(frozen=True)
class Layout:
    """What somebody wants of the form of their tables; the defaults change nothing."""

    methods: tuple[str, ...] | None = None  # rows, in this order
    digits: int = DECIMALS
    caption: str | None = None
    label: str | None = None
    runs_column: bool = True
    significance: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= MOST_DIGITS:
            raise BenchError(f"--digits {self.digits}: 0 to {MOST_DIGITS} digits behind the point can be printed")
        if self.label is not None and not LABEL.fullmatch(self.label):
            wanted = "letters, digits and : . _ - are wanted, for instance tab:main"
            raise BenchError(f"--label {printable(self.label)!r}: {wanted}")
        if self.caption is not None and (not self.caption.strip() or printable(self.caption) != self.caption.strip()):
            raise BenchError("--caption: a text in one line is wanted")

    def wants(self, method: str, label: str = "") -> bool:
        """Is a row of this method, printed as this label, wanted?"""
        return self.methods is None or bool({method, label} & set(self.methods))

    def chosen(self, methods: Sequence[MethodRuns], ordered: bool) -> list[MethodRuns]:
        """Those that are wanted, in the order in which they were named unless another order was asked for."""
        found = [own for own in methods if self.wants(own.method, own.label)]
        if self.methods is None or ordered:
            return found
        names = self.methods
        return sorted(found, key=lambda own: names.index(own.label if own.label in names else own.method))

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """BenchError for a name that no row could have."""
        known = set(known)
        for name in self.methods or ():
            if name not in known:
                raise unknown_name("method of these results", name, known)


def laid_out(tables: Sequence[Table], layout: Layout, format: str) -> list[Table]:
    """The same tables with the caption, the label and the columns that were asked for."""
    if layout.caption is not None and len(tables) > 1 and PROTOCOL not in layout.caption:
        several = f"there are {len(tables)} tables; give the results of one of them, or write {PROTOCOL} into it"
        raise BenchError(f"--caption: {several}")
    if layout.label is not None and format not in ("latex", "html"):
        raise BenchError(f"--label: only --format latex and html can refer to a table, not {format}")
    made = []
    for number, table in enumerate(tables, 1):
        if layout.caption is not None:
            table = _captioned(table, layout.caption)
        if not layout.runs_column:
            table = _without_runs(table)
        if layout.label is not None:
            table = replace(table, label=layout.label + (f"-{number}" if number > 1 else ""))
        made.append(table)
    return made


def _captioned(table: Table, caption: str) -> Table:
    """What the own caption has said goes into the notes; that the numbers mean little, also into the new one."""
    said = caption.strip().replace(PROTOCOL, str(table.conditions.get("protocol", ""))).rstrip(".")
    limits = str(table.conditions.get("limits", ""))
    warning = restrictions("" if limits == "nan" else limits)
    return replace(table, caption=f"{said}; {warning}" if warning else said, notes=[table.caption, *table.notes])


def _without_runs(table: Table) -> Table:
    if table.header[-1] != RUNS:
        return table
    found: list[tuple[str, str]] = []  # label of a row, number of its runs; rows of papers have none
    above = ""
    for row in table.rows:
        first = row[0].text
        above = above if first.startswith(INDENT) else first.rstrip(MARKS)
        if row[-1].text:
            found.append((f"{above}, {first.strip()}" if first.startswith(INDENT) else above, row[-1].text))
    same = {number for _, number in found}
    said = f"{same.pop()} a row" if len(same) == 1 else ", ".join(f"{label} {number}" for label, number in found)
    rows = [row[:-1] for row in table.rows]
    return replace(table, header=table.header[:-1], rows=rows, notes=[*table.notes, f"runs: {said}"])


def refuse_for_view(layout: Layout, view: str) -> None:
    """BenchError where a view has nothing to which the option could apply."""
    if layout.significance and view in ("matrix", "cost"):
        raise BenchError(f"--significance compares the metrics of methods; --view {view} shows none")
    if layout.digits != DECIMALS and view == "cost":
        raise BenchError("--digits is for percentages; --view cost has none")
