"""Numbers as people and programs write them into tables: 71.4, 71,4, 71.4 %, **71.4**, 71.4 ± 0.3, \\textbf{71.4}, a dash."""

import re

MISSING = ("", "-", "--", "---", "–", "—", ".", "nan", "none", "null", "n/a", "na", "n.a.", "#n/a", "#div/0!", "nil", "?")  # noqa: RUF001
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?|[+-]?inf(?:inity)?")
_DECIMAL_COMMA = re.compile(r"([+-]?[0-9]*),([0-9]+)")
_SPREAD = re.compile(
    r"\s*(?:±|\+/-|\+-|\\pm\b)\s*[0-9.,]+\s*%?\s*$|\s*\(\s*(?:±|\+/-|\\pm\b)?\s*[0-9.,]+\s*%?\s*\)$|\s*\(n=\d+\)$"
)
_BLANK = re.compile("[\u00a0\u202f\u2009\ufeff]|&nbsp;|&emsp;")
_TAG = re.compile(r"</?(?:b|i|u|em|strong|sub|sup|span|br)\b[^<>]*>", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:textbf|textit|textrm|textsc|underline|emph|mathbf|bm|mathrm|text|bf|it)\b\s*")
_MARKS = re.compile(r"^(?:\*\*|__|\*|`)+|(?:\*\*|__|\*|`|[†‡§↑↓])+$")


def plain(cell: str) -> str:
    """A cell without what only makes it bold, underlined or mathematical.

    >>> plain("**71.4**"), plain("<u>71.4</u>"), plain(r"\\textbf{71.4}"), plain(r"$71.4$"), plain(r"after task\\_1")
    ('71.4', '71.4', '71.4', '71.4', 'after task_1')
    """
    text = _BLANK.sub(" ", cell).strip()
    if "<" in text:
        text = _TAG.sub("", text)
    if "\\" in text or "$" in text or "{" in text:
        text = _LATEX.sub("", text.replace("$", "").replace("\\pm", "±")).replace("{", "").replace("}", "")
        text = re.sub(r"\\([^\w\s])", r"\1", text.replace("\\_", "_"))
    return _MARKS.sub("", text.strip()).strip()


def without_spread(cell: str) -> str:
    """The mean in front of a standard deviation, or the cell as it is.

    >>> without_spread("71.4 ± 0.3"), without_spread("71.4 (±0.3)"), without_spread("A (2)")
    ('71.4', '71.4', 'A (2)')
    """
    bare = _SPREAD.sub("", _SPREAD.sub("", cell)).strip()
    return bare if bare != cell and bare[:1] and bare[0] in "0123456789.+-−" else cell  # noqa: RUF001


def percent_sign(cell: str) -> bool:
    return without_spread(cell).rstrip().endswith("%") or cell.rstrip().endswith("%")


def number(cell: str) -> float | None:
    """The number that a cell holds; None if it holds something else. Never evaluated.

    >>> number("71.4"), number("71,4"), number("71.4 %"), number("-3"), number("71.4 ± 0.3"), number("1_0"), number("t1")
    (71.4, 71.4, 71.4, -3.0, 71.4, None, None)
    """
    text = without_spread(cell).rstrip().removesuffix("%").rstrip().replace("−", "-").lower()  # noqa: RUF001
    comma = _DECIMAL_COMMA.fullmatch(text)
    if comma:
        text = f"{comma[1]}.{comma[2]}"
    return float(text) if _NUMBER.fullmatch(text) else None


def is_number(cell: str) -> bool:
    return number(cell) is not None


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def decimals(cell: str) -> int:
    """Digits behind the point, which say how far a printed number may be from the exact one.

    >>> decimals("71.42"), decimals("71,4 %"), decimals("71")
    (2, 1, 0)
    """
    found = re.search(r"[.,]([0-9]+)", without_spread(cell))
    return len(found[1]) if found else 0
