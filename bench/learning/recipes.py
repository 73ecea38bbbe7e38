"""Recipes as data: the settings that a method is run with on a protocol, in TOML files that people hand on.

    [[recipe]]
    method = "coop"
    method_version = "1"
    protocol = "mini60-6x10"       # a pattern; of a stream with +validation or +tasks the stream itself counts

    [recipe.settings]
    learning_rate = 0.012

    [recipe.tuned]                 # how it was found: bench tune writes this, and nothing is computed from it

`bench run --recipe FILE` reads such a file, and methods/recipes/ holds those that ship with the package. What is feared is a
setting that is dropped, or taken for another one: every key has to be known, every value of the setting's own type. Nothing
here needs torch; types are checked when a class is there.
"""

import functools
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line, unknown_name
from bench.learning.setting_values import as_text, from_toml
from bench.system import registry
from bench.system.text_files import read_text

SHIPPED = Path(__file__).parents[2] / "methods" / "recipes"
WHAT = "not a recipe that can be read"
TEXTS = ("method", "method_version", "protocol")
TABLES = ("settings", "tuned")


@dataclass(frozen=True)
class Recipe:
    """One method's settings on the protocols of a pattern, as the file has them."""

    where: str  # file and method, for messages
    method: str
    method_version: str  # "": the file does not say
    protocol: str
    settings: Mapping[str, Any]
    tuned: Mapping[str, Any]  # how it was found; empty: nothing is said

    def fits(self, method: str, protocol: str) -> bool:
        return self.method == method and fits(protocol, self.protocol)


def fits(protocol: str, pattern: str) -> bool:
    """Is this pattern meant for this protocol? A recipe for a stream is one for its validation part and its first tasks, too.

    >>> fits("mini60-6x10+tasks=3+validation=20%", "mini60-6x10"), fits("mini60-6x10+exemplars=20-total", "mini60-6x10")
    (True, False)
    """
    from bench.streams import names  # they import numpy, which what is only listed can do without

    return fnmatchcase(protocol, pattern) or fnmatchcase(names.as_published(protocol), pattern)


def chosen(recipes: Iterable[Recipe], method: str, protocol: str) -> dict[str, tuple[Any, str]]:
    """What they say for a method on a protocol: field -> (value, where it stands); later ones win."""
    found: dict[str, tuple[Any, str]] = {}
    for recipe in recipes:
        if recipe.fits(method, protocol):
            found |= {field: (value, f"{recipe.where}: {field}") for field, value in recipe.settings.items()}
    return found


def read(path: Path) -> tuple[Recipe, ...]:
    """The recipes of a file; BenchError with one line for whatever is not sound."""
    try:
        tables = tomllib.loads(read_text(path, WHAT))
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: {WHAT} ({one_line(error)})") from error
    if unknown := set(tables) - {"recipe"}:
        raise BenchError(f"{path}: {unknown_name('key', min(unknown), ['recipe'])}")
    parts = tables.get("recipe", [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BenchError(f"{path}: recipe: tables [[recipe]] are wanted")
    found = tuple(_recipe(part, path) for part in parts)
    for place, one in enumerate(found):
        if any((other.method, other.protocol) == (one.method, one.protocol) for other in found[:place]):
            raise BenchError(f"{one.where}: it stands there twice for {one.protocol}")
    return found


def _recipe(part: Mapping[str, Any], path: Path) -> Recipe:
    for key in part:
        if key not in TEXTS + TABLES:
            raise BenchError(f"{path}: {unknown_name('key', key, TEXTS + TABLES)}")
    for key in TEXTS:
        if not isinstance(part.get(key, "" if key == "method_version" else None), str):
            raise BenchError(f"{path}: {key}: a text in quotes is wanted")
    method, settings, tuned = part["method"], part.get("settings"), part.get("tuned", {})
    if method not in registry.names("method"):
        raise BenchError(f"{path}: {unknown_name('method', method, registry.names('method'))}")
    if not part["protocol"]:
        raise BenchError(f"{path}: protocol: the name of a protocol, or a pattern, is wanted")
    where = f"{path}: {method}"
    if not isinstance(settings, dict) or not isinstance(tuned, dict):
        raise BenchError(f"{where}: a table [recipe.settings] is wanted, and [recipe.tuned] is one if it is there")
    for field, value in settings.items():
        as_text(value, f"{where}: {field}")
    return Recipe(where, method, part.get("method_version", ""), part["protocol"], settings, tuned)


def typed(values: Mapping[str, tuple[Any, str]], method: str, settings: type) -> dict[str, Any]:
    """Field -> (value, where) as values of the fields' own types; BenchError for a field that there is not."""
    hints = typing.get_type_hints(settings) if values else {}
    for field, (_, where) in values.items():
        if field not in hints:
            raise BenchError(f"{where}: {registry.unknown_setting(method, field, hints)}")
    return {field: from_toml(value, hints[field], where) for field, (value, where) in values.items()}


# -- those that ship --------------------------------------------------------------------------------------------


@functools.cache
def shipped() -> Sequence[Recipe]:
    """The recipes of methods/recipes/: of methods that come with the package, each tuned on validation."""
    return [recipe for path in sorted(SHIPPED.glob("*.toml")) for recipe in read(path)]


def shipped_of(method: str) -> list[Recipe]:
    """Those of one method; none of a plug-in, even if it has taken over a name."""
    built_in = registry.package("method", method) == registry.BUILT_IN
    return [recipe for recipe in shipped() if recipe.method == method] if built_in else []


def shipped_settings(kind: type, settings: type, protocol: str) -> dict[str, Any]:
    """What they say for the method that is this class, on a protocol. A class that extends a built-in one is another method."""
    if not shipped():
        return {}
    target = f"{kind.__module__}:{kind.__qualname__}"
    own = [name for name in registry.names("method") if registry.target("method", name) == target]
    return {field: value for name in own for field, value in
            typed(chosen(shipped_of(name), name, protocol), name, settings).items()}  # fmt: skip


# -- writing ----------------------------------------------------------------------------------------------------


def to_toml(recipes: Iterable[tuple[Mapping[str, Any], str]]) -> str:
    """The text of a file with these recipes: (the table of each, a comment above it)."""
    return "\n".join(_written(table, comment) for table, comment in recipes)


def _written(table: Mapping[str, Any], comment: str) -> str:
    lines = [f"# {line}" for line in comment.splitlines()] + ["[[recipe]]"]
    lines += [f"{key} = {_value(table[key])}" for key in TEXTS]
    for name in TABLES:
        lines += ["", f"[recipe.{name}]", *(f"{key} = {_value(value)}" for key, value in table[name].items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """
    >>> _value('a "b"'), _value([1, 2.5]), _value(True), _value(None), _value(1e-05)
    ('"a \\\\"b\\\\""', '[1, 2.5]', 'true', '"none"', '1e-05')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _quoted("none" if value is None else str(value))


def _quoted(text: str) -> str:
    """As a basic string of TOML, in which quotes, backslashes and control characters are escaped."""
    escaped = (rf"\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else rf"\{c}" if c in '"\\' else c for c in text)
    return '"' + "".join(escaped) + '"'


def joined(paths: Iterable[Path]) -> str:
    """The text of one file with the recipes of several."""
    return "\n".join(path.read_text(encoding="utf-8") for path in paths if read(path))
