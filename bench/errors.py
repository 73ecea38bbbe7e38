"""The one family of errors that a person at the terminal can act on."""

import contextlib
import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator

NO_CSV = "not a CSV file that can be parsed"
LONGEST = 300  # characters of somebody else's text in a line of ours
MOST_LISTED, MOST_UNLISTED = 12, 30  # names in an error, where a command lists them all and where none does
SHORTEST_PART = 3  # letters of a name that say something
LISTED_BY = {  # a kind of name -> the command that lists all of them
    "name": "bench list",
    "method": "bench list methods",
    "protocol": "bench list protocols",
    "data set": "bench list datasets",
    "backbone": "bench list backbones",
    "metric": "bench list metrics",
    "table": "bench list tables",
    "paper": "bench show published",
}


class BenchError(Exception):
    """Something the user can mend; the message is one line that says what to do (exit code 2)."""


class UnfitMethod(BenchError):
    """A method that cannot be run here (its tower, its memory, its reference data); the other methods can."""


class RunFailure(Exception):
    """One run cannot go on (for instance a loss that is not finite); the other runs do."""


def unknown_name(kind: str, name: str, known: Iterable[str], lister: str = "") -> BenchError:
    """An error that offers the closest existing names, and the command that lists all; the names themselves where they are few.

    lister: that command, of a kind that is not in LISTED_BY.

    >>> str(unknown_name("method", "Coup", ["coop", "cgil"]))
    "unknown method 'Coup'; did you mean coop? (bench list methods names them all)"
    >>> str(unknown_name("kind of picture", "pie", ["cost", "matrix"]))
    "unknown kind of picture 'pie'; known: cost, matrix"
    """
    names = sorted(known)
    lister = lister or LISTED_BY.get(kind, "")
    where = f" ({lister} names them all)" if lister else ""
    if close := closest(name, names):
        return BenchError(f"unknown {kind} {name!r}; did you mean {', '.join(close)}?{where}")
    most = MOST_LISTED if lister else MOST_UNLISTED
    if len(names) > most and lister:
        return BenchError(f"unknown {kind} {name!r}; {lister} names all {len(names)}")
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return BenchError(f"unknown {kind} {name!r}; known: {', '.join(names[:most]) or 'none'}{more}{where}")


def closest(name: str, known: Iterable[str], most: int = 5) -> list[str]:
    """The names that somebody may have meant: those that are written nearly so, then those that hold it; capitals do not count.

    >>> closest("order2", ["mtil-order1", "mtil-order2", "cars196"]), closest("CLAP", ["cgil", "clap"])
    (['mtil-order2'], ['clap'])
    """
    folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), folded, n=most, cutoff=0.6)
    holding = [one for one in folded if len(name) >= SHORTEST_PART and name.casefold() in one]
    return [folded[one] for one in dict.fromkeys([*near, *holding])][:most]


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
    if not text:
        try:
            text = str(error)
        except Exception:  # its own __str__ is broken
            text = ""
    text = printable(text) or type(error).__name__
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
