"""What `bench show published` says: which papers report numbers, and the numbers of one of them, as they print them."""

import re
from collections.abc import Iterable, Sequence
from textwrap import fill

from tabulate import tabulate

from bench.errors import unknown_name
from bench.results import published
from bench.results.metrics import METRICS
from bench.results.published import as_printed

WIDTH = 110
Row = dict[str, str]


def page(paper: str | None) -> str:
    """The papers, or the numbers of the one of that name."""
    papers = _papers()
    if paper is None:
        parts = [_summary(name, rows) for name, rows in papers.items()]
        return "\n\n".join(["papers whose numbers ship with the package:", *parts, _HINT]) + "\n"
    name = next((name for name, rows in papers.items() if paper.casefold() in (name, rows[0]["reported_in"].casefold())), None)
    if name is None:
        raise unknown_name("paper", paper, papers)
    return _numbers(papers[name])


_HINT = "bench show published NAME prints the numbers of one; bench table --published sets them beside measured ones."


def _papers() -> dict[str, list[Row]]:
    """Name to type -> the rows of a paper."""
    found: dict[str, list[Row]] = {}
    for row in published.rows():
        found.setdefault(_name_of(row["reported_in"]), []).append(row)
    return dict(sorted(found.items()))


def _name_of(paper: str) -> str:
    """
    >>> _name_of("ZSCL (Zheng et al., ICCV 2023)"), _name_of("independent rerun (public notes)")
    ('zscl', 'independent-rerun')
    """
    return re.sub(r"[^a-z0-9]+", "-", paper.partition(" (")[0].casefold())


def _summary(name: str, rows: Sequence[Row]) -> str:
    """A paper, and what it reports."""
    reported = {kind: _once(row[kind] for row in rows) for kind in ("protocol", "method", "backbone")}
    metrics = _once(_metric(row) for row in rows)
    said = [("protocols", reported["protocol"]), ("methods", reported["method"]), ("metrics", metrics),
            ("backbones", reported["backbone"])]  # fmt: skip
    lines = [f"{name}: {rows[0]['reported_in']}, {len(rows)} numbers"]
    for title, names in said:
        first = f"  {title:<10} "
        lines.append(fill(", ".join(names), WIDTH, initial_indent=first, subsequent_indent=" " * len(first)))
    return "\n".join(lines)


def _numbers(rows: Sequence[Row]) -> str:
    """Each table of a paper by itself: what is over all of a stream, then what is of one data set."""
    parts = [f"{rows[0]['reported_in']}: {len(rows)} numbers, as printed there; percent unless the name says otherwise"]
    for table in _once(row["table"] for row in rows):
        own = [row for row in rows if row["table"] == table]
        parts.append(f"{table} ({'; '.join(_once(row['certainty'] for row in own))})")
        parts.append(_of_streams([row for row in own if not _of_one_data_set(row)]))
        for metric in _once(_metric(row) for row in own if _of_one_data_set(row)):
            parts += _of_data_sets([row for row in own if _of_one_data_set(row) and _metric(row) == metric])
    return "\n\n".join(filter(None, parts)) + "\n"


def _metric(row: Row) -> str:
    return row["metric"].partition("/")[0]


def _of_one_data_set(row: Row) -> bool:
    return "/" in row["metric"]


def _of_streams(rows: Sequence[Row]) -> str:
    """A line for each method under the same conditions, a column for each metric."""
    metrics = _once(row["metric"] for row in rows)
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        found.setdefault((row["protocol"], row["backbone"], row["method"]), {})[row["metric"]] = _number(row)
    lines = [[*conditions, *(numbers.get(metric, "") for metric in metrics)] for conditions, numbers in found.items()]
    return _table(lines, ["protocol", "backbone", "method"], [_title(metric) for metric in metrics]) if rows else ""


def _of_data_sets(rows: Sequence[Row]) -> list[str]:
    """Of one metric, for each stream and backbone: a line for each data set, a column for each method."""
    parts = []
    for protocol, backbone in dict.fromkeys((row["protocol"], row["backbone"]) for row in rows):
        own = [row for row in rows if (row["protocol"], row["backbone"]) == (protocol, backbone)]
        numbers = {(row["metric"], row["method"]): _number(row) for row in own}
        metrics, methods = _once(row["metric"] for row in own), _once(row["method"] for row in own)
        lines = [[metric.partition("/")[2], *(numbers.get((metric, method), "") for method in methods)] for metric in metrics]
        heading = f"{_title(_metric(own[0]))} of each data set, {protocol}, {backbone}:"
        parts.append(f"{heading}\n{_table(lines, ['data set'], methods)}")
    return parts


def _number(row: Row) -> str:
    return as_printed(float(row["value"])) + (f" ± {as_printed(float(row['std']))}" if row["std"] else "")


def _table(lines: Sequence[Sequence[str]], names: Sequence[str], numbers: Sequence[str]) -> str:
    """Columns of words, then columns of numbers."""
    aligned = ["left"] * len(names) + ["right"] * len(numbers)
    return tabulate(lines, [*names, *numbers], tablefmt="simple", disable_numparse=True, colalign=aligned)


def _title(metric: str) -> str:
    """As tables head it, if the harness has it; else the source's own word."""
    return METRICS[metric].title if metric in METRICS else metric


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
