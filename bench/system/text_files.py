"""Text files that people hand in: read as editors of any system save them."""

import codecs
from pathlib import Path

from bench.errors import BenchError, one_line

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip


def read_text(path: Path, what: str) -> str:
    """The text of a file, UTF-8 or whatever its byte-order mark says, with the line ends of any system as "\\n".

    what: how the line of an error calls it, "not a study file that can be read" for instance.
    """
    try:
        return decoded(path.read_bytes())
    except (OSError, UnicodeError) as error:
        raise BenchError(f"{path}: {what} ({_why(error)})") from error


def decoded(data: bytes) -> str:
    """The text of these bytes.

    >>> decoded("\\ufeffa\\r\\nb".encode("utf-16-le")), decoded(b"\\xef\\xbb\\xbfa\\rb")
    ('a\\nb', 'a\\nb')
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text; save it with that encoding"
    return one_line(error)
