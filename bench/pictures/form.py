"""The form that somebody wants of their pictures: which methods, which of them stand out, how large, and under which title."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.errors import BenchError, printable, unknown_name
from bench.results.conditions import label
from bench.results.groups import MethodRuns
from bench.results.loaded import Results

Size = tuple[float, float]  # width and height in inches
SMALLEST, LARGEST = 1.0, 40.0  # inches: a thumbnail, a poster
NO_TITLE = "none"


@dataclass(frozen=True)
class Form:
    """The defaults change nothing."""

    methods: tuple[str, ...] | None = None
    highlight: tuple[str, ...] = ()
    size: Size | None = None
    title: str | None = None  # None: the picture's own; empty: none

    def chosen(self, found: Results) -> Results:
        """The results of the methods that are wanted. BenchError for a name that no method of them has."""
        runs = found.table.drop_duplicates("run_id").fillna({"overrides": ""})
        names = [{method, label(method, overrides)} for method, overrides in zip(runs["method"], runs["overrides"])]
        _refuse_unknown(self.methods or (), names)
        wanted = runs["run_id"] if self.methods is None else runs["run_id"][[bool(own & set(self.methods)) for own in names]]
        kept = found if self.methods is None else replace(found, table=found.table[found.table["run_id"].isin(wanted)])
        _refuse_unknown(self.highlight, [own for own, run_id in zip(names, runs["run_id"]) if run_id in set(wanted)])
        return kept

    def stands_out(self, own: MethodRuns) -> bool:
        """Is it to be drawn in colour? All are, where none is named."""
        return not self.highlight or bool({own.method, own.label} & set(self.highlight))


def _refuse_unknown(asked: Sequence[str], names: Iterable[set[str]]) -> None:
    known = set().union(*names)
    for name in asked:
        if name not in known:
            raise unknown_name("method of these results", name, known)


def read_size(text: str) -> Size:
    """
    >>> read_size("3.3x2.5")
    (3.3, 2.5)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*[x×]\s*(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        raise BenchError(f"--size {printable(text)!r}: width and height in inches are wanted, for instance 3.3x2.5")
    width, height = float(match[1]), float(match[2])
    if not all(math.isfinite(side) and SMALLEST <= side <= LARGEST for side in (width, height)):
        raise BenchError(f"--size {text.strip()}: a side is {SMALLEST:g} to {LARGEST:g} inches long")
    return width, height


def read_title(text: str) -> str:
    """A title in one line; the word "none" is none at all.

    >>> read_title("none"), read_title(" Last accuracy ")
    ('', 'Last accuracy')
    """
    title = text.strip()
    if not title or printable(title) != title:
        raise BenchError(f"--title: a text in one line is wanted, or {NO_TITLE!r}")
    return "" if title == NO_TITLE else title
