"""How a method looks on the page: the colour, dash and marker that it has in all pictures, as CSS and SVG."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.pictures import plots
from bench.pictures.style import SERIES, Style
from bench.results.groups import Group

MUTED = "var(--muted)"
DASHES = {"--": "5 4", ":": "1.5 3.5", "-.": "6 3 1.5 3"}
CIRCLE = "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"
MARKERS = {  # as matplotlib calls them -> the outline around 0, 0
    "o": CIRCLE,
    "s": "M-3.6 -3.6h7.2v7.2h-7.2z",
    "D": "M0 -5l5 5l-5 5l-5 -5z",
    "^": "M0 -4.8l4.6 8.4h-9.2z",
    "v": "M0 4.8l4.6 -8.4h-9.2z",
    "P": "M-1.6 -4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
    "X": "M0 -2l2.4 -2.6l2.4 2.4l-2.6 2.2l2.6 2.2l-2.4 2.4l-2.4 -2.6l-2.4 2.6l-2.4 -2.4l2.6 -2.2l-2.6 -2.2l2.4 -2.4z",
}


@dataclass(frozen=True)
class Look:
    """Of one method. A reference has no marker; a method that learned all tasks at once is hollow."""

    colour: str
    dash: str = ""
    marker: str = CIRCLE
    hollow: bool = False


def looks(groups: Iterable[Group]) -> dict[str, Look]:
    """Label of a method -> how it looks, as `bench plot` draws it."""
    return {label: _look(style) for label, style in plots.method_styles(groups).items()}


def _look(style: Style) -> Look:
    """
    >>> _look(Style(SERIES[1], "s", ":", filled=False))
    Look(colour='var(--series-2)', dash='1.5 3.5', marker='M-3.6 -3.6h7.2v7.2h-7.2z', hollow=True)
    """
    colour = f"var(--series-{SERIES.index(style.colour) + 1})" if style.colour in SERIES else MUTED
    marker = MARKERS.get(style.marker, CIRCLE) if style.marker else ""
    return Look(colour, DASHES.get(style.dash, ""), marker, not style.filled)
