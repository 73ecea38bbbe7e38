"""Rasterising in numpy: polygons and strokes on a supersampled canvas, smooth noise, and the camera's nuisance.

No drawing library is involved, so the images do not change with its version. Points are (n, 2) arrays of (x, y) with
y pointing down. Figures live in the unit box [-1, 1]^2; an affine map of shape (2, 3) takes them to canvas pixels.
"""

from dataclasses import dataclass

import numpy as np

SIZE = 32  # side of an image
FACTOR = 3  # supersampling
CANVAS = SIZE * FACTOR


def ellipse(x: float, y: float, rx: float, ry: float, corners: int = 22) -> np.ndarray:
    """A closed polygon (corners, 2) around an ellipse."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, corners: int = 14) -> np.ndarray:
    """An open poly-line (corners, 2) along an ellipse, angles in degrees, clockwise on the screen."""
    angle = np.radians(np.linspace(start, stop, corners))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """An axis-parallel rectangle (4, 2)."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def coverage(polygons: list[np.ndarray]) -> np.ndarray:
    """Boolean mask (CANVAS, CANVAS) of the pixels inside the polygons, by the non-zero winding rule.

    Every edge adds +-1 to the right of its crossing with each scan line; the running sum along a line is the winding
    number. Polygons of equal orientation therefore unite, and one of opposite orientation cuts a hole.
    """
    start = np.concatenate(polygons)  # (E, 2)
    end = np.concatenate([np.concatenate([p[1:], p[:1]]) for p in polygons])
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(low - 0.5), 0, CANVAS).astype(np.int64)
    count = np.clip(np.ceil(high - 0.5), 0, CANVAS).astype(np.int64) - first
    edge = np.repeat(np.arange(len(start)), count)  # one entry per crossing of an edge with a scan line
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    delta = end - start
    x = start[edge, 0] + (row + 0.5 - start[edge, 1]) * (delta[edge, 0] / delta[edge, 1])
    column = np.clip(np.ceil(x - 0.5), 0, CANVAS).astype(np.int64)
    step = np.bincount(row * (CANVAS + 1) + column, np.sign(delta[edge, 1]), CANVAS * (CANVAS + 1))
    return np.cumsum(step.reshape(CANVAS, CANVAS + 1), axis=1)[:, :CANVAS] != 0


def capsules(line: np.ndarray, width: float, closed: bool) -> list[np.ndarray]:
    """The round-ended stroke of a poly-line (n, 2): one convex polygon of 8 corners per segment."""
    ends = np.concatenate([line[1:], line[:1]]) if closed else line[1:]
    starts = line if closed else line[:-1]
    direction = np.arctan2(ends[:, 1] - starts[:, 1], ends[:, 0] - starts[:, 0])  # (n,)
    turn = direction[:, None] + np.pi * np.array([0.5, 0.8333, 1.1667, 1.5])  # (n, 4) round the start, then the end
    cap = 0.5 * width * np.stack([np.cos(turn), np.sin(turn)], axis=2)  # (n, 4, 2)
    return list(np.concatenate([starts[:, None] + cap, ends[:, None] - cap], axis=1))  # n x (8, 2)


def reduced(canvas: np.ndarray, factor: int) -> np.ndarray:
    """Box-reduce the two leading axes by `factor`."""
    rows = sum(canvas[offset::factor] for offset in range(factor))
    assert isinstance(rows, np.ndarray)  # a sum of at least one
    total = sum(rows[:, offset::factor] for offset in range(factor))
    assert isinstance(total, np.ndarray)
    return total / factor**2


class Canvas:
    """A supersampled label image: 0 shows the background, k shows the k-th colour used."""

    def __init__(self) -> None:
        self.labels = np.zeros((CANVAS, CANVAS), np.uint8)
        self.colours: list[np.ndarray] = []

    def paint(self, mask: np.ndarray, colour: np.ndarray | None) -> None:
        """Show `colour` (3,) where the mask is set; None uncovers the background again."""
        if colour is None:
            self.labels[mask] = 0
        else:
            self.colours.append(colour)
            self.labels[mask] = len(self.colours)

    def fill(self, contours: list[np.ndarray], colour: np.ndarray | None) -> None:
        """Fill polygons given in canvas pixels."""
        self.paint(coverage(contours), colour)

    def stroke(self, line: np.ndarray, width: float, colour: np.ndarray, closed: bool = False) -> None:
        """Draw a poly-line given in canvas pixels."""
        self.paint(coverage(capsules(line, width, closed)), colour)

    def over(self, background: np.ndarray) -> np.ndarray:
        """The image (SIZE, SIZE, 3): the canvas reduced and laid over a background of that size."""
        image = background * reduced((self.labels == 0).view(np.uint8), FACTOR)[..., None]
        for label, colour in enumerate(self.colours, start=1):
            image = image + reduced((self.labels == label).view(np.uint8), FACTOR)[..., None] * colour
        return image


def pose(
    rng: np.random.Generator,
    scale: tuple[float, float],
    rotation: float,
    mirror: bool = False,
    squeeze: float = 0.08,
    shear: float = 0.08,
    tilt: float = 0.0,
) -> np.ndarray:
    """A random affine map (2, 3) from the unit box to canvas pixels that keeps the figure inside the frame.

    `scale` is the range of the figure's size as a fraction of the frame, `rotation` the largest angle in radians
    either way of `tilt`.
    """
    size = rng.uniform(*scale)
    angle = tilt + rng.uniform(-rotation, rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    stretch = np.diag(size * (1 - rng.uniform(0, squeeze, 2)))
    if mirror and rng.random() < 0.5:
        stretch[0] *= -1
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, rng.uniform(-shear, shear)], [0, 1]]) @ stretch
    shift = rng.uniform(-1, 1, 2) * (1 - size)
    return 0.5 * CANVAS * np.concatenate([linear, (1 + shift)[:, None]], axis=1)


def placed(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Points (n, 2) through an affine map (2, 3)."""
    return points @ affine[:, :2].T + affine[:, 2]


def _interpolation(cells: int, size: int) -> np.ndarray:
    """Matrix (size, cells + 1) that interpolates grid values with cosine weights."""
    position = np.arange(size) * (cells / size)
    left = position.astype(int)
    weight = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    matrix = np.zeros((size, cells + 1))
    matrix[np.arange(size), left] = 1 - weight
    matrix[np.arange(size), left + 1] = weight
    return matrix


_MATRICES = {(cells, size): _interpolation(cells, size) for cells in range(1, 13) for size in (SIZE, 2 * SIZE)}


def smooth_noise(rng: np.random.Generator, cells: int, size: int = SIZE) -> np.ndarray:
    """A smooth random field (size, size) in [0, 1] with about `cells` bumps per side."""
    matrix = _MATRICES[cells, size]
    return matrix @ rng.random((cells + 1, cells + 1)) @ matrix.T


@dataclass(frozen=True)
class Nuisance:
    """How badly an image is photographed."""

    noise: float  # largest standard deviation of the pixel noise, grey levels
    contrast: float  # largest relative change
    brightness: float  # largest shift, grey levels
    blur: float  # probability of a 3x3 binomial blur


def photograph(image: np.ndarray, rng: np.random.Generator, nuisance: Nuisance) -> np.ndarray:
    """Degrade a float image (SIZE, SIZE, 3) in [0, 255] and quantise it to uint8."""
    if rng.random() < nuisance.blur:
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        image = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    gain = 1 + rng.uniform(-nuisance.contrast, nuisance.contrast)
    image = (image - 128) * gain + 128 + rng.uniform(-nuisance.brightness, nuisance.brightness)
    image = image + rng.uniform(0, nuisance.noise) * rng.standard_normal(image.shape, np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)
