"""The kinds of figure: plain numbers in, a matplotlib figure out. What is drawn is decided in bench.pictures.plots.

Accuracies are fractions, shown in percent. Call these inside bench.pictures.style.look(), which sets fonts and line widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from bench.pictures.style import INK, MUTED, Style, blank, label_ends, label_points, show_duration, show_percent
from bench.reports.formats import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT = ("#fffde0", "#cdeac0", "#7fcdbb", "#3aa6bf", "#2272a8", "#1f3f86")  # from low to high accuracy
STAIRS = "#000000"
NUMBERED = 12  # larger matrices have a colour bar instead of a number in each cell
LABEL_WIDTH = 22  # characters of a method's name on one line


@dataclass(frozen=True)
class Curve:
    """One method's values after each task; NaN = not measured."""

    label: str
    style: Style
    mean: np.ndarray  # (T,) over runs
    spread: np.ndarray  # (T,) standard deviation over runs, NaN for a single run


@dataclass(frozen=True)
class Point:
    """One method's cost and accuracy."""

    label: str
    style: Style
    seconds: float
    mean: float
    spread: float  # standard deviation over runs, NaN for a single run


def _lines(label: str) -> str:
    """A method's name on a few lines."""
    return fill(label.replace(";", "; "), LABEL_WIDTH, max_lines=4, placeholder=" ...")


def curves(lines: Sequence[Curve]) -> "Figure":
    """Accuracy (mean line, spread as a band) after each task."""
    texts = [_lines(line.label) for line in lines]
    height = max(3.1, 0.9 + 0.19 * sum(text.count("\n") + 1.3 for text in texts))
    figure, axes = blank(height)
    for line in lines:
        x = 1 + np.arange(len(line.mean))
        known = ~np.isnan(line.mean)
        axes.plot(
            x[known],
            line.mean[known],
            label=line.label,
            zorder=2 if line.style.marker else 1.5,
            clip_on=False,
            **line.style.marks,
        )
        if not np.isnan(line.spread[known]).all():
            low, high = (line.mean - line.spread)[known], (line.mean + line.spread)[known]
            if known.sum() > 1:
                axes.fill_between(x[known], low, high, color=line.style.colour, alpha=0.16, linewidth=0)
            else:
                axes.errorbar(x[known], line.mean[known], line.spread[known], color=line.style.colour)
    show_percent(axes.yaxis)
    tasks = max(len(line.mean) for line in lines)
    step = -(-tasks // NUMBERED)
    axes.set_xticks(range(1, 1 + tasks, step))
    axes.set_xlim(1 - 0.03 * tasks, tasks + 0.03 * tasks)
    axes.set(xlabel="tasks learned", ylabel="accuracy")
    ends = [int(np.flatnonzero(~np.isnan(line.mean))[-1]) for line in lines]
    label_ends(figure, axes, [(1 + end, line.mean[end], text, line.style) for line, end, text in zip(lines, ends, texts)])
    return figure


def heat_map(matrix: np.ndarray, names: Sequence[str], low: float = 0.0) -> "Figure":
    """Accuracy matrix: a row after each task, a column per evaluated task; rows that were not measured are left out.

    A line separates learned tasks (below and left of it) from those still to come. low: where the colours begin.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import PercentFormatter

    rows = [t for t in range(len(matrix)) if not np.isnan(matrix[t]).all()]
    numbered = len(names) <= NUMBERED
    figure, axes = blank(1.15 + (0.32 * len(rows) if numbered else 0.16 * max(6, len(rows))))
    colours = LinearSegmentedColormap.from_list("accuracy", HEAT, N=40)  # below 50, the colour bar stays vectors
    mesh = axes.pcolormesh(matrix[rows], cmap=colours, vmin=low, vmax=1, edgecolors="none")
    for i, t in enumerate(rows):
        for k in range(len(names)):
            if numbered and not np.isnan(matrix[t, k]):
                dark = (matrix[t, k] - low) / (1 - low) > 0.6
                axes.text(k + 0.5, i + 0.5, percent(matrix[t, k], digits=0), ha="center", va="center",
                          color="#ffffff" if dark else "#000000", fontsize=9 if len(names) < 10 else 7.5)  # fmt: skip
        if t + 1 < len(names):  # the staircase between learned and future tasks
            axes.plot([t + 1, t + 1], [i, i + 1], color=STAIRS, linewidth=2, solid_capstyle="projecting")
            if i + 1 < len(rows):
                axes.plot([t + 1, t + 2], [i + 1, i + 1], color=STAIRS, linewidth=2, solid_capstyle="projecting")
    axes.invert_yaxis()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    turned = {"rotation": 35, "ha": "left", "rotation_mode": "anchor"} if numbered else {"rotation": 90, "fontsize": 8}
    step = -(-len(names) // 25)
    axes.set_xticks(np.arange(0, len(names), step) + 0.5, names[::step], **turned)
    axes.set_yticks(
        np.arange(0, len(rows), step) + 0.5, [f"after {names[t]}" for t in rows[::step]], fontsize=None if numbered else 8
    )
    if not numbered:
        figure.colorbar(mesh, ax=axes, format=PercentFormatter(1, decimals=0)).outline.set_visible(False)
    return figure


def reliability(confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray, ece: float, style: Style) -> "Figure":
    """Accuracy against confidence, a point a bin, its area the bin's share of the images; the diagonal is calibrated."""
    figure, axes = blank(3.2, width=3.4)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    filled = share > 0
    axes.vlines(confidence[filled], confidence[filled], accuracy[filled], color=style.colour, linewidth=1.2, alpha=0.6)
    axes.scatter(confidence[filled], accuracy[filled], s=12 + 500 * share[filled], color=style.colour, alpha=0.85, linewidth=0,
                 clip_on=False, zorder=3)  # fmt: skip
    axes.text(0.04, 0.96, f"ECE {percent(ece)}%", transform=axes.transAxes, va="top", color=INK, fontsize=11)
    axes.text(0.97, 0.04, "overconfident", transform=axes.transAxes, ha="right", color=MUTED)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        show_percent(axis)
    return figure


def cost(points: Sequence[Point], reference: tuple[str, float] | None = None) -> "Figure":
    """Accuracy against seconds (log scale), a point a method. reference: label and accuracy of what costs nothing."""
    figure, axes = blank(3.3)
    seconds = np.array([point.seconds for point in points])
    axes.set_xscale("log")
    axes.set_xlim(seconds.min() / 2.2, seconds.max() * 2.2)
    if reference:
        axes.axhline(reference[1], color=MUTED, linestyle="--", label=reference[0])
        axes.annotate(_lines(reference[0]), (0, reference[1]), (4, 3), xycoords=("axes fraction", "data"),
                      textcoords="offset points", color=MUTED, linespacing=1.0).set_in_layout(False)  # fmt: skip
    for point in points:
        spread = None if np.isnan(point.spread) else point.spread
        axes.errorbar(point.seconds, point.mean, spread, markersize=7, label=point.label, **point.style.marks)
    axes.margins(y=0.12)
    show_percent(axes.yaxis)
    show_duration(axes.xaxis, *axes.get_xlim())
    axes.set(xlabel="training time", ylabel="accuracy at the end")
    label_points(figure, axes, [(point.seconds, point.mean, _lines(point.label)) for point in points])
    return figure


def critical_difference(names: Sequence[str], ranks: Sequence[float], cd: float, cliques: Sequence[tuple[int, int]]) -> "Figure":
    """Mean ranks on an axis, best (1) at the left; a bar joins methods that cannot be told apart (Demšar 2006).

    names, ranks: in ascending order of rank. cliques: (first, last) positions in that order. cd: drawn as a ruler.
    """
    count = len(names)
    half, bars = -(-count // 2), len(cliques)
    depth = 0.5 + 0.28 * bars  # where the first name hangs below the axis
    figure, axes = blank(0.75 + 0.3 * (depth + half))
    lowest, highest = 1, max(count, int(np.ceil(max(ranks))))
    room = 0.45 * (highest - lowest)  # for names at both ends
    axes.set(xlim=(lowest - room, highest + room), ylim=(-depth - 0.75 * half - 0.2, 1.5))
    axes.axis("off")
    axes.plot([lowest, highest], [0, 0], color=INK, linewidth=1.2)
    for tick in range(lowest, highest + 1):
        axes.plot([tick, tick], [0, 0.15], color=INK, linewidth=1.2)
        axes.text(tick, 0.25, str(tick), ha="center", va="bottom")
    axes.plot([lowest, lowest + cd], [1.05, 1.05], color=INK, linewidth=1.2, marker="|", markersize=7)
    axes.text(lowest + cd, 1.05, f"  CD = {cd:.2f}", ha="left", va="center")
    for i, (name, rank) in enumerate(zip(names, ranks)):
        left = i < half
        y = -depth - 0.75 * (i if left else count - 1 - i)
        edge = lowest - 0.04 * room if left else highest + 0.04 * room
        axes.plot([rank, rank, edge], [0, y, y], color=MUTED, linewidth=1)
        axes.text(edge, y, f"{name} {rank:.2f} " if left else f" {rank:.2f} {name}", ha="right" if left else "left", va="center")
    for i, (first, last) in enumerate(cliques):
        y = -0.25 - 0.28 * i
        axes.plot([ranks[first], ranks[last]], [y, y], color=INK, linewidth=3.5, solid_capstyle="round")
    return figure
