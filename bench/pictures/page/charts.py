"""The page's charts: which point lies where, before charts.html draws them. Pure numbers and texts.

The page draws them itself, so that a curve can be hidden and a point can say its numbers; fifty of them cost no more than one
figure of matplotlib. Coordinates are those of the viewBox, which is as wide as a phone shows it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.pictures.labels import spread_out
from bench.pictures.page.looks import MUTED, Look
from bench.pictures.page.template import short
from bench.reports.formats import percent, points

WIDTH, HEIGHT = 460.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 136.0, 12.0, 42.0
LETTERS = 17  # of a label beside its line; the whole name is in the legend and in every point's words
LINE = 14.0  # height of such a label
CROWD = 12  # with more lines, labels would cover the page: the script writes those of the lines that are left
TICKS = 6  # at most so many steps on an axis


@dataclass(frozen=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point that says its numbers."""

    x: float
    y: float
    says: str
    radius: float = 0.0  # 0: drawn with the marker of its method
    bar: tuple[float, float] | None = None  # from, to: the spread


@dataclass(frozen=True)
class Drawn:
    """What one method has in a chart."""

    label: str
    short: str
    look: Look
    marks: list[Mark]
    line: str = ""  # path of the curve
    band: str = ""  # path of its spread
    end: tuple[float, float] = (0.0, 0.0)  # where its curve ends
    text: tuple[float, float] | None = None  # where its label stands; None: there is no room for it


@dataclass(frozen=True)
class Chart:
    """One chart."""

    title: str
    note: str
    where: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    drawn: list[Drawn]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM
    guides: list[str] = field(default_factory=list)  # paths that belong to no method
    words: list[tuple[float, float, str]] = field(default_factory=list)
    beside: bool = True  # labels stand right of the chart, joined to the ends of their curves

    @property
    def crowded(self) -> bool:
        return len(self.drawn) > CROWD

    @property
    def says(self) -> str:
        return f"{self.title}: {self.where}; {self.note}."


@dataclass(frozen=True)
class Curve:
    """One method's values after each task; NaN = not measured."""

    label: str
    look: Look
    mean: np.ndarray  # (T,) over runs
    spread: np.ndarray  # (T,) standard deviation over runs, NaN for a single run


@dataclass(frozen=True)
class Spot:
    """One method's cost and accuracy."""

    label: str
    look: Look
    seconds: float
    mean: float
    spread: float  # standard deviation over runs, NaN for a single run


def curves(title: str, note: str, where: str, given: Sequence[Curve]) -> Chart:
    """Accuracy after each task: a line for the mean, a band for the spread."""
    tasks = max(len(curve.mean) for curve in given)
    low, high, levels = _percent_axis([curve.mean for curve in given], [curve.spread for curve in given])
    right = WIDTH - RIGHT

    def x(task: float) -> float:
        return LEFT + 10 + (right - LEFT - 20) * (task / max(1, tasks - 1))

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low)

    drawn = [_drawn_curve(curve, x, y) for curve in given]
    places = spread_out([one.end[1] for one in drawn], [LINE] * len(drawn), HEIGHT) if len(drawn) <= CROWD else []
    drawn = [
        Drawn(
            one.label,
            one.short,
            one.look,
            one.marks,
            one.line,
            one.band,
            one.end,
            (right + 12, places[i] if places else one.end[1]),
        )
        for i, one in enumerate(drawn)
    ]
    step = -(-tasks // 10)
    x_ticks = [Tick(x(task), str(task + 1)) for task in range(0, tasks, step)]
    y_ticks = [Tick(y(level), percent(level, 0) + "%") for level in levels]
    return Chart(title, note, where, "tasks learned", "accuracy", x_ticks, y_ticks, drawn)


def _drawn_curve(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> Drawn:
    known = [int(task) for task in np.flatnonzero(~np.isnan(curve.mean))]
    varies = not np.isnan(curve.spread[known]).all()
    marks = []
    for task in known:
        mean, spread = float(curve.mean[task]), float(curve.spread[task])
        says = f"{curve.label}, after task {task + 1}: {points(mean)}%" + (f" ± {points(spread)}" if varies else "")
        alone = varies and len(known) == 1
        bar = (y(mean - spread), y(mean + spread)) if alone else None
        marks.append(Mark(x(task), y(mean), says, bar=bar))
    line = _path([(mark.x, mark.y) for mark in marks]) if len(marks) > 1 else ""
    band = ""
    if varies and len(known) > 1:
        upper = [(x(task), y(curve.mean[task] + curve.spread[task])) for task in known]
        lower = [(x(task), y(curve.mean[task] - curve.spread[task])) for task in reversed(known)]
        band = _path([*upper, *lower]) + "z"
    return Drawn(curve.label, shortened(curve.label), curve.look, marks, line, band, (marks[-1].x, marks[-1].y))


def cost(title: str, note: str, where: str, given: Sequence[Spot], reference: tuple[str, Look, float] | None) -> Chart:
    """Accuracy at the end against seconds of learning (log scale). reference: label, look and accuracy of what costs nothing."""
    level = [np.array([reference[2]])] if reference else []
    means = [np.array([spot.mean]) for spot in given]
    low, high, levels = _percent_axis([*means, *level], [np.array([spot.spread]) for spot in given])
    first, last = (math.log10(one) for one in (min(s.seconds for s in given) / 1.6, max(s.seconds for s in given) * 1.6))
    right = WIDTH - 12

    def x(seconds: float) -> float:
        return LEFT + (right - LEFT) * (math.log10(seconds) - first) / (last - first)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low)

    drawn = []
    if reference:
        label, look, value = reference
        mark = Mark(LEFT, y(value), f"{label}: {points(value)}%, without learning")
        drawn.append(Drawn(label, shortened(label), look, [mark], _path([(LEFT, y(value)), (right, y(value))])))
    taken = [(x(spot.seconds), y(spot.mean), 7.0, 7.0) for spot in given]  # centre, half of width and height
    for i, spot in enumerate(given):
        here = x(spot.seconds), y(spot.mean)
        varies = not math.isnan(spot.spread)
        says = f"{spot.label}: {points(spot.mean)}%" + (f" ± {points(spot.spread)}" if varies else "")
        bar = (y(spot.mean - spot.spread), y(spot.mean + spot.spread)) if varies else None
        text = _free_place(here, shortened(spot.label), [other for k, other in enumerate(taken) if k != i], right)
        if text:
            taken.append((text[0] + _half(spot.label), text[1], _half(spot.label), LINE / 2))
        mark = Mark(*here, f"{says}, {duration(spot.seconds)} of learning", bar=bar)
        drawn.append(Drawn(spot.label, shortened(spot.label), spot.look, [mark], text=text))
    x_ticks = [Tick(x(seconds), text) for seconds, text in _durations(10**first, 10**last)]
    y_ticks = [Tick(y(level), percent(level, 0) + "%") for level in levels]
    return Chart(title, note, where, "training time", "accuracy at the end", x_ticks, y_ticks, drawn, right=right, beside=False)


def reliability(
    title: str, note: str, where: str, label: str, look: Look, bins: tuple[np.ndarray, np.ndarray, np.ndarray], ece: float
) -> Chart:
    """Accuracy against confidence, a point a bin, its area the bin's share of the images; the diagonal is calibrated."""
    left, right, top, bottom = 56.0, 284.0, 22.0, 250.0

    def place(confidence: float, accuracy: float) -> tuple[float, float]:
        return left + (right - left) * confidence, bottom - (bottom - top) * accuracy

    marks, stems = [], ""
    for confidence, accuracy, share in zip(*bins):
        if share > 0:
            x, y = place(float(confidence), float(accuracy))
            said = f"confidence {points(confidence)}%, accuracy {points(accuracy)}%, {points(share)}% of the images"
            marks.append(Mark(x, y, f"{label}: {said}", radius=2.5 + 14 * math.sqrt(float(share))))
            stems += _path([(x, place(0, float(confidence))[1]), (x, y)])
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
    return Chart(
        title, note, where, "confidence", "accuracy",
        [Tick(place(tick, 0)[0], percent(tick, 0) + "%") for tick in ticks],
        [Tick(place(0, tick)[1], percent(tick, 0) + "%") for tick in ticks],
        [Drawn(label, shortened(label), look, marks, stems)], 300.0, bottom + BOTTOM, left, right, top, bottom,
        guides=[_path([place(0, 0), place(1, 1)])],
        words=[(left + 10, top + 16, f"ECE {percent(ece)}%")], beside=False,
    )  # fmt: skip


GREY = Look(MUTED)


# -- axes and places --------------------------------------------------------------------------------------------


def _percent_axis(means: Sequence[np.ndarray], spreads: Sequence[np.ndarray]) -> tuple[float, float, list[float]]:
    """(low, high, ticks) around these fractions and their spreads, whole steps of percent."""
    values = np.concatenate([*means, *(m + s * sign for m, s in zip(means, spreads) for sign in (-1, 1))])
    values = values[~np.isnan(values)]
    return ticks(float(values.min()), float(values.max()))


def ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """(first tick, last tick, all ticks) around an interval, in steps that a person counts in.

    >>> ticks(0.31, 0.88)
    (0.3, 0.9, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    >>> ticks(0.5, 0.5)
    (0.49, 0.51, [0.49, 0.5, 0.51])
    """
    if high - low < 0.005:
        low, high = low - 0.005, high + 0.005
    for hundredths in (1, 2, 5, 10, 20, 25, 50, 100):
        first, last = math.floor(100 * low / hundredths + 1e-9), math.ceil(100 * high / hundredths - 1e-9)
        if last - first <= TICKS:
            break
    found = [round(k * hundredths / 100, 4) for k in range(first, last + 1)]
    return found[0], found[-1], found


DURATIONS = {
    1e-3: "1 ms", 1e-2: "10 ms", 0.1: "0.1 s", 0.3: "0.3 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s",
    120: "2 min", 300: "5 min", 900: "15 min", 3600: "1 h", 10800: "3 h", 36000: "10 h",
    86400: "1 d", 259200: "3 d", 864000: "10 d",
}  # fmt: skip


def _durations(low: float, high: float) -> list[tuple[float, str]]:
    """Ticks that a person reads as time."""
    found = [(seconds, text) for seconds, text in DURATIONS.items() if low <= seconds <= high]
    return found[:: 1 + len(found) // 7]


def duration(seconds: float) -> str:
    """
    >>> duration(0.012), duration(75), duration(7200)
    ('0.012 s', '75 s', '2 h')
    """
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def _half(label: str) -> float:
    """Half of the width of a label."""
    return 3.7 * len(shortened(label))


def _free_place(
    point: tuple[float, float], text: str, taken: Sequence[tuple[float, float, float, float]], right: float
) -> tuple[float, float] | None:
    """Where the text of a point starts so that it covers nothing that is there already; None if it would."""
    half = 3.7 * len(text)
    for dx, dy in (
        (9, 0),
        (-9 - 2 * half, 0),
        (-half, -13),
        (-half, 13),
        (9, -11),
        (9, 11),
        (-9 - 2 * half, -11),
        (-9 - 2 * half, 11),
    ):
        x, y = point[0] + dx, point[1] + dy
        inside = x >= LEFT + 2 and x + 2 * half <= right + 8 and TOP <= y - LINE / 2 and y + LINE / 2 <= HEIGHT - BOTTOM
        clear = all(abs(x + half - cx) >= half + w or abs(y - cy) >= LINE / 2 + h for cx, cy, w, h in taken)
        if inside and clear:
            return x, y
    return None


def shortened(label: str) -> str:
    """A method's name in as few letters as stand beside a line.

    >>> shortened("coop"), shortened("coop (some_long_setting=0.123)")
    ('coop', 'coop (some_long_…')
    """
    return label if len(label) <= LETTERS else label[: LETTERS - 1] + "…"


def _path(places: Sequence[tuple[float, float]]) -> str:
    """
    >>> _path([(1, 2.55), (3, 4)])
    'M1 2.5L3 4'
    """
    return "M" + "L".join(f"{short(x)} {short(y)}" for x, y in places)
