"""Hyper-parameters, as methods state them: no torch here, so that they can be read without it."""

import dataclasses
from typing import Any


def setting(
    default: Any, help: str, source: str = "", *, added_later: bool = False, names_file: bool = False, required: bool = False
) -> Any:
    """A hyper-parameter: its default, what it does (with its unit), and where the default comes from.

    source: without one, that of a built-in method is its authors' code, and of any other nothing is stated
    (bench/learning/stated.py). added_later: there were results before it, and its default is what they were computed with. At its
    default it is no part of a run's identity, so that these results stay valid. names_file: the value is the path of a file, or
    None; a run's identity has the digest of what is in it, and not where it lies (bench/system/named_files.py).
    required: the method cannot run where it is None, so that a plan says so before anything runs.
    """
    known = {"help": help, "source": source, "added_later": added_later, "names_file": names_file, "required": required}
    return dataclasses.field(default=default, metadata=known)


def wanting(settings: Any) -> list[str]:
    """The hyper-parameters that have no value although the method needs one."""
    fields = dataclasses.fields(settings)
    return [field.name for field in fields if field.metadata.get("required") and getattr(settings, field.name) is None]


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """For methods without hyper-parameters."""
