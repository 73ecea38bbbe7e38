"""Hyper-parameters that name a file of the user's: what is in the file is part of a run's identity, and not where it lies.

In the settings of a run such a value is {"path": ..., "sha256": ...}, so that another process finds the file, and sees when it
is no longer the one that was planned with. In its identity it is the digest alone, "sha256:...": a run is found again after
the file was moved, and is another one after it was edited. In records and tables it is the path as it was given, with the
start of the digest, as files of weights have it.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line
from bench.system.files import file_digest

PREFIX = "sha256:"


def fields_of(settings: Any) -> set[str]:
    """The names of the hyper-parameters of this class (or object) that name files."""
    return {field.name for field in dataclasses.fields(settings) if field.metadata.get("names_file")}


def with_digest(field: str, path: str) -> dict[str, str]:
    """The value in a run's settings; BenchError for a file that cannot be read."""
    place = Path(path).absolute()
    try:
        return {"path": str(place), "sha256": file_digest(place)}
    except OSError as error:
        raise BenchError(f"{field}={path}: no file that can be read ({one_line(error)})") from error


def is_file(value: Any) -> bool:
    """Is it a value that `with_digest` has made?"""
    return isinstance(value, Mapping) and set(value) == {"path", "sha256"}


def is_digest(value: Any) -> bool:
    """Is it a value that `by_content` has made?"""
    return isinstance(value, str) and value.startswith(PREFIX)


def path_of(value: Any) -> Any:
    """The value as the settings class takes it."""
    return value["path"] if is_file(value) else value


def by_content(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run as its identity has them."""
    return {name: PREFIX + value["sha256"] if is_file(value) else value for name, value in settings.items()}


def in_records(given: Any, value: Any) -> str:
    """A changed value as records have it.

    >>> in_records("words.json", {"path": "/home/words.json", "sha256": "0123456789abcdef"}), in_records(3, 3)
    ('words.json@01234567', '3')
    """
    return f"{given}@{value['sha256'][:8]}" if is_file(value) else str(given)


def as_given(text: str) -> str:
    """The path in what `in_records` has made.

    >>> as_given("words.json@01234567")
    'words.json'
    """
    return re.sub(r"@[0-9a-f]{8}$", "", text)
