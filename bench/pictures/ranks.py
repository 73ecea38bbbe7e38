"""Critical-difference diagrams (Demšar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7)."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.pictures.form import Size
from bench.pictures.labels import FEW, PITCH, SIZES, letters
from bench.pictures.style import INK, MUTED, WIDTH, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RULER = 0.62  # inches above the axis: the critical difference, and the numbers of the axis
BAR, ALL_BARS = 0.09, 1.3  # inches between two bars, and at most for all of them
LEAST_AXIS, LONG_AXIS = 2.0, 3.4  # inches from rank to rank, beside the names of a few and of many


def critical_difference(
    names: Sequence[str],
    ranks: Sequence[float],
    cd: float,
    cliques: Sequence[tuple[int, int]],
    grey: Collection[str] = (),
    size: Size | None = None,
) -> "Figure":
    """Mean ranks on an axis, best (1) at the left; a bar joins methods that cannot be told apart.

    names, ranks: in ascending order of rank. cliques: (first, last) positions in that order. cd: drawn as a ruler. grey: names
    of methods that only stand behind the others.
    """
    half = -(-len(names) // 2)
    texts = [f"{name} {rank:.2f} " if i < half else f" {rank:.2f} {name}" for i, (name, rank) in enumerate(zip(names, ranks))]
    bars = min(BAR, ALL_BARS / max(1, len(cliques)))
    depth = 0.2 + bars * len(cliques)  # inches from the axis to the first name
    wanted = letters(len(names))
    pitch = (1.6 if len(names) <= FEW else 1.25) * wanted / 72  # inches from name to name
    if size:
        pitch = min(pitch, max(0.01, (size[1] - RULER - depth - 0.15) / half))
        wanted = next((one for one in SIZES if one <= wanted and PITCH * one / 72 <= pitch), SIZES[-1])
    height = RULER + depth + pitch * half
    figure, axes = blank(*(size or (WIDTH, height + 0.1)))
    bold = 1.12 if grey else 1.0  # how much wider the names may be that stand out
    left, right = (_width(axes, own, wanted) * bold + 0.12 for own in (texts[:half], texts[half:]))
    if size is None:
        figure.set_figwidth(max(WIDTH, left + right + (LEAST_AXIS if len(names) <= FEW else LONG_AXIS)))
    lowest, highest = 1, max(len(names), int(np.ceil(max(ranks))))
    per_inch = (highest - lowest) / max(0.3, figure.get_figwidth() - left - right - 0.1)
    axes.set(xlim=(lowest - left * per_inch, highest + right * per_inch), ylim=(-depth - pitch * (half - 0.3), RULER))
    axes.axis("off")
    _axis(axes, lowest, highest, cd)
    for i, (name, text, rank) in enumerate(zip(names, texts, ranks)):
        on_left = i < half
        y = -depth - pitch * (i if on_left else len(names) - 1 - i)
        edge = lowest - 0.1 * per_inch if on_left else highest + 0.1 * per_inch
        axes.plot([rank, rank, edge], [0, y, y], color=MUTED, linewidth=1 if len(names) <= FEW else 0.6)
        axes.text(edge, y, text, ha="right" if on_left else "left", va="center", fontsize=wanted,
                  color=MUTED if name in grey else INK, fontweight="bold" if grey and name not in grey else "normal")  # fmt: skip
    for i, (first, last) in enumerate(cliques):
        y = -0.08 - bars * i
        axes.plot([ranks[first], ranks[last]], [y, y], color=INK, linewidth=min(3.5, 40 * bars), solid_capstyle="round")
    return figure


def _axis(axes: "Axes", lowest: int, highest: int, cd: float) -> None:
    """Numbered ranks, and above them a ruler as long as the critical difference; an arrow if it is longer than the axis."""
    axes.plot([lowest, highest], [0, 0], color=INK, linewidth=1.2)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if (highest - lowest) / step <= 12)
    for tick in [lowest, *[tick for tick in range(step, highest + 1, step) if tick > lowest]]:
        axes.plot([tick, tick], [0, 0.05], color=INK, linewidth=1.2)
        axes.text(tick, 0.07, str(tick), ha="center", va="bottom")
    end = min(lowest + cd, highest)
    axes.plot([lowest, end], [0.32, 0.32], color=INK, linewidth=1.2)
    axes.plot([lowest], [0.32], color=INK, marker="|", markersize=7)
    marker, size = ("|", 7) if lowest + cd <= highest else (">", 4)
    axes.plot([end], [0.32], color=INK, marker=marker, markersize=size)
    axes.text(lowest, 0.38, f"CD = {cd:.2f}", ha="left", va="bottom")


def _width(axes: "Axes", texts: Sequence[str], size: float) -> float:
    """Inches that the widest of the texts takes."""
    widths = [0.0]
    for text in texts:
        written = axes.text(0, 0, text, fontsize=size)
        widths.append(written.get_window_extent().width / axes.figure.dpi)
        written.remove()
    return max(widths)
