"""What all figures share: colours, fonts, axes, and saving.

Nothing here touches pyplot, and nothing that is saved holds a date, so the same numbers give the same bytes. Text is
never read as mathematics: a method may be called `$x$`. The colours keep apart under the three kinds of colour blindness
(tests/bench/pictures/test_legible.py measures it); as a second cue every method has a marker of its own and its name
beside its line. From the eighth method on colours come again, with other markers and dashes.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

INK, MUTED, GRID = "#1f2328", "#757575", "#dcdfe3"
OTHERS = "#bcc0c4"  # methods that only stand behind the ones that matter
SERIES = ("#1496ff", "#600d3d", "#b38100", "#188362", "#f7558e", "#174789", "#864e00")
MARKERS = "osD^vPX"
WIDTH = 4.6  # inches: a column of a paper, and still readable when scaled down to a phone's width
WIDER = 6.4  # inches: for so many methods that they need the width of a page
METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(METADATA)


@dataclass(frozen=True)
class Style:
    """How one method looks in all pictures."""

    colour: str
    marker: str = ""  # none: a reference line
    dash: str = "-"
    filled: bool = True  # hollow markers are for methods that learned all tasks at once
    quiet: bool = False  # grey, thin, and behind the others, without a name of its own beside it

    @property
    def marks(self) -> dict[str, Any]:
        """As arguments of matplotlib's plot, which are of many types."""
        found: dict[str, Any] = {"color": self.colour, "marker": self.marker or "none", "linestyle": self.dash}
        if not self.filled:
            found |= {"markerfacecolor": "none", "markeredgewidth": 1.6}
        if self.quiet:
            found |= {"linewidth": 0.9, "markersize": 4, "markeredgewidth": 0.9}
        return found


REFERENCE = Style(MUTED, dash="--")


def styles(labels: Sequence[str], joint: Collection[str] = (), quiet: Collection[str] = ()) -> dict[str, Style]:
    """A style for each label; those in `joint` get hollow markers, those in `quiet` are grey."""
    found = {label: Style(OTHERS, "o", "-", label not in joint, quiet=True) for label in labels if label in quiet}
    for i, label in enumerate(label for label in labels if label not in quiet):
        lap, place = divmod(i, len(SERIES))
        found[label] = Style(
            SERIES[place], MARKERS[(place + 3 * lap) % len(MARKERS)], "-" if lap % 2 == 0 else ":", label not in joint
        )
    return found


@contextmanager
def look(salt: str, editable_text: bool = False) -> Iterator[None]:
    """Fonts and lines while figures are built and saved. salt: makes the ids in an SVG its own.

    editable_text: SVG text stays text, in the reader's own font, instead of becoming outlines.
    """
    try:
        import matplotlib
    except ImportError:
        raise BenchError("pictures need matplotlib: pip install matplotlib") from None
    settings: dict[RcKeyType, Any] = {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.5, "text.parse_math": False,
        "text.usetex": False, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED,
        "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": GRID, "grid.linewidth": 0.8, "axes.linewidth": 0.8, "xtick.major.width": 0.8, "ytick.major.width": 0.8,
        "lines.linewidth": 1.6, "lines.markersize": 5, "axes.unicode_minus": False,
        "svg.hashsalt": salt, "svg.fonttype": "none" if editable_text else "path", "pdf.fonttype": 42, "path.simplify": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def blank(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty figure of that many inches, and its axes; drawn by Agg whatever backend the user has chosen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def encode(figure: "Figure", format: str, transparent: bool = False) -> bytes:
    """A figure as PNG, SVG or PDF."""
    buffer = BytesIO()
    figure.savefig(buffer, format=format, dpi=200, transparent=transparent, metadata=METADATA[format])
    if format == "svg":  # the cells of a heat map touch: without this, viewers show a seam between them
        return re.sub(rb'(<g id="QuadMesh_\d+")', rb'\1 shape-rendering="crispEdges"', buffer.getvalue())
    return buffer.getvalue()


# -- axes -------------------------------------------------------------------------------------------------------

DURATIONS: dict[float, str] = {
    1e-3: "1 ms", 1e-2: "10 ms", 0.1: "0.1 s", 0.3: "0.3 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s",
    120: "2 min", 300: "5 min", 900: "15 min", 3600: "1 h", 10800: "3 h", 36000: "10 h",
    86400: "1 d", 259200: "3 d", 864000: "10 d",
}  # fmt: skip

SIZES: dict[float, str] = {
    1: "1 B", 10: "10 B", 100: "100 B", 1e3: "1 kB", 1e4: "10 kB", 1e5: "100 kB", 1e6: "1 MB", 1e7: "10 MB", 1e8: "100 MB",
    1e9: "1 GB", 1e10: "10 GB", 1e11: "100 GB", 1e12: "1 TB",
}  # fmt: skip


def show_percent(axis: "Axis") -> None:
    """Ticks at whole percentages."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def show_quantity(axes: "Axes", names: Mapping[float, str], low: float, high: float) -> None:
    """A logarithmic x axis from low to high, or as far as two ticks take, with ticks that a person reads (DURATIONS, SIZES)."""
    ticks = [tick for tick in names if low <= tick <= high]
    while len(ticks) < 2 and (low > min(names) or high < max(names)):
        low, high = low / 1.5, high * 1.5
        ticks = [tick for tick in names if low <= tick <= high]
    ticks = ticks[:: 1 + len(ticks) // 8]
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [names[tick] for tick in ticks])
    axes.set_xticks([], minor=True)
