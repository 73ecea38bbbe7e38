"""Measured results against what is registered: are the methods and protocols in them those of this harness?

Methods and protocols of other packages are refused, in a results folder and in a file. Their code does not lie here, so nobody
could check a number of theirs or repeat it from the repository alone. Whoever proposes a method hands in the method first;
until then their own runs stand beside measured ones by `bench table RESULTS --measured`.
"""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.errors import BenchError, unknown_name
from bench.results.measured import files
from bench.results.measured.of_run import folders, row_of
from bench.results.measured.schema import MeasuredRun
from bench.streams import names
from bench.streams.protocol import Protocol
from bench.system import registry


def collect(paths: Sequence[Path], who: str) -> tuple[list[MeasuredRun], list[str]]:
    """(the rows of the runs at or below the paths, a line for every run that is refused)."""
    published = datetime.datetime.now(datetime.UTC).date().isoformat()
    rows: dict[str, MeasuredRun] = {}
    refused: list[str] = []
    for run in folders([Path(path) for path in paths]):
        label = "/".join(run.path.parts[-3:])
        row, why = row_of(run, who, published)
        why = why or (next(_unknown(row), "") or files.misfit(row) if row else "")
        if row is None or why:
            refused.append(f"{label}: {why}")
        elif rows.setdefault(row["run_id"], row)["records_sha256"] != row["records_sha256"]:
            refused.append(f"{label}: lies in several folders with different numbers; keep one of them")
    if not rows and not refused:
        raise BenchError(f"{', '.join(map(str, paths))}: no run there yet; bench run writes them")
    return list(rows.values()), refused


def check(path: Path) -> tuple[list[MeasuredRun], list[str]]:
    """(the rows of a file, a line for every row that is not in order); BenchError if its form is wrong."""
    runs = files.read(path)
    found = list(files.complaints(runs))
    return runs, found or [f"row {number} ({run.label}): {why}" for number, run in enumerate(runs, 1) for why in _first(run)]


def _first(run: MeasuredRun) -> list[str]:
    return [why] if (why := next(_unknown(run), None)) else []


def _unknown(run: MeasuredRun) -> Iterator[str]:
    """What of a row is not of this harness, or not as this harness has it."""
    if run["method"] not in registry.names("method"):
        yield str(unknown_name("method", run["method"], registry.names("method")))
    elif (package := registry.package("method", run["method"])) != registry.BUILT_IN:
        yield f"its method comes from the package {package}, whose code is not here to be checked; hand in the method first"
    base, _ = names.split(run["protocol"])
    package = registry.package("protocol", base)
    if base.startswith("folder:"):
        yield "its stream is cut from a folder of one's own, which nobody else has"
    elif package and package != registry.BUILT_IN:
        yield f"its protocol comes from the package {package}, whose code is not here to be checked; hand in the protocol first"
    else:
        yield from _not_as_here(run)


def _not_as_here(run: MeasuredRun) -> Iterator[str]:
    try:
        protocol = names.find(run["protocol"])
    except BenchError as error:
        yield str(error)
        return
    if protocol.version != run["protocol_version"]:
        return  # of an earlier version: what that was is not known here
    for name, here in _as_here(protocol).items():
        if run[name] != here:
            yield f"column {name!r} holds {run[name]!r}, {run['protocol']} has {here!r}"


def _as_here(protocol: Protocol) -> dict[str, str]:
    return {
        "protocol": protocol.name,
        "scenario": protocol.kind,
        "templates": protocol.templates_digest(),
        "exemplars": protocol.exemplars,
    }
