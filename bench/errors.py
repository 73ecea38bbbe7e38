"""The one family of errors that a person at the terminal can act on."""

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator

NO_CSV = "not a CSV file that can be parsed"
LONGEST = 300  # characters of somebody else's text in a line of ours


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


def printable(text: str) -> str:
    """A text as one line that a terminal can show: no control characters, no escape sequences, one space between words.

    >>> printable("no \\x1b[31mred\\x1b[0m\\n\\tlight\\x00\\x07")
    'no red light'
    """
    text = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?", "", text)
    shown = (" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter for letter in text)
    return " ".join("".join(letter for letter in shown if unicodedata.category(letter) not in ("Cf", "Cs", "Co", "Cn")).split())


def one_line(error: BaseException | str) -> str:
    """What an error of somebody else's code says, for use inside a line of ours; its class where it says nothing.

    >>> one_line(ValueError("first\\n  second")), one_line(ValueError()), len(one_line("x" * 1000))
    ('first second', 'ValueError', 300)
    """
    text = getattr(error, "strerror", None) if isinstance(error, OSError) else None
    text = printable(text or str(error)) or type(error).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


@contextlib.contextmanager
def reading(
    where: object,
    what: str = "cannot be read",
    errors: tuple[type[Exception], ...] = (OSError, UnicodeDecodeError),
    advice: str = "",
) -> Iterator[None]:
    """While a file of the user's is read: what its bytes make fail becomes one line, "WHERE: WHAT (the reason); ADVICE".

    errors: what such a file can make fail. Anything else is a mistake of ours, and stays what it is.

    >>> with reading("notes.csv"):
    ...     raise FileNotFoundError(2, "No such file or directory")
    Traceback (most recent call last):
    bench.errors.BenchError: notes.csv: cannot be read (No such file or directory)
    """
    try:
        yield
    except errors as error:
        raise BenchError(f"{where}: {what} ({one_line(error)})" + (f"; {advice}" if advice else "")) from error


def first_line(error: BaseException) -> str:
    """The same of the first line alone: what a library says below it is advice about the library."""
    lines = str(error).strip().splitlines()
    return one_line(lines[0] if lines else error)
