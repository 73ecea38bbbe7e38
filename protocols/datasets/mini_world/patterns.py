"""The 14 two-colour patterns as closed-form masks over a plane measured in periods."""

from collections.abc import Callable

import numpy as np

from .drawing import SIZE, reduced, smooth_noise

GRID = 2 * SIZE  # patterns are evaluated at twice the resolution and reduced
_AXIS = (np.arange(GRID) + 0.5) / GRID - 0.5
ROWS, COLUMNS = np.meshgrid(_AXIS, _AXIS, indexing="ij")  # (GRID, GRID) each, in [-0.5, 0.5]

Field = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _cell(value: np.ndarray) -> np.ndarray:
    """Signed distance from the middle of the period, in [-0.5, 0.5)."""
    return value % 1 - 0.5


def _stripes(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    across = (u, v, (u + v) * 0.7071, (u - v) * 0.7071)[rng.integers(4)]
    return across % 1 < 0.5


def _dots(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.hypot(_cell(u), _cell(v)) < rng.uniform(0.26, 0.34)


def _checkerboard(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (np.floor(u) + np.floor(v)) % 2 == 0


def _grid(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    line = rng.uniform(0.14, 0.24)
    return (u % 1 < line) | (v % 1 < line)


def _waves(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (v * 1.2 + 0.28 * np.sin(2 * np.pi * u * 0.8)) % 1 < 0.5


def _zigzag(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (v * 1.2 + 1.1 * np.abs(_cell(u * 0.9))) % 1 < 0.5


def _bricks(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    course = np.floor(v * 1.6)
    return (v * 1.6 % 1 > 0.2) & ((u * 0.8 + 0.5 * course) % 1 > 0.12)


def _speckles(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.kron(rng.random((SIZE, SIZE)) < rng.uniform(0.3, 0.5), np.ones((2, 2), bool))


def _target(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.hypot(u, v) * 0.8 % 1 < 0.5


def _rays(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (np.arctan2(v, u) * (rng.integers(5, 9) / (2 * np.pi)) + rng.random()) % 1 < 0.5


def _marble(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drift = smooth_noise(rng, 5, GRID) + 0.5 * smooth_noise(rng, 9, GRID)
    return np.abs(np.sin(np.pi * (0.35 * (u + v) + 2.6 * drift))) < 0.42


def _plaid(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 0.5 * (u % 1 < 0.5) + 0.5 * (v % 1 < 0.5)


def _crosses(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    a, b = np.abs(_cell(u)), np.abs(_cell(v))
    return (np.minimum(a, b) < 0.11) & (np.maximum(a, b) < 0.36)


def _camouflage(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return smooth_noise(rng, int(rng.integers(4, 7)), GRID) > 0.5


FIELDS: dict[str, Field] = {
    "stripes": _stripes,
    "dots": _dots,
    "checkerboard": _checkerboard,
    "grid": _grid,
    "waves": _waves,
    "zigzag": _zigzag,
    "bricks": _bricks,
    "speckles": _speckles,
    "target": _target,
    "rays": _rays,
    "marble": _marble,
    "plaid": _plaid,
    "crosses": _crosses,
    "camouflage": _camouflage,
}
CENTRED = frozenset({"target", "rays"})


def pattern(
    name: str,
    rng: np.random.Generator,
    ink: np.ndarray,
    ground: np.ndarray,
    tilt: float = 0.12,
    frequency: tuple[float, float] = (2.2, 4.0),
    warp: float = 0.0,
) -> np.ndarray:
    """A pattern image (SIZE, SIZE, 3) in two RGB colours.

    `tilt` is the largest rotation in radians, `frequency` the range of periods per image, `warp` the displacement of
    the plane by smooth noise as a fraction of the image.
    """
    periods, angle = rng.uniform(*frequency), rng.uniform(-tilt, tilt)
    x, y = COLUMNS, ROWS
    if warp:
        x = x + warp * (smooth_noise(rng, 3, GRID) - 0.5)
        y = y + warp * (smooth_noise(rng, 3, GRID) - 0.5)
    shift = rng.uniform(-0.15, 0.15, 2) * periods if name in CENTRED else rng.random(2) * 4
    u = periods * (np.cos(angle) * x - np.sin(angle) * y) + shift[0]
    v = periods * (np.sin(angle) * x + np.cos(angle) * y) + shift[1]
    mask = reduced(FIELDS[name](u, v, rng).astype(np.float64), 2)[..., None]  # (SIZE, SIZE, 1)
    return mask * ink + (1 - mask) * ground
