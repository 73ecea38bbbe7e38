"""What a paper's table reports, and which of it can be run here: for pages about the table, before anything is run."""

from collections.abc import Sequence

from bench.reports.formats import Table, TableCell
from bench.results.metrics import METRICS
from bench.results.paper_tables import UNREAD, Cell, PaperTable
from bench.results.published import as_printed

HEADER = ["protocol", "method", "reported", "where", "certainty", "runs here"]


def title(metric: str) -> str:
    """A metric as tables head it; names that are not the harness's own stay as they are."""
    name, slash, dataset = metric.partition("/")
    return (METRICS[name].title if name in METRICS else name) + slash + dataset


def named(cell: Cell) -> str:
    """The method as the paper has it, and the one that is run for it where that has another name."""
    own = cell.key[1] if cell.key else cell.method
    return cell.method if own == cell.method else f"{cell.method} = {own}"


def reported(table: PaperTable, cells: Sequence[Cell], per_dataset: bool = False) -> Table:
    """The numbers of a table, those of one protocol, method and source in a row, and whether a run can be held against them."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    unread: dict[str, list[str]] = {}
    for cell in cells:
        if cell.reason == UNREAD:
            unread.setdefault(cell.protocol, []).append(named(cell))
        elif per_dataset or not cell.of_one_dataset:
            why = "; ".join(part for part in ("yes" if cell.key else "", cell.reason) if part)
            groups.setdefault((cell.protocol, named(cell), cell.where, cell.certainty, why), []).append(cell)
    rows = []
    for (protocol, method, where, certainty, why), own in groups.items():
        numbers = ", ".join(f"{title(cell.metric)} {_value(cell)}" for cell in own)
        rows.append([protocol, method, numbers, where, certainty, why])
    rows += [[protocol, ", ".join(methods), "not read", "", "", "with --every-cell"] for protocol, methods in unread.items()]
    left_out = 0 if per_dataset else sum(cell.of_one_dataset for cell in cells)
    reading = "Percent, as printed" + (f"; {left_out} numbers of single data sets left out" if left_out else "")
    body = [[TableCell(text) for text in row] for row in rows]
    return Table(f"Numbers of {table.source}", f"{reading}.", HEADER, body, left=len(HEADER))


def _value(cell: Cell) -> str:
    std = "" if cell.std is None else f" ± {as_printed(cell.std)}"
    return as_printed(cell.value or 0.0) + std
