"""JSON files that users hand to a method: descriptions or concepts of classes. What is wrong with one is said in one line.

The name of such a file is a setting with `names_file=True`, so that its content is part of a run's identity.
"""

import json
from pathlib import Path
from typing import Any

from bench import BenchError, one_line

Texts = tuple[str, ...]


def read_object(path: str, what: str) -> dict[str, Any]:
    """The JSON object in a file; BenchError if it is not there, not UTF-8, not JSON, not an object or has a key twice."""
    try:
        found = json.loads(Path(path).read_bytes().decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except OSError as error:
        raise BenchError(f"{path}: {what} that cannot be read ({one_line(error)})") from error
    except UnicodeError as error:
        raise BenchError(f"{path}: {what} that are not UTF-8 text; save the file with that encoding") from error
    except json.JSONDecodeError as error:
        raise BenchError(f"{path}: {what} that are not JSON (line {error.lineno}: {error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: {what} that cannot be used ({error})") from error
    if not isinstance(found, dict):
        raise BenchError(f"{path}: {what} are wanted as one JSON object with a key for each class")
    return found


def sentences(value: Any, where: str) -> Texts:
    """A list of sentences; BenchError, which names the place, if it is anything else or a sentence is empty."""
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise BenchError(f"{where}: a list of sentences is wanted")
    return tuple(" ".join(text.split()) for text in value)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a later key replace an equal one without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found
