"""The papers' tables that can be reproduced, from their study files.

    python docs/paper_tables.py                                     all of them, a row each
    python docs/paper_tables.py TABLE [--per-dataset]               what one reports, and whether this harness can be run for it

Numbers come from results/published/*.csv as they were read there; nothing is computed.
"""

import argparse

from bench.reports.formats import Table, TableCell, write
from bench.reports.paper_rows import reported
from bench.results import paper_tables
from bench.runs import paper_study

HEADER = ["table", "what", "paper", "backbone", "cells", "held against runs", "run, no verdict", "not read", "cannot be run"]


def cells_of(table: paper_tables.PaperTable) -> list[paper_tables.Cell]:
    return paper_tables.cells(table, paper_study.keys(paper_study.read(table, {}).whole))


def overview() -> str:
    """A row for every table: how many of its numbers a run can be held against."""
    rows = []
    for name in paper_tables.names():
        table = paper_tables.find(name)
        cells = cells_of(table)
        unread = sum(cell.reason == paper_tables.UNREAD for cell in cells)
        cannot = sum(cell.key is None for cell in cells)
        unclear = sum(cell.reason == paper_tables.UNSTATED for cell in cells)
        counts = [len(cells), len(cells) - unread - cannot - unclear, unclear, unread, cannot]
        rows.append([name, table.summary, table.reported_in, table.backbone or "-", *map(str, counts)])
    body = [[TableCell(text) for text in row] for row in rows]
    reading = "One row a study file; numbers of single data sets are counted"
    return write([Table("The papers' tables of bench reproduce", f"{reading}.", HEADER, body, left=4)], "markdown")


def render(name: str, per_dataset: bool = False) -> str:
    """What is said of one table: the command, its numbers, and what differs."""
    table = paper_tables.find(name)
    parts = [write([reported(table, cells_of(table), per_dataset)], "markdown")]
    if not table.cannot and paper_study.read(table, {}).whole.requests:
        parts.insert(0, f"```\nbench reproduce {name}\n```")
    lines = [f"- {what}: {said}" for what, said in table.facts.items()] + [f"- differs: {said}" for said in table.differs]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", choices=paper_tables.names())
    parser.add_argument("--per-dataset", action="store_true", help="numbers of single data sets, too")
    chosen = parser.parse_args()
    print(render(chosen.table, chosen.per_dataset) if chosen.table else overview())


if __name__ == "__main__":
    main()
