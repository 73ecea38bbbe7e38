"""Lists and dictionaries of numbers inside the logs of Python programs, read as data: parsed, never executed."""

import ast
import re
from typing import Any

from bench.errors import BenchError

NUMPY_SCALAR = re.compile(r"np\.float\d+\(([^()]*)\)")


def display(text: str, kind: type, where: str) -> Any:
    """A list or dictionary display as data."""
    try:
        found = ast.literal_eval(NUMPY_SCALAR.sub(r"\1", text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, kind):
        raise BenchError(f"{where}: accuracies that cannot be read: {text[:60]}")
    return found


def number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise BenchError(f"{where}: {str(value)[:60]!r} where a number is expected") from None
