"""Tables as the page shows them: which method a row is about, and what a cell says when somebody points at it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.reports.formats import INDENT, Table, points
from bench.reports.layout import MARKS
from bench.reports.rows import Block
from bench.results.groups import Group, MethodRuns

MOST_RUNS = 12  # of so many runs at most a cell says the numbers


@dataclass(frozen=True)
class PageTable:
    """A table, and what is said of its parts."""

    table: Table
    methods: list[str]  # of each row
    says: list[list[str]] = field(default_factory=list)  # of each cell
    meanings: list[str] = field(default_factory=list)  # of each column; empty where there is nothing to say


def page_table(
    table: Table, group: Group | None = None, block: Block | None = None, meanings: dict[str, str] | None = None
) -> PageTable:
    """group, block: whose numbers the columns are; without them a cell says its method, its column and itself."""
    methods = list(_methods(table))
    own = {one.label: one for one in group.methods} if group else {}
    keys = {column.title: column for column in block.columns} if block else {}
    says = []
    for method, row in zip(methods, table.rows):
        first = row[0].text.strip()
        who = f"{method}, {first}" if row[0].text.startswith(INDENT) else method
        of_runs = own.get(method) if who == method else None
        said = []
        for title, cell in zip(table.header, row):
            column = keys.get(title)
            runs = _each_run(of_runs, of_runs.numbers(column.key, column.function)) if of_runs and column else ""
            said.append(f"{who}: {title} {cell.text}" + (f" ({runs})" if runs else ""))
        says.append(said)
    return PageTable(table, methods, says, [(meanings or {}).get(title, "") for title in table.header])


def _methods(table: Table) -> Iterable[str]:
    """The label of the method that each row is about; rows that belong to the one above are about the same."""
    label = ""
    for row in table.rows:
        if not row[0].text.startswith(INDENT):
            label = row[0].text.rstrip(MARKS)
        yield label


def _each_run(own: MethodRuns, numbers: Sequence[float]) -> str:
    """The number of every run, so that a mean and its spread can be looked into."""
    known = [(seeds, number) for seeds, number in zip(own.seeds, numbers) if not np.isnan(number)]
    if not known or len(known) > MOST_RUNS:
        return ""
    return "; ".join(f"order {order} seed {seed}: {points(number)}" for (order, seed), number in known)
