"""What all figures share: colours, fonts, axes, labels that do not overlap, and saving.

Nothing here touches pyplot, and nothing that is saved holds a date, so the same numbers give the same bytes. Text is
never read as mathematics: a method may be called `$x$`. The colours keep apart under the three common kinds of colour
blindness; as a second cue every method has a marker of its own and its name beside its line.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.typing import RcKeyType

INK, MUTED, GRID = "#1f2328", "#757575", "#dcdfe3"
SERIES = ("#0072b2", "#c8480a", "#009e73", "#c659a4", "#bd8b00", "#4b2a85", "#6b1f2e")
MARKERS = "osD^vPX"
WIDTH = 4.6  # inches: a column of a paper, and still readable when scaled down to a phone's width
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

    @property
    def marks(self) -> dict[str, Any]:
        """As arguments of matplotlib's plot, which are of many types."""
        found: dict[str, Any] = {"color": self.colour, "marker": self.marker or "none", "linestyle": self.dash}
        if not self.filled:
            found |= {"markerfacecolor": "none", "markeredgewidth": 1.6}
        return found


REFERENCE = Style(MUTED, dash="--")


def styles(labels: Sequence[str], joint: Collection[str] = ()) -> dict[str, Style]:
    """A style for each label; those in `joint` get hollow markers."""
    found = {}
    for i, label in enumerate(labels):
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


def blank(height: float, width: float = WIDTH) -> "tuple[Figure, Axes]":
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

DURATIONS = {
    1e-3: "1 ms", 1e-2: "10 ms", 0.1: "0.1 s", 0.3: "0.3 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s",
    120: "2 min", 300: "5 min", 900: "15 min", 3600: "1 h", 10800: "3 h", 36000: "10 h",
    86400: "1 d", 259200: "3 d", 864000: "10 d",
}  # fmt: skip


def show_percent(axis: "Axis") -> None:
    """Ticks at whole percentages."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def show_duration(axis: "Axis", low: float, high: float) -> None:
    """Ticks that a person reads as time, on an axis from low to high seconds."""
    ticks = [tick for tick in DURATIONS if low <= tick <= high]
    ticks = ticks[:: 1 + len(ticks) // 8]
    axis.set_ticks(ticks, [DURATIONS[tick] for tick in ticks])
    axis.set_ticks([], minor=True)


# -- labels -----------------------------------------------------------------------------------------------------


def spread_out(wanted: Sequence[float], heights: Sequence[float], room: float) -> list[float]:
    """Centres between 0 and `room`, as near to the wanted ones as is possible without overlap (least squares).

    >>> spread_out([2.0, 10.0, 10.0], [2.0, 2.0, 2.0], room=20.0), spread_out([5.0, 5.0], [2.0, 2.0], room=5.0)
    ([2.0, 9.0, 11.0], [2.0, 4.0])
    """
    order = np.argsort(wanted, kind="stable")
    size = np.asarray(heights, dtype=float)[order]
    offset = np.concatenate([[0.0], np.cumsum((size[1:] + size[:-1]) / 2)])  # of each centre when all touch
    blocks: list[tuple[float, int]] = []  # (mean, members): neighbours that would overlap move together
    for target in np.asarray(wanted, dtype=float)[order] - offset:
        mean, members = target, 1
        while blocks and blocks[-1][0] > mean:
            other, others = blocks.pop()
            mean, members = (other * others + mean * members) / (others + members), others + members
        blocks.append((mean, members))
    first = np.repeat([mean for mean, _ in blocks], [members for _, members in blocks])
    lowest, highest = size[0] / 2, room - size[-1] / 2 - offset[-1]
    centres = np.empty(len(size))
    centres[order] = offset + (np.clip(first, lowest, highest) if lowest < highest else first)
    return centres.tolist()


def label_ends(figure: "Figure", axes: "Axes", ends: Sequence[tuple[float, float, str, Style]]) -> None:
    """A text with the line's marker right of the axes for each line's end (x, y, text, style), joined to it by a thin line."""
    figure.draw_without_rendering()  # so that the height of the axes is known
    height = axes.get_window_extent().height * 72 / figure.dpi  # points
    low, high = axes.get_ylim()
    wanted = [(y - low) / (high - low) * height for _, y, _, _ in ends]
    centres = spread_out(wanted, [12.5 * (1 + text.count("\n")) for _, _, text, _ in ends], height)
    for (x, y, text, style), centre in zip(ends, centres):
        place = centre / height
        line = {"arrowstyle": "-", "color": style.colour, "linewidth": 1, "shrinkA": 0, "shrinkB": 2}
        axes.annotate("", (x, y), (1.065, place), textcoords=axes.transAxes, annotation_clip=False, arrowprops=line)
        handle = [1.045, 1.085] if style == REFERENCE else [1.065]
        axes.plot(handle, [place] * len(handle), transform=axes.transAxes, clip_on=False, **style.marks)
        axes.text(
            1.1, place, text, transform=axes.transAxes, va="center", linespacing=1.0, color=MUTED if style == REFERENCE else INK
        )


# of a label beside its point: (x, y) in points; the nearest first
PLACES = sorted(((x, y) for x in (9, -9, 22, -22) for y in range(-40, 41, 8)), key=lambda place: place[0] ** 2 + place[1] ** 2)


def label_points(figure: "Figure", axes: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    """The text of each point (x, y, text) beside it, where it covers no other point and no other text, if there is room."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    inside, around = axes.get_window_extent(), 6 * figure.dpi / 72
    taken = [
        Bbox([[x - around, y - around], [x + around, y + around]]) for x, y in axes.transData.transform([p[:2] for p in points])
    ]
    taken += [text.get_window_extent() for text in axes.texts]
    for i, point in enumerate(points):
        for place in PLACES:
            note = _write_beside(axes, point, place)
            box = note.get_window_extent()
            clear = not any(box.overlaps(other) for j, other in enumerate(taken) if j != i)
            if clear and inside.containsx(box.x0) and inside.containsx(box.x1):
                break
            note.remove()
        else:
            note = _write_beside(axes, point, PLACES[0])
        taken.append(note.get_window_extent())


def _write_beside(axes: "Axes", point: tuple[float, float, str], place: tuple[float, float]) -> "Annotation":
    """The text of a point (x, y, text) at a place beside it; joined to it by a thin line unless it is near."""
    x, y, text = point
    line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5}
    note = axes.annotate(
        text,
        (x, y),
        place,
        textcoords="offset points",
        ha="left" if place[0] > 0 else "right",
        va="center",
        linespacing=1.0,
        arrowprops=None if np.hypot(*place) < 13 else line,
    )
    note.set_in_layout(False)
    return note
