"""The 14 shapes and 24 objects as lists of parts in the unit box, and three ways of drawing them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .drawing import FACTOR, Canvas, arc, box, capsules, coverage, ellipse, placed


class Part(NamedTuple):
    """One primitive: closed contours to fill, or an open line."""

    contours: tuple[np.ndarray, ...]  # each (n, 2)
    role: str = "main"  # "main" is the caption's colour, "accent" a random one, "dark" nearly black
    line: float = 0.0  # stroke width as a fraction of the box for open lines, 0 for filled parts


def _polygon(*points: tuple[float, float], role: str = "main") -> Part:
    return Part((np.array(points, float),), role)


def _filled(points: np.ndarray, role: str = "main") -> Part:
    return Part((points,), role)


def _line(points: np.ndarray | list[tuple[float, float]], role: str = "main", width: float = 0.14) -> Part:
    return Part((np.asarray(points, float),), role, width)


def _spokes(count: int, outer: float, inner: float) -> np.ndarray:
    """A star polygon with `count` points, the first pointing up."""
    angle = np.arange(2 * count) * np.pi / count - np.pi / 2
    radius = np.where(np.arange(2 * count) % 2, inner, outer)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 26, endpoint=False)
    x = 0.95 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
    return np.stack([x, y - 0.08], axis=1)


def _ngon(corners: int, radius: float) -> np.ndarray:
    return ellipse(0, 0, radius, radius, corners)


FIGURES: dict[str, list[Part]] = {
    # shapes
    "circle": [_filled(_ngon(26, 0.9))],
    "square": [_filled(box(-0.8, -0.8, 0.8, 0.8))],
    "triangle": [_polygon((0, -0.9), (0.95, 0.75), (-0.95, 0.75))],
    "star": [_filled(_spokes(5, 1.0, 0.42))],
    "cross": [
        _polygon((-0.3, -0.9), (0.3, -0.9), (0.3, -0.3), (0.9, -0.3), (0.9, 0.3), (0.3, 0.3),
                 (0.3, 0.9), (-0.3, 0.9), (-0.3, 0.3), (-0.9, 0.3), (-0.9, -0.3), (-0.3, -0.3)),
    ],
    "ring": [Part((_ngon(26, 0.95), _ngon(22, 0.52)[::-1]))],
    "heart": [_filled(_heart())],
    "moon": [_filled(np.concatenate([arc(0, 0, 0.95, 0.95, 55, 305, 18), arc(0.42, 0, 0.7, 0.72, 290, 70, 14)]))],
    "diamond": [_polygon((0, -1), (0.65, 0), (0, 1), (-0.65, 0))],
    "hexagon": [_filled(_ngon(6, 0.95))],
    "arrow": [_polygon((-0.95, -0.28), (0.1, -0.28), (0.1, -0.75), (0.98, 0), (0.1, 0.75), (0.1, 0.28), (-0.95, 0.28))],
    "rectangle": [_filled(box(-0.98, -0.48, 0.98, 0.48))],
    "drop": [_filled(np.concatenate([[(0, -1)], arc(0, 0.35, 0.6, 0.6, -25, 205, 16)]))],
    "bolt": [_polygon((0.25, -1), (-0.6, 0.15), (-0.08, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25))],
    # objects
    "house": [
        _filled(box(-0.7, -0.1, 0.7, 0.95)),
        _polygon((0, -0.95), (0.95, -0.08), (-0.95, -0.08), role="accent"),
        _filled(box(-0.18, 0.4, 0.18, 0.95), "accent"),
    ],
    "tree": [_filled(box(-0.14, 0.2, 0.14, 1), "accent"), _filled(ellipse(0, -0.3, 0.68, 0.68))],
    "car": [
        _polygon((-0.55, 0), (-0.3, -0.5), (0.35, -0.5), (0.6, 0)),
        _filled(box(-0.98, -0.05, 0.98, 0.4)),
        _filled(ellipse(-0.5, 0.42, 0.24, 0.24, 14), "accent"),
        _filled(ellipse(0.5, 0.42, 0.24, 0.24, 14), "accent"),
    ],
    "boat": [
        _line([(0, -0.95), (0, 0.4)], "dark", 0.07),
        _polygon((0.06, -0.9), (0.75, 0.25), (0.06, 0.25), role="accent"),
        _polygon((-0.98, 0.38), (0.98, 0.38), (0.6, 0.9), (-0.6, 0.9)),
    ],
    "fish": [
        _polygon((0.4, 0), (0.98, -0.5), (0.98, 0.5)),
        _filled(ellipse(-0.15, 0, 0.78, 0.48)),
        _filled(ellipse(-0.55, -0.1, 0.1, 0.1, 10), "accent"),
    ],
    "cat": [
        _polygon((-0.8, -0.98), (-0.1, -0.45), (-0.75, 0.1)),
        _polygon((0.8, -0.98), (0.1, -0.45), (0.75, 0.1)),
        _filled(ellipse(0, 0.15, 0.82, 0.75)),
        _filled(ellipse(-0.32, 0.05, 0.12, 0.15, 10), "accent"),
        _filled(ellipse(0.32, 0.05, 0.12, 0.15, 10), "accent"),
    ],
    "cloud": [
        Part((ellipse(-0.5, 0.2, 0.48, 0.42), ellipse(0.05, -0.15, 0.52, 0.5), ellipse(0.55, 0.22, 0.43, 0.4))),
    ],
    "mushroom": [
        _filled(box(-0.22, 0, 0.22, 0.95), "accent"),
        _filled(arc(0, 0.1, 0.92, 0.95, 180, 360, 18)),
    ],
    "key": [
        Part((ellipse(-0.58, 0, 0.4, 0.4), ellipse(-0.58, 0, 0.2, 0.2, 16)[::-1])),
        _filled(box(-0.22, -0.1, 0.98, 0.1)),
        _filled(box(0.45, 0.08, 0.6, 0.42)),
        _filled(box(0.8, 0.08, 0.95, 0.42)),
    ],
    "cup": [
        _line(arc(0.5, 0, 0.38, 0.38, -90, 90), width=0.16),
        _polygon((-0.75, -0.75), (0.55, -0.75), (0.45, 0.8), (-0.65, 0.8)),
    ],
    "umbrella": [
        _line(np.concatenate([[(0, -0.1), (0, 0.6)], arc(0.2, 0.65, 0.2, 0.25, 180, 20, 8)]), "accent", 0.1),
        _filled(arc(0, 0.05, 0.95, 0.95, 180, 360, 18)),
    ],
    "balloon": [
        _line([(0, 0.4), (0.08, 0.6), (-0.06, 0.8), (0.04, 1)], "accent", 0.07),
        _polygon((0, 0.3), (0.14, 0.52), (-0.14, 0.52)),
        _filled(ellipse(0, -0.28, 0.58, 0.7)),
    ],
    "robot": [
        _line([(0, -0.95), (0, -0.6)], "dark", 0.08),
        _filled(box(-0.5, -0.72, 0.5, 0)),
        _filled(box(-0.72, 0.1, 0.72, 0.95)),
        _filled(box(-0.32, -0.5, -0.1, -0.28), "accent"),
        _filled(box(0.1, -0.5, 0.32, -0.28), "accent"),
        _filled(box(-0.35, 0.35, 0.35, 0.65), "accent"),
    ],
    "rocket": [
        _polygon((-0.3, 0.15), (-0.75, 0.8), (-0.3, 0.65), role="accent"),
        _polygon((0.3, 0.15), (0.75, 0.8), (0.3, 0.65), role="accent"),
        _polygon((0, -1), (0.22, -0.7), (0.34, -0.3), (0.34, 0.7), (-0.34, 0.7), (-0.34, -0.3), (-0.22, -0.7)),
        _filled(ellipse(0, -0.2, 0.15, 0.15, 12), "accent"),
        _polygon((-0.2, 0.7), (0.2, 0.7), (0, 1), role="accent"),
    ],
    "bird": [
        _line([(0, 0.4), (0, 0.95)], "dark", 0.07),
        _line([(0.2, 0.4), (0.2, 0.95)], "dark", 0.07),
        _polygon((0.4, 0.05), (0.98, -0.15), (0.9, 0.3), (0.5, 0.35)),
        _filled(ellipse(0.1, 0.1, 0.6, 0.42)),
        _filled(ellipse(-0.48, -0.4, 0.32, 0.3, 16)),
        _polygon((-0.75, -0.48), (-1, -0.32), (-0.74, -0.25), role="accent"),
    ],
    "butterfly": [
        _filled(ellipse(-0.5, -0.42, 0.45, 0.48, 18)),
        _filled(ellipse(0.5, -0.42, 0.45, 0.48, 18)),
        _filled(ellipse(-0.42, 0.45, 0.38, 0.42, 18)),
        _filled(ellipse(0.42, 0.45, 0.38, 0.42, 18)),
        _filled(ellipse(0, 0, 0.1, 0.7, 12), "accent"),
    ],
    "table": [
        _filled(box(-0.85, -0.3, -0.62, 0.8)),
        _filled(box(0.62, -0.3, 0.85, 0.8)),
        _filled(box(-0.98, -0.5, 0.98, -0.22)),
    ],
    "chair": [
        _filled(box(-0.65, -0.98, -0.42, 0.98)),
        _filled(box(0.4, 0.15, 0.62, 0.98)),
        _filled(box(-0.65, 0, 0.62, 0.22)),
    ],
    "hat": [
        _filled(box(-0.52, -0.7, 0.52, 0.45)),
        _filled(box(-0.52, 0.12, 0.52, 0.38), "accent"),
        _filled(box(-0.98, 0.38, 0.98, 0.65)),
    ],
    "bottle": [
        _filled(box(-0.15, -0.8, 0.15, -0.2)),
        _polygon((-0.15, -0.35), (0.15, -0.35), (0.42, 0), (0.42, 0.98), (-0.42, 0.98), (-0.42, 0)),
        _filled(box(-0.18, -1, 0.18, -0.78), "accent"),
        _filled(box(-0.42, 0.3, 0.42, 0.65), "accent"),
    ],
    "flag": [
        _line([(-0.75, -0.95), (-0.75, 0.98)], "accent", 0.12),
        _polygon((-0.7, -0.9), (0.1, -0.78), (0.9, -0.9), (0.9, 0.12), (0.1, 0.24), (-0.7, 0.12)),
    ],
    "cactus": [
        _line([(-0.65, -0.3), (-0.65, 0.2), (0, 0.2)], width=0.24),
        _line([(0.65, -0.5), (0.65, 0), (0, 0)], width=0.24),
        _line([(0, -0.85), (0, 0.6)], width=0.34),
        _polygon((-0.5, 0.5), (0.5, 0.5), (0.35, 0.98), (-0.35, 0.98), role="accent"),
    ],
    "flower": [
        _line([(0, 0.1), (0, 1)], "dark", 0.1),
        *[
            _filled(ellipse(0.4 * np.cos(angle), -0.35 + 0.4 * np.sin(angle), 0.3, 0.3, 14))
            for angle in np.arange(5) * 1.2566 - 1.57
        ],
        _filled(ellipse(0, -0.35, 0.22, 0.22, 14), "accent"),
    ],
    "lamp": [
        _line([(0, -0.1), (0, 0.85)], "accent", 0.12),
        _filled(box(-0.45, 0.8, 0.45, 0.98), "accent"),
        _polygon((-0.38, -0.95), (0.38, -0.95), (0.8, 0), (-0.8, 0)),
    ],
}  # fmt: skip
MIRRORED = frozenset(FIGURES) - {"flag"}  # a flag's pole stays left
DARK = np.array([40.0, 36.0, 34.0])


def draw_filled(canvas: Canvas, name: str, affine: np.ndarray, colours: dict[str, np.ndarray]) -> None:
    """Paint a figure's parts in order; `colours` maps "main" and "accent" to RGB."""
    size = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    palette = {**colours, "dark": DARK}
    for part in FIGURES[name]:
        points = [placed(contour, affine) for contour in part.contours]
        if part.line:
            canvas.stroke(points[0], max(part.line * size, 2.4), palette[part.role])
        else:
            canvas.fill(points, palette[part.role])


def draw_outlined(
    canvas: Canvas,
    name: str,
    affine: np.ndarray,
    colour: np.ndarray,
    width: float,
    bend: Callable[[np.ndarray], np.ndarray] = lambda points: points,
) -> None:
    """Draw only the edges of a figure, `width` image pixels wide; later parts hide earlier ones.

    `bend` moves the placed points of a closed or open line (see `wobble`).
    """
    ink = np.zeros_like(canvas.labels, bool)
    for part in FIGURES[name]:
        closed = not part.line
        lines = [bend(placed(contour, affine)) for contour in part.contours]
        if closed:
            ink &= ~coverage(lines)
        for line in lines:
            ink |= coverage(capsules(line, width * FACTOR, closed))
    canvas.paint(ink, colour)


def wobble(points: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """Move the corners of a line by normal steps of `amount` canvas pixels, slowly varying along it."""
    steps = rng.normal(0, amount, points.shape)
    return points + (steps + np.roll(steps, 1, axis=0)) / np.sqrt(2)
