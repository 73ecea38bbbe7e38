"""Accuracy against what it costs: a point a method, and the line of those that no cheaper one reaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bench.pictures.form import Size
from bench.pictures.labels import FEW, label_points, letters, name_others, on_lines
from bench.pictures.style import INK, MUTED, WIDTH, Style, blank, show_percent, show_quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One method's cost and accuracy."""

    label: str
    style: Style  # hollow: it learned all tasks at once, and is no part of the front
    cost: float
    mean: float
    spread: float  # standard deviation over runs, NaN for a single run


def front(costs: Sequence[float], accuracies: Sequence[float], free: float = -np.inf) -> list[int]:
    """The Pareto front from the cheapest on: positions of all that are more accurate than whatever costs as much or less.

    free: the accuracy of what costs nothing.

    >>> front([3.0, 1.0, 2.0, 4.0], [0.8, 0.5, 0.4, 0.8]), front([1.0, 2.0], [0.5, 0.7], free=0.6)
    ([1, 0], [1])
    """
    found, best = [], free
    for i in np.lexsort((-np.asarray(accuracies), np.asarray(costs))):
        if accuracies[i] > best:
            found.append(int(i))
            best = accuracies[i]
    return found


def accuracy_against_cost(
    points: Sequence[Point],
    axis: str,
    names: Mapping[float, str],
    reference: tuple[str, float] | None = None,
    size: Size | None = None,
) -> "Figure":
    """names: the ticks of the cost axis, which is logarithmic. reference: label and accuracy of what costs nothing."""
    loud = [point for point in points if not point.style.quiet]
    more = max(0, len(loud) - FEW)
    figure, axes = blank(*(size or (WIDTH + 0.055 * more, 3.3 + 0.075 * more)))
    costs = np.array([point.cost for point in points])
    show_quantity(axes, names, costs.min() / 2.2, costs.max() * 2.2)
    stairs = _stairs(points, reference, axes.get_xlim()[1])
    right, up = [x for x, _ in stairs], [y for _, y in stairs]
    axes.plot(right, up, color=INK, linewidth=0.9, alpha=0.45, label="Pareto front", zorder=1.3)
    if reference:
        axes.axhline(reference[1], color=MUTED, linestyle="--", label=reference[0])
        name = axes.annotate(on_lines(reference[0]), (0, reference[1]), (4, 3), xycoords=("axes fraction", "data"),
                             textcoords="offset points", color=MUTED, linespacing=1.0, fontsize=letters(len(loud)))  # fmt: skip
        name.set_in_layout(False)
    level = [(axes.get_xlim()[0], reference[1], axes.get_xlim()[1], reference[1])] if reference else []
    for point in points:
        spread = None if np.isnan(point.spread) or point.style.quiet else point.spread
        marks = {"markersize": 7 if not more else 5} | point.style.marks
        axes.errorbar(point.cost, point.mean, spread, label=point.label, zorder=1.5 if point.style.quiet else 2, **marks)
    axes.margins(y=0.12)
    show_percent(axes.yaxis)
    axes.set(xlabel=axis, ylabel="accuracy at the end")
    if len(loud) < len(points):
        name_others(figure, [point.label for point in points if point.style.quiet], marker="o")
    label_points(
        figure,
        axes,
        [(point.cost, point.mean, on_lines(point.label)) for point in loud],
        letters(len(loud)),
        unnamed=[(point.cost, point.mean) for point in points if point.style.quiet],
        lines=[*_bars(loud), *level, *[(*one, *other) for one, other in pairwise(stairs)]],
    )
    return figure


def _bars(points: Sequence[Point]) -> list[tuple[float, float, float, float]]:
    """From the low to the high end of each error bar."""
    return [(one.cost, one.mean - one.spread, one.cost, one.mean + one.spread) for one in points if not np.isnan(one.spread)]


def _stairs(points: Sequence[Point], reference: tuple[str, float] | None, right: float) -> list[tuple[float, float]]:
    """The corners of a staircase through the front, to the right end of the axes."""
    sequential = [point for point in points if point.style.filled]
    free = reference[1] if reference else -np.inf
    steps = [sequential[i] for i in front([one.cost for one in sequential], [one.mean for one in sequential], free)]
    corners = []
    for step, cost in zip(steps, [*[step.cost for step in steps[1:]], right]):
        corners += [(step.cost, step.mean), (cost, step.mean)]
    return corners
