"""A promise of a contract: a function that tries one thing and returns a complaint, or "" when it is kept.

Its docstring is what it says to the user. The contracts are bench/checks/method.py for methods, bench/checks/dataset.py and
bench/checks/protocol.py.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.errors import one_line
from bench.system.code_places import with_place
from bench.system.progress import followed

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Result:
    """One promise, kept or broken."""

    name: str
    passed: bool
    detail: str = ""
    traceback: str = ""  # of the exception that it ended in


def tried(promise: Callable[[Subject], str], subject: Subject, target: str = "") -> Result:
    """The promise, tried on what should keep it; target: module:object, whose lines an exception is traced to."""
    name = (promise.__doc__ or promise.__name__).strip()
    try:
        complaint = promise(subject)
    except (Exception, SystemExit) as error:  # whatever a plug-in raises is a broken promise
        complaint = with_place(f"{type(error).__name__}: {one_line(error)}", error, target)
        return Result(name, False, complaint, "".join(traceback.format_exception(error)))
    return Result(name, not complaint, complaint)


def all_tried(promises: Sequence[Callable[[Subject], str]], subject: Subject, target: str) -> list[Result]:
    return [tried(promise, subject, target) for promise in followed(promises, "promises", len(promises))]


def wrong_templates(templates: tuple[str, ...]) -> list[str]:
    """The prompt templates that do not have one {} for the name of a class.

    >>> wrong_templates(("a photo of a {}.", "a photo", "{} beside {}"))
    ['a photo', '{} beside {}']
    """
    return [template for template in templates if template.count("{}") != 1]
