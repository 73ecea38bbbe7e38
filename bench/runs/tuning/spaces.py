"""What a search tries: a method's own search space, or the one of a file.

    [coop]
    learning_rate = {low = 0.0001, high = 0.1, log = true}
    epochs = {low = 1, high = 20}
    context_length = {choices = [4, 8, 16]}
"""

import dataclasses
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line, unknown_name
from bench.learning import recipes
from bench.learning.setting_values import as_text, converted, from_toml
from bench.learning.settings import Search, from_plain, search_space, to_plain
from bench.system import named_files, registry
from bench.system.text_files import read_text

BUILT_IN = "built-in"
WHAT = "not a search file that can be read"


def read(path: Path) -> dict[str, dict[str, tuple[Any, str]]]:
    """Method -> hyper-parameter -> (plain form, where it stands)."""
    try:
        tables = tomllib.loads(read_text(path, WHAT))
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: {WHAT} ({one_line(error)})") from error
    if not tables:
        raise BenchError(f"{path}: no search space is in it; see bench tune --help")
    found: dict[str, dict[str, tuple[Any, str]]] = {}
    for method, fields in tables.items():
        if method not in registry.names("method"):
            raise BenchError(f"{path}: {unknown_name('method', method, registry.names('method'))}")
        if not isinstance(fields, dict) or not fields:
            raise BenchError(f"{path}: {method}: a table [{method}] of hyper-parameters is wanted")
        found[method] = {}
        for field, plain in fields.items():
            where = f"{path}: {method}.{field}"
            _form(plain, where)
            found[method][field] = plain, where
    return found


def _form(plain: Any, where: str) -> Search:
    try:
        return from_plain(plain)
    except (ValueError, TypeError) as error:
        raise BenchError(f"{where}: {one_line(error)}") from error


def checked(method: str, settings: type, given: Iterable[Sequence[str]]) -> dict[str, Any]:
    """What a file gives for a method, as plain data: hyper-parameters that it has, values of their types."""
    found = {field: (_form(json.loads(text), where), where) for field, text, where in given}
    _refuse_unsound(method, settings, found)
    return {field: to_plain(search) for field, (search, _) in found.items()}


def sound_space(method: str, settings: type) -> dict[str, Any]:
    """The method's own search space, as plain data."""
    found = {field: (search, f"search space of {method}: {field}") for field, search in search_space(settings).items()}
    _refuse_unsound(method, settings, found)
    return {field: to_plain(search) for field, (search, _) in found.items()}


def _refuse_unsound(method: str, settings: type, found: Mapping[str, tuple[Search, str]]) -> None:
    hints = typing.get_type_hints(settings)
    for field, (search, where) in found.items():
        if field not in hints:
            raise BenchError(f"{where}: {registry.unknown_setting(method, field, hints)}")
        if field in named_files.fields_of(settings):
            raise BenchError(f"{where}: a file cannot be searched for")
        for value in search.ends():
            made = converted(as_text(value, where), hints[field], where)
            if isinstance(value, str) and not isinstance(made, str | None):
                raise BenchError(f"{where}: {value!r} stands in quotes, a value without them is wanted")


def to_write(method: Any, settings: Any, protocol: str, changed: Iterable[str]) -> list[str]:
    """The hyper-parameters that a recipe has to hold so that it gives these settings wherever the method's own recipes change:
    those that are not at their default, and those of which a recipe speaks. One that no file can hold is the method's to say.
    """
    hints = typing.get_type_hints(type(settings))
    spoken_of = {field for pattern, recipe in method.recipes.items() if recipes.fits(protocol, pattern) for field in recipe}
    spoken_of |= set(recipes.shipped_settings(method, method.Settings, protocol)) | set(changed)
    found = []
    for one in dataclasses.fields(settings):
        value = getattr(settings, one.name)
        if (one.name in spoken_of or value != one.default) and _can_be_written(value, hints[one.name]):
            if one.metadata.get("names_file"):
                if one.name in changed:
                    raise BenchError(f"{one.name}: a recipe cannot hold a file; tune without --set of it")
                continue
            found.append(one.name)
    return found


def _can_be_written(value: Any, kind: Any) -> bool:
    plain = list(value) if isinstance(value, tuple) else "none" if value is None else value
    try:
        return from_toml(plain, kind, "") == value
    except BenchError:
        return False
