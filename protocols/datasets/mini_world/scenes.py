"""The 12 scenes: sky gradient, ridges and details as closed-form functions of a window on the unit square."""

from collections.abc import Callable

import numpy as np

from .drawing import SIZE, reduced, smooth_noise

GRID = 2 * SIZE  # scenes are evaluated at twice the resolution and reduced
_AXIS = (np.arange(GRID) + 0.5) / GRID

Rgb = tuple[float, float, float]
Painter = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _tone(rng: np.random.Generator, colour: Rgb, spread: float = 14) -> np.ndarray:
    return np.array(colour) + rng.uniform(-spread, spread, 3)


def _sky(y: np.ndarray, rng: np.random.Generator, top: Rgb, bottom: Rgb, horizon: float = 0.7) -> np.ndarray:
    """A vertical gradient (GRID, GRID, 3) that reaches `bottom` at the horizon."""
    weight = np.clip(y / horizon, 0, 1)[..., None]
    return (1 - weight) * _tone(rng, top) + weight * _tone(rng, bottom)


def _put(image: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    image[mask] = colour


def _ridge(x: np.ndarray, rng: np.random.Generator, height: float, amplitude: float, waves: float) -> np.ndarray:
    """The y coordinate of a wavy skyline at every pixel."""
    phases = rng.random(2) * 2 * np.pi
    return height + amplitude * (0.7 * np.sin(waves * x + phases[0]) + 0.3 * np.sin(2.3 * waves * x + phases[1]))


def _peaks(x: np.ndarray, rng: np.random.Generator, base: float, height: float, count: float) -> np.ndarray:
    """The y coordinate of a saw-toothed skyline at every pixel."""
    position = x * count + rng.random()
    return base - height * (1 - 2 * np.abs(position % 1 - 0.5)) * (0.75 + 0.25 * np.sin(np.floor(position) * 2.7))


def _sunset(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (80, 40, 115), (250, 135, 60))
    cx, cy = rng.uniform(0.3, 0.7), rng.uniform(0.55, 0.68)
    glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) * 14)[..., None]
    image += glow * np.array([40, 70, 20])
    _put(image, np.hypot(x - cx, y - cy) < rng.uniform(0.08, 0.13), np.array([255.0, 235, 130]))
    _put(image, y > _ridge(x, rng, 0.76, 0.03, 6), _tone(rng, (55, 25, 45)))
    return image


def _night(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (6, 8, 26), (22, 26, 62), 1.0)
    for sx, sy in rng.random((26, 2)):
        _put(image, np.maximum(np.abs(x - sx), np.abs(y - sy)) < 0.017, np.array([240.0, 240, 210]))
    cx, cy = rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.4)
    moon = np.hypot(x - cx, y - cy) < 0.1
    _put(image, moon & (np.hypot(x - cx - 0.05, y - cy + 0.02) > 0.08), np.array([250.0, 245, 205]))
    return image


def _beach(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (95, 175, 240), (190, 225, 250), 0.4)
    horizon, shore = rng.uniform(0.32, 0.42), rng.uniform(0.55, 0.65)
    _put(image, y > horizon, _tone(rng, (30, 120, 190)))
    line = _ridge(x, rng, shore, 0.03, 5)
    _put(image, y > line - 0.03, np.array([240.0, 248, 250]))
    _put(image, y > line, _tone(rng, (240, 212, 150)))
    return image


def _desert(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (140, 190, 235), (245, 225, 190), 0.5)
    for height, colour in ((0.5, (232, 178, 98)), (0.64, (215, 150, 72)), (0.8, (190, 122, 52))):
        _put(image, y > _ridge(x, rng, height, 0.06, 5), _tone(rng, colour, 8))
    return image


def _forest(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    leaves = smooth_noise(rng, 9, GRID)[..., None]
    image = (1 - leaves) * _tone(rng, (15, 60, 28)) + leaves * _tone(rng, (70, 140, 60))
    for trunk in (np.arange(4) + rng.uniform(0.2, 0.8, 4)) / 4:
        wide = rng.uniform(0.03, 0.05)
        _put(image, (np.abs(x - trunk) < wide) & (y > rng.uniform(0.2, 0.4)), _tone(rng, (74, 48, 28), 8))
    _put(image, y > 0.92, _tone(rng, (52, 60, 26)))
    return image


def _ocean(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (120, 190, 240), (205, 232, 248), 0.35)
    horizon = rng.uniform(0.25, 0.38)
    crest = np.sin(2 * np.pi * (y * rng.uniform(7, 9) + 0.25 * np.sin(x * rng.uniform(14, 20)))) > 0.35
    sea = y > horizon
    _put(image, sea, _tone(rng, (22, 82, 160)))
    _put(image, sea & crest, _tone(rng, (70, 150, 210)))
    return image


def _mountains(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (90, 160, 230), (200, 225, 245), 0.7)
    far = _peaks(x, rng, 0.75, 0.5, rng.uniform(1.6, 2.4))
    _put(image, y > far, _tone(rng, (98, 104, 124)))
    _put(image, (y > far) & (y < far + 0.12) & (y < 0.52), np.array([245.0, 248, 252]))
    _put(image, y > _peaks(x, rng, 0.95, 0.3, rng.uniform(2, 3)), _tone(rng, (62, 76, 80)))
    return image


def _snow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (165, 185, 210), (205, 216, 230), 0.7)
    _put(image, y > _ridge(x, rng, 0.68, 0.05, 5), np.array([244.0, 247, 252]))
    for fx, fy in rng.random((30, 2)):
        _put(image, np.hypot(x - fx, y - fy) < 0.022, np.array([255.0, 255, 255]))
    return image


def _field(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (105, 180, 245), (195, 228, 250), 0.5)
    horizon, vanish = rng.uniform(0.42, 0.52), rng.uniform(0.3, 0.7)
    ground = y > horizon
    row = (x - vanish) / (y - horizon + 0.06) * rng.uniform(0.9, 1.4) % 1 < 0.5
    _put(image, ground, _tone(rng, (80, 160, 55)))
    _put(image, ground & row, _tone(rng, (128, 192, 70)))
    return image


def _city(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (120, 140, 180), (210, 205, 205), 0.9)
    count = 6
    house = np.floor(x * count).astype(int)
    roof = rng.uniform(0.2, 0.6, count)[house]
    shade = (rng.uniform(50, 105, count)[house])[..., None] * np.array([0.9, 0.95, 1.15])
    wall = (y > roof) & (x * count % 1 > 0.06)
    image[wall] = shade[wall]
    lit = rng.random((18, 18)) < 0.75
    window = (x * 18 % 1 > 0.35) & (y * 18 % 1 > 0.45) & lit[(y * 18).astype(int), (x * 18).astype(int)]
    _put(image, wall & window, _tone(rng, (250, 220, 120)))
    return image


def _storm(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cloud = smooth_noise(rng, 4, GRID)[..., None]
    image = (1 - cloud) * _tone(rng, (38, 42, 54)) + cloud * _tone(rng, (112, 116, 128))
    path = rng.uniform(0.3, 0.7) + np.cumsum(rng.uniform(-0.12, 0.12, 8))  # lightning, one x per eighth of the height
    at = np.interp(y[:, 0], np.linspace(0, 0.85, 8), path)[:, None]
    _put(image, (np.abs(x - at) < 0.03) & (y < 0.8), np.array([255.0, 252, 205]))
    _put(image, y > 0.85, _tone(rng, (34, 40, 36)))
    return image


def _rainbow(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = _sky(y, rng, (120, 185, 240), (210, 232, 248), 0.8)
    radius = np.hypot(x - rng.uniform(0.4, 0.6), y - rng.uniform(0.8, 0.9))
    outer = rng.uniform(0.5, 0.62)
    bands = ((225, 50, 50), (245, 150, 50), (245, 225, 70), (70, 180, 80), (60, 90, 215), (130, 60, 170))
    for index, colour in enumerate(bands):
        _put(image, np.abs(radius - outer + 0.05 * index) < 0.025, np.array(colour, float))
    _put(image, y > _ridge(x, rng, 0.82, 0.03, 5), _tone(rng, (84, 160, 66)))
    return image


PAINTERS: dict[str, Painter] = {
    "sunset": _sunset,
    "night": _night,
    "beach": _beach,
    "desert": _desert,
    "forest": _forest,
    "ocean": _ocean,
    "mountains": _mountains,
    "snow": _snow,
    "field": _field,
    "city": _city,
    "storm": _storm,
    "rainbow": _rainbow,
}


def scene(name: str, rng: np.random.Generator, window: float = 1.0) -> np.ndarray:
    """A scene image (SIZE, SIZE, 3), float; `window` < 1 shows a random crop of that relative side."""
    left, top = rng.random(2) * (1 - window)
    y, x = np.meshgrid(top + window * _AXIS, left + window * _AXIS, indexing="ij")  # (GRID, GRID) each
    if rng.random() < 0.5:
        x = 1 - x
    return np.clip(reduced(PAINTERS[name](x, y, rng), 2), 0, 255)
