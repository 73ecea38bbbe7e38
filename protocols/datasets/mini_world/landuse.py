"""Ten kinds of land seen from above; neither these words nor this look occur in pretraining."""

import numpy as np

from .drawing import SIZE, reduced, smooth_noise

GRID = 2 * SIZE
_AXIS = (np.arange(GRID) + 0.5) / GRID - 0.5
ROWS, COLUMNS = np.meshgrid(_AXIS, _AXIS, indexing="ij")  # (GRID, GRID) each, in [-0.5, 0.5]

KINDS = (
    "river", "road", "crossroads", "roundabout", "lake", "farmland", "woodland", "village", "coast", "car park",
)  # fmt: skip


def _tone(rng: np.random.Generator, *colour: float) -> np.ndarray:
    return np.array(colour) + rng.uniform(-14, 14, 3)


def _meadow(rng: np.random.Generator) -> np.ndarray:
    """Rough green-brown ground (GRID, GRID, 3)."""
    weight = (0.6 * smooth_noise(rng, 4, GRID) + 0.4 * smooth_noise(rng, 12, GRID))[..., None]
    return weight * _tone(rng, 84, 118, 60) + (1 - weight) * _tone(rng, 124, 132, 88)


def _rotated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The plane's coordinates after a random rotation and a small shift."""
    angle = rng.uniform(0, np.pi)
    dx, dy = rng.uniform(-0.12, 0.12, 2)
    u = np.cos(angle) * COLUMNS + np.sin(angle) * ROWS + dx
    v = np.cos(angle) * ROWS - np.sin(angle) * COLUMNS + dy
    return u, v


def _ways(kind: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mask of the tarmac of a road, crossroads or roundabout."""
    half = rng.uniform(0.03, 0.05)
    road = np.abs(v) < half
    if kind == "road":
        return road
    crossing = road | (np.abs(u) < half)
    if kind == "crossroads":
        return crossing
    radius = np.hypot(u, v)
    return (crossing & (radius > 0.2)) | (np.abs(radius - 0.2) < half)


def _farmland(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fields of different crops with furrows along either axis."""
    column, row = np.floor(u * 2.6 + 8).astype(int), np.floor(v * 2.6 + 8).astype(int)
    crop = rng.uniform(-1, 1, (16, 16))[row, column][..., None]
    along = (row + column) % 2 == 0
    furrow = np.sin(2 * np.pi * 11 * np.where(along, u, v))[..., None]
    return _tone(rng, 138, 142, 70) + crop * np.array([46, 22, 22]) + 12 * furrow


def _cars(rng: np.random.Generator) -> np.ndarray:
    """A grey lot with rows of coloured cars."""
    image = np.broadcast_to(_tone(rng, 112, 112, 116), (GRID, GRID, 3)).copy()
    shift_x, shift_y = rng.random(2)
    x, y = COLUMNS * 9 + 5 + shift_x, ROWS * 5 + 3 + shift_y
    column, row = x.astype(int), y.astype(int)
    parked = (rng.random((10, 16)) < 0.75)[row, column] & (np.abs(x % 1 - 0.5) < 0.28) & (np.abs(y % 1 - 0.5) < 0.32)
    paint = rng.uniform(20, 235, (10, 16, 3))[row, column]
    image[parked] = paint[parked]
    return image


def _roofs(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for _ in range(rng.integers(9, 16)):
        u, v = _rotated(rng)
        x, y = rng.uniform(-0.4, 0.4, 2)
        roof = (np.abs(u - x) < rng.uniform(0.03, 0.06)) & (np.abs(v - y) < rng.uniform(0.03, 0.05))
        image[roof] = _tone(rng, 172, 92, 74)
    return image


def aerial(kind: str, rng: np.random.Generator) -> np.ndarray:
    """An aerial tile (SIZE, SIZE, 3), float."""
    image = _meadow(rng)
    u, v = _rotated(rng)
    water = _tone(rng, 48, 84, 118)
    if kind in ("road", "crossroads", "roundabout"):
        image[_ways(kind, u, v, rng)] = _tone(rng, 150, 146, 142)
    elif kind == "river":
        bend = rng.uniform(0.08, 0.16) * np.sin(u * rng.uniform(6, 10) + rng.random() * 6.28)
        image[np.abs(v + bend) < rng.uniform(0.06, 0.1)] = water
    elif kind == "lake":
        shore = 0.24 + 0.16 * (smooth_noise(rng, 4, GRID) - 0.5)
        image[np.hypot(u * rng.uniform(0.8, 1.2), v) < shore] = water
    elif kind == "farmland":
        image = _farmland(u, v, rng)
    elif kind == "woodland":
        crown = (0.5 * smooth_noise(rng, 12, GRID) + 0.5 * rng.random((GRID, GRID)))[..., None]
        image = crown * _tone(rng, 62, 104, 44) + (1 - crown) * _tone(rng, 18, 46, 20)
    elif kind == "village":
        image = _roofs(image, rng)
    elif kind == "coast":
        edge = v + 0.1 * (smooth_noise(rng, 4, GRID) - 0.5)
        image[edge > -0.06] = _tone(rng, 206, 190, 150)
        image[edge > 0.0] = water
    else:
        image = _cars(rng)
    return np.clip(reduced(image, 2), 0, 255)
