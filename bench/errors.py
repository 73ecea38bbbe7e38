"""The one family of errors that a person at the terminal can act on."""

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Something the user can mend; the message is one line that says what to do (exit code 2)."""


class UnfitMethod(BenchError):
    """A method that cannot be run here (its tower, its memory, its reference data); the other methods can."""


class RunFailure(Exception):
    """One run cannot go on (for instance a loss that is not finite); the other runs do."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """An error that offers the closest existing names, or all of them when none is close.

    >>> str(unknown_name("method", "coup", ["coop", "cgil"]))
    "unknown method 'coup'; did you mean coop?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return BenchError(f"unknown {kind} {name!r}; did you mean {', '.join(close)}?")
    return BenchError(f"unknown {kind} {name!r}; known: {', '.join(known) or 'none'}")
