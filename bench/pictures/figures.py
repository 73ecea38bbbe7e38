"""The kinds of figure: plain numbers in, a matplotlib figure out. What is drawn is decided in bench.pictures.plots.

Accuracies are fractions, shown in percent. Call these inside bench.pictures.style.look(), which sets fonts and line widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.pictures.form import Size
from bench.pictures.labels import FEW, GAP, PITCH, label_ends, letters, name_others, on_lines
from bench.pictures.style import INK, MUTED, WIDER, WIDTH, Style, blank, show_percent
from bench.reports.formats import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAT = ("#fffde0", "#cdeac0", "#7fcdbb", "#3aa6bf", "#2272a8", "#1f3f86")  # from low to high accuracy
STAIRS = "#000000"
MOST_ROWS = 34  # from here on the rows of a matrix become lower instead of the matrix taller
NUMBERED = 12  # larger matrices have a colour bar instead of a number in each cell


@dataclass(frozen=True)
class Curve:
    """One method's values after each task; NaN = not measured."""

    label: str
    style: Style
    mean: np.ndarray  # (T,) over runs
    spread: np.ndarray  # (T,) standard deviation over runs, NaN for a single run


def curves(lines: Sequence[Curve], size: Size | None = None) -> "Figure":
    """Accuracy (mean line, spread as a band) after each task, those that stand out before and beside the others."""
    loud = [line for line in lines if not line.style.quiet]
    texts = [on_lines(line.label) for line in loud]
    rows = sum(1 + text.count("\n") for text in texts)
    inches = 0.75 + (PITCH * letters(len(loud)) + GAP) / 72 * rows
    figure, axes = blank(*(size or (WIDTH if len(loud) <= FEW else WIDER, max(3.1, inches))))
    for line in lines:
        _curve(axes, line, small=len(loud) > FEW)
    show_percent(axes.yaxis)
    tasks = max(len(line.mean) for line in lines)
    step = -(-tasks // NUMBERED)
    axes.set_xticks(range(1, 1 + tasks, step))
    axes.set_xlim(1 - 0.03 * tasks, tasks + 0.03 * tasks)
    axes.set(xlabel="tasks learned", ylabel="accuracy")
    if len(loud) < len(lines):
        name_others(figure, [line.label for line in lines if line.style.quiet])
    ends = [int(np.flatnonzero(~np.isnan(line.mean))[-1]) for line in loud]
    label_ends(figure, axes, [(1 + end, line.mean[end], text, line.style) for line, end, text in zip(loud, ends, texts)])
    return figure


def _curve(axes: "Axes", line: Curve, small: bool) -> None:
    x = 1 + np.arange(len(line.mean))
    known = ~np.isnan(line.mean)
    marks = line.style.marks | ({"markersize": 3.5, "linewidth": 1.2} if small and not line.style.quiet else {})
    if line.style.quiet and known.sum() > 1:
        marks["marker"] = "none"
    every = -(-len(x) // NUMBERED)  # not so many markers that they hide the line
    depth = 1.2 if line.style.quiet else 2 if line.style.marker else 1.5
    axes.plot(x[known], line.mean[known], label=line.label, zorder=depth, clip_on=False, markevery=every, **marks)
    if line.style.quiet or np.isnan(line.spread[known]).all():
        return
    low, high = (line.mean - line.spread)[known], (line.mean + line.spread)[known]
    if known.sum() == 1:
        axes.errorbar(x[known], line.mean[known], line.spread[known], color=line.style.colour)
    elif not small:  # more bands than a few only hide the lines
        axes.fill_between(x[known], low, high, color=line.style.colour, alpha=0.16, linewidth=0)


def heat_map(matrix: np.ndarray, names: Sequence[str], low: float = 0.0, size: Size | None = None) -> "Figure":
    """Accuracy matrix: a row after each task, a column per evaluated task; rows that were not measured are left out.

    A line separates learned tasks (below and left of it) from those still to come. low: where the colours begin.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import PercentFormatter

    rows = [t for t in range(len(matrix)) if not np.isnan(matrix[t]).all()]
    numbered = len(names) <= NUMBERED
    width, height = size or (WIDTH, 1.15 + (0.32 * len(rows) if numbered else 0.16 * max(6, min(MOST_ROWS, len(rows)))))
    figure, axes = blank(width, height)
    across, down = (72 * max(0.1, width - 1.1) / len(names), 72 * max(0.1, height - 0.9) / len(rows))  # a cell, in points
    numbers = max(5.0, min(9.0 if len(names) < 10 else 7.5, across / 2.2))
    largest = 9.5 if numbered else 8.0
    below, beside = (max(5.0, min(largest, room)) if size else largest for room in (across * 0.48, down / PITCH))
    colours = LinearSegmentedColormap.from_list("accuracy", HEAT, N=40)  # below 50, the colour bar stays vectors
    mesh = axes.pcolormesh(matrix[rows], cmap=colours, vmin=low, vmax=1, edgecolors="none")
    for i, t in enumerate(rows):
        for k in range(len(names)):
            if numbered and not np.isnan(matrix[t, k]):
                dark = (matrix[t, k] - low) / (1 - low) > 0.6
                axes.text(k + 0.5, i + 0.5, percent(matrix[t, k], digits=0), ha="center", va="center",
                          color="#ffffff" if dark else "#000000", fontsize=numbers)  # fmt: skip
        if t + 1 < len(names):  # the staircase between learned and future tasks
            axes.plot([t + 1, t + 1], [i, i + 1], color=STAIRS, linewidth=2, solid_capstyle="projecting")
            if i + 1 < len(rows):
                axes.plot([t + 1, t + 2], [i + 1, i + 1], color=STAIRS, linewidth=2, solid_capstyle="projecting")
    axes.invert_yaxis()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    turned = {"rotation": 35, "ha": "left", "rotation_mode": "anchor"} if numbered else {"rotation": 90}
    step = -(-len(names) // 25)
    axes.set_xticks(np.arange(0, len(names), step) + 0.5, names[::step], fontsize=below, **turned)
    axes.set_yticks(np.arange(0, len(rows), step) + 0.5, [f"after {names[t]}" for t in rows[::step]], fontsize=beside)
    if not numbered:
        figure.colorbar(mesh, ax=axes, format=PercentFormatter(1, decimals=0)).outline.set_visible(False)
    return figure


def reliability(
    confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray, ece: float, style: Style, size: Size | None = None
) -> "Figure":
    """Accuracy against confidence, a point a bin, its area the bin's share of the images; the diagonal is calibrated."""
    figure, axes = blank(*(size or (3.4, 3.2)))
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
