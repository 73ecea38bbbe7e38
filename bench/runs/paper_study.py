"""The runs of a paper's table: its study file, with what the command line says before it.

An option may ask for less than the table (fewer methods, protocols, seeds, images) or for other conditions (backbone, weights,
stand-in images): then no verdict on the paper comes of it, and that is said. An option that asks for what the table does not
have is refused: the result would carry the name of a table that it is not.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError, unknown_name
from bench.results.paper_tables import Key, PaperTable, row_key
from bench.runs import request
from bench.runs.assignments import Assignment
from bench.runs.request import Request, Study
from bench.runs.run import Run
from bench.system import registry


@dataclass(frozen=True)
class PaperStudy:
    """What is going to be run for a table, and how it differs from what the table has."""

    study: Study
    whole: Study  # the table's own, without a word of the command line
    changed: frozenset[tuple[str, str]]  # (method, field) that the command line sets
    shortened: frozenset[tuple[str, str]]  # (method, field) that only shorten the training

    def key(self, run: Run) -> Key:
        """The row of the table that a run belongs to."""
        foreign = [field for method, field in self.changed | self.shortened if method == run.method]
        return row_key(run.protocol, run.method, run.overrides, foreign)


def read(table: PaperTable, asked: Mapping[str, Any], full_training: bool = False) -> PaperStudy:
    """The runs of the table; asked: the options that were given, by name.

    full_training: train on stand-in images, too, for as long as the paper does. Else methods train there as shortly as they can
    (their `quick`): no accuracy on such images means anything, and thousands of steps would only warm the room.
    """
    if table.cannot or "methods" not in table.text.partition("[paper]")[0]:
        return PaperStudy(Study((), {}), Study((), {}), frozenset(), frozenset())
    where = Path(table.name)
    whole = request.parse(table.text, where, {})
    _refuse_contradictions(table, whole.requests, asked)
    given = {name: value for name, value in asked.items() if name not in ("protocols", "methods")}
    if "backbone" in given:
        given.setdefault("pretrained", None)  # the table's weights are not those of another backbone
    synthetic = given.get("data") == "synthetic"
    given.setdefault("out", Path("results", "reproduce", table.name + ("-synthetic" if synthetic else "")))
    study = request.parse(table.text, where, given)
    parts = [part for one in study.requests if (part := _narrowed(one, asked))]
    changed = frozenset((one.method, one.field) for one in given.get("set", ()))
    taken = {(one.method, one.field) for part in whole.requests for one in _set(part)} | changed
    short = [] if full_training or not synthetic else list(_shortest(parts, taken))
    parts = [replace(part, set=part.set + tuple(one for one in short if one.method in part.methods)) for part in parts]
    return PaperStudy(replace(study, requests=tuple(parts)), whole, changed, frozenset((a.method, a.field) for a in short))


def keys(study: Study) -> list[Key]:
    """The rows of the table that the study has runs of, each once."""
    found: dict[Key, None] = {}
    for part in study.requests:
        for protocol in part.protocols:
            for method in part.methods:
                for point in _points(part, method):
                    found.setdefault(row_key(protocol, method, ";".join(point)))
    return list(found)


def _points(part: Request, method: str) -> list[list[str]]:
    """The hyper-parameters that the study file sets of a method, of each of its runs, as records name them."""
    points: list[dict[str, str]] = [{one.field: one.text for one in part.set if one.method == method}]
    for axis in part.grid:
        if axis[0].method == method:
            points = [point | {one.field: one.text} for point in points for one in axis]
    return [[f"{field}={text}" for field, text in sorted(point.items())] for point in points]


def _set(part: Request) -> Iterable[Assignment]:
    yield from part.set
    for axis in part.grid:
        yield from axis


def _narrowed(part: Request, asked: Mapping[str, Any]) -> Request | None:
    """What is left of a part of the study for the protocols and methods that were asked for."""
    protocols = tuple(name for name in part.protocols if name in (asked.get("protocols") or part.protocols))
    methods = tuple(name for name in part.methods if name in _methods(asked, part.methods))
    return replace(part, protocols=protocols, methods=methods) if protocols and methods else None


def _methods(asked: Mapping[str, Any], own: Sequence[str]) -> Sequence[str]:
    given = asked.get("methods")
    return own if not given or "all" in given else given


def _refuse_contradictions(table: PaperTable, parts: Sequence[Request], asked: Mapping[str, Any]) -> None:
    """Options that ask for something that the table does not have."""
    methods = list(dict.fromkeys(name for part in parts for name in part.methods))
    protocols = list(dict.fromkeys(name for part in parts for name in part.protocols))
    for what, given, own in (
        ("method", _methods(asked, methods), methods),
        ("protocol", asked.get("protocols") or protocols, protocols),
    ):
        if unknown := [name for name in given if name not in own]:
            raise unknown_name(f"{what} of {table.name}", unknown[0], own)
    orders = sorted({order for part in parts for order in part.order_seeds})
    if unknown := [order for order in asked.get("order_seeds", ()) if order not in orders]:
        known = ", ".join(map(str, orders))
        raise BenchError(f"--order-seeds {unknown[0]} contradicts {table.name}, which has order seeds {known}")
    if asked.get("ablate"):
        raise BenchError(f"--ablate contradicts {table.name}, whose runs are those of the paper; bench run has it")
    for one in asked.get("set", ()):
        if one.method not in methods:
            raise BenchError(f"{one.where}: {unknown_name(f'method of {table.name}', one.method, methods)}")
        if fixed := [its.text for part in parts for its in _set(part) if (its.method, its.field) == (one.method, one.field)]:
            raise BenchError(f"{one.where} contradicts {table.name}, which has it at {', '.join(dict.fromkeys(fixed))}")


def _shortest(parts: Sequence[Request], taken: Iterable[tuple[str, str]]) -> Iterable[Assignment]:
    """What makes the training of these methods as short as it can be; nothing that is set already."""
    for name in dict.fromkeys(method for part in parts for method in part.methods):
        method = registry.load("method", name)
        known = {field.name for field in dataclasses.fields(method.Settings)}
        for field, value in method.quick.items():
            if field in known and (name, field) not in taken:
                yield Assignment(name, field, _text(value), f"the shortest training of {name}: {field}")


def _text(value: Any) -> str:
    """A setting as it would stand on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
