"""Values of hyper-parameters as people write them: texts of a command line and values of a TOML file, checked against a type."""

import math
import types
import typing
from typing import Any

from bench.errors import BenchError, printable


def converted(text: str, kind: Any, where: str) -> Any:
    """The text as a value of the field's type."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if text.lower() == "none":
            return None
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        if text in typing.get_args(kind):
            return text
        raise BenchError(f"{where}: choose one of {', '.join(map(str, typing.get_args(kind)))}")
    if typing.get_origin(kind) is tuple and typing.get_args(kind) in ((int, ...), (float, ...)):
        return tuple(converted(part, typing.get_args(kind)[0], where) for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise BenchError(f"{where}: true or false is wanted, not {text!r}")
    if kind in (int, float, str):
        if kind is str and printable(text) != text:
            raise BenchError(f"{where}: a text in one line, without control characters, is wanted")
        try:
            value = kind(text)
            if kind is float and not math.isfinite(value):
                raise ValueError
            return value
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise BenchError(f"{where}: {wanted} is wanted, not {text!r}") from None
    raise BenchError(f"{where}: this hyper-parameter cannot be set from the command line or a study file")


def as_text(value: Any, where: str) -> str:
    """A TOML value as it would stand on the command line.

    >>> as_text(True, ""), as_text([4, 8], ""), as_text(1e-05, "")
    ('true', '4,8', '1e-05')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | str):
        return str(value)
    if isinstance(value, list | tuple) and all(type(one) in (int, float) for one in value):
        return ",".join(map(str, value))
    raise BenchError(f"{where}: a number, a text, true, false or a list of numbers is wanted")


def from_toml(value: Any, kind: Any, where: str) -> Any:
    """A TOML value as one of the field's type; a number in quotes is none, for a file is written once and read for years."""
    found = converted(as_text(value, where), kind, where)
    if isinstance(value, str) and not (found is None or isinstance(found, str)):
        raise BenchError(f"{where}: {value!r} stands in quotes, a value without them is wanted")
    if isinstance(found, tuple) and not isinstance(value, list | tuple):
        raise BenchError(f"{where}: a list of numbers is wanted, not {value!r}")
    return found
