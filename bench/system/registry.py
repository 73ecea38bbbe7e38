"""Names -> methods, protocols, data sets and the like. Built-ins and third-party packages use the same door: entry points.

    [options.entry_points]
    bench.methods =
        nearest-mean = my_package.nearest_mean:NearestMean

Names are listed without importing anything; an object is imported when it is asked for by name. A plug-in that cannot
be imported is reported by name and breaks nothing else.

A method may also be given by its file (bench/system/method_files.py) or as a class of this process
(bench/system/method_classes.py). Such a text goes wherever the name of a method is asked for here; it is no name itself: that is
`name_of` it. And a data set may be given as a family of them names it, "folder:PATH".
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any

from bench.errors import BenchError, one_line, unknown_name
from bench.system import method_classes, method_files, method_source, outlines
from bench.system.code_places import with_place
from bench.system.method_classes import MethodClass
from bench.system.method_files import MethodFile
from bench.system.method_source import Source

KINDS = {
    "method": "bench.methods",
    "protocol": "bench.protocols",
    "protocol-family": "bench.protocol_families",
    "dataset": "bench.datasets",
    "dataset-family": "bench.dataset_families",
    "reference": "bench.references",
}
WORDS = {"dataset": "data set"}  # a kind as a sentence has it, where that is another word
BUILT_IN = "continual-clip-bench"


@dataclass(frozen=True)
class Entry:
    """A registered name, seen from outside: nothing of it has been imported."""

    name: str
    package: str  # the distribution that registers it
    target: str  # module:object
    summary: str
    broken: str  # why it cannot work, if that shows without importing it; else empty


_SOURCES: dict[str, Source | None] = {}  # of methods, when they were imported: their files may be edited while a process runs
_LOADED: dict[str, Any] = {}  # the classes of those that are not registered


@functools.cache
def _points(kind: str) -> dict[str, EntryPoint]:
    """Entry points by name; a built-in name cannot be taken over by another package."""
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=KINDS[kind]):
        if point.name not in points or _package(point) == BUILT_IN:
            points[point.name] = point
    return dict(sorted(points.items()))


def _package(point: EntryPoint) -> str:
    return _name_of(point.dist) if point.dist else "?"


@functools.cache
def _name_of(distribution: Distribution) -> str:
    return distribution.name  # reads its metadata each time


def names(kind: str) -> list[str]:
    """All registered names of a kind: "method", "protocol", "dataset", ..."""
    return list(_points(kind))


def knows(kind: str, name: str) -> bool:
    """Is it a registered name, or a method that is given otherwise?"""
    return name in names(kind) or (kind == "method" and own_method(name) is not None)


def own_method(given: str) -> MethodFile | MethodClass | None:
    """A method that is not registered, but given by its file or as a class; None for a name. BenchError for an unsound one."""
    return method_classes.find(given) or (None if given in _points("method") else method_files.find(given))


def name_of(given: str) -> str:
    """How results call a method: its registered name, or that of the class; BenchError where another one has that already."""
    own = own_method(given)
    if own is None:
        return given
    if own.name in _points("method"):
        raise BenchError(
            f"{own}: a method {own.name!r} is registered already, by {package('method', own.name)}; give the class another name, "
            f'as in name = "my-{own.name}"'
        )
    return own.name


def from_anywhere(given: str) -> str:
    """The text by which the same method is found from every working folder; a name as it is."""
    return str(own_method(given) or given)


def refuse_one_name_twice(methods: Iterable[str]) -> None:
    """Two methods that results would call by one name could not be told apart there."""
    of: dict[str, str] = {}
    for given in dict.fromkeys(map(from_anywhere, methods)):
        if of.setdefault(name_of(given), given) != given:
            name = name_of(given)
            raise BenchError(f"{of[name]} and {given} are both called {name!r}; give one of the classes another name")


def target(kind: str, name: str) -> str:
    """module:object of a registered name; empty if there is none."""
    point = _points(kind).get(name)
    return point.value if point else ""


def package(kind: str, name: str) -> str:
    """The distribution that registers a name; empty if there is none."""
    point = _points(kind).get(name)
    return _package(point) if point else ""


def place_of_method(given: str) -> str:
    """module:object of a method, however it is given; empty of one in a file that this process has not imported."""
    if own_method(given) is None:
        return target("method", given)
    loaded = _LOADED.get(given)
    return f"{loaded.__module__}:{loaded.__qualname__}" if loaded else ""


def source_of_method(name: str) -> Source | None:
    """The source that this process has imported for a method; None where it cannot be read."""
    imported = _SOURCES.get(name)
    now = _source_now(name, True) if imported else None
    return now if imported and now and now.text == imported.text else imported


def changes_since(name: str, since: Source) -> list[str]:
    """Where the source of a method differs now from what it was (bench/system/method_source.py)."""
    return method_source.changes_now(partial(_source_now, name), since)


def _source_now(name: str, syntax: bool) -> Source | None:
    own = own_method(name)
    return own.source(syntax) if own else method_source.of_object(target("method", name), syntax)


def entries(kind: str) -> list[Entry]:
    """All registered names with what can be known cheaply."""
    return [_inspect(point) for point in _points(kind).values()]


def load(kind: str, name: str) -> Any:
    """The object of that name."""
    points = _points(kind)
    if kind == "method" and (own := own_method(name)):
        return _load_own(name, own)
    if kind == "dataset" and name not in points and (found := of_a_family(name)):
        return found
    if name not in points:
        raise unknown_name(WORDS.get(kind, kind), name, points)
    point = points[name]
    try:
        found = point.load()
        if kind == "method" and name not in _SOURCES:
            _SOURCES[name] = method_source.of_object(point.value, syntax=False)
        return found
    except Exception as error:  # a plug-in may raise anything at import
        reason = one_line(error) if str(error).strip() else ""
        reason = with_place(reason, error, point.value)
        raise BenchError(f"{kind} {name!r} of package {_package(point)} is broken: {type(error).__name__}: {reason}") from error


def unknown_setting(method: str, field: str, known: Iterable[str]) -> BenchError:
    """An error for a hyper-parameter that a method does not have."""
    return unknown_name(f"hyper-parameter of {method}", field, known, f"bench show {method}" if method in names("method") else "")


def of_a_family(name: str) -> Any:
    """The data set that a family of them makes of a name; None if the name is of no family's form."""
    found = (load("dataset-family", family)(name) for family in names("dataset-family"))
    return next((one for one in found if one is not None), None)


def _load_own(given: str, own: MethodFile | MethodClass) -> Any:
    """A method that is not registered. A file that was edited is run again, so its source is noted again."""
    found = own.load()
    known = _SOURCES.get(given)
    if known is None or _LOADED.get(given) is not found:
        _SOURCES[given], _LOADED[given] = own.source(False), found
    return found


def load_all(kind: str) -> tuple[dict[str, Any], list[str]]:
    """Every object of a kind that can be imported, and one sentence for each that cannot."""
    loaded, broken = {}, []
    for name in names(kind):
        try:
            loaded[name] = load(kind, name)
        except BenchError as error:
            broken.append(str(error))
    return loaded, broken


def _inspect(point: EntryPoint) -> Entry:
    """Read the module's source for the object and its first docstring line, without running it."""
    summary, broken = "", ""
    try:
        spec = find_spec(point.module)
        if spec is None or not spec.origin:
            broken = f"no module named {point.module!r}"
        else:
            name = point.attr.split(".")[0]
            whole = _package(point) != BUILT_IN  # of somebody else's module, a mistake anywhere in it is to be seen
            summary, broken = outlines.of_object(spec.origin, name, point.module, whole)
    except Exception as error:  # the parent package may fail to import, or the source to parse
        broken = f"{type(error).__name__}: {one_line(error)}"
    return Entry(point.name, _package(point), point.value, summary, broken)
