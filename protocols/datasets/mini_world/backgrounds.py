"""What lies behind a figure: plain colours, gradients, smooth noise, patterns and scenes."""

from typing import NamedTuple

import numpy as np

from .drawing import SIZE, smooth_noise
from .factors import COLOURS, PATTERNS, SCENES, jittered
from .patterns import pattern
from .scenes import scene

KINDS = ("plain", "gradient", "noise", "pattern", "scene")
_LEAST_DISTANCE = 110.0  # in RGB, between a figure and its background
_RAMP = np.linspace(0, 1, SIZE)
_NAMES = tuple(COLOURS)


class Background(NamedTuple):
    """An image and, if it is of one colour, that colour's name."""

    image: np.ndarray  # (SIZE, SIZE, 3)
    colour: str | None = None


def contrasting(rng: np.random.Generator, figure: np.ndarray, spread: float) -> tuple[str, np.ndarray]:
    """A random colour (name, RGB) that can be told from the figure's RGB."""
    while True:
        name = _NAMES[rng.integers(len(_NAMES))]
        colour = jittered(name, rng, spread)
        if np.abs(colour - figure).sum() > _LEAST_DISTANCE:
            return name, colour


def any_colour(rng: np.random.Generator, spread: float) -> np.ndarray:
    """A random RGB colour near one of the named ones."""
    return jittered(_NAMES[rng.integers(len(_NAMES))], rng, spread)


def paper(rng: np.random.Generator, figure: np.ndarray) -> tuple[str, np.ndarray]:
    """The web shop's colour (name, RGB): off-white, or off-black behind a light figure."""
    light = figure.mean() < 190
    level = rng.uniform(222, 255) if light else rng.uniform(0, 35)
    return "white" if light else "black", level + rng.uniform(-5, 5, 3)


def plain(name: str, colour: np.ndarray) -> Background:
    """One colour all over."""
    return Background(np.broadcast_to(colour, (SIZE, SIZE, 3)), name)


def background(
    rng: np.random.Generator,
    figure: np.ndarray,
    shares: tuple[float, float, float, float, float],
    spread: float = 22,
) -> Background:
    """A background for a figure of this RGB colour; `shares` are the probabilities of `KINDS`."""
    kind = KINDS[np.searchsorted(np.cumsum(shares[:-1]), rng.random(), side="right")]
    if kind == "scene":
        return Background(scene(SCENES[rng.integers(len(SCENES))], rng))
    name, colour = contrasting(rng, figure, spread)
    if kind == "plain":
        return plain(name, colour)
    other = contrasting(rng, figure, spread)[1]
    if kind == "pattern":
        return Background(pattern(PATTERNS[rng.integers(len(PATTERNS))], rng, 0.5 * (colour + other), other))
    if kind == "noise":
        weight = smooth_noise(rng, int(rng.integers(4, 9)))[..., None]
    else:
        horizontal, vertical = rng.uniform(-1, 1, 2)
        ramp = horizontal * _RAMP[None, :] + vertical * _RAMP[:, None]
        weight = ((ramp - ramp.min()) / (np.ptp(ramp) + 1e-9))[..., None]
    return Background(weight * colour + (1 - weight) * other)
