"""What the mini world is made of: colours, nouns, synonyms and the compositions held out of pretraining."""

import hashlib
import random

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (245, 135, 25),
    "yellow": (245, 220, 40),
    "green": (40, 155, 55),
    "blue": (35, 70, 205),
    "purple": (120, 45, 160),
    "pink": (245, 140, 180),
    "brown": (120, 72, 35),
    "black": (22, 22, 22),
    "white": (245, 245, 245),
    "gray": (135, 135, 135),
    "cyan": (40, 205, 220),
}
CHROMATIC = tuple(colour for colour in COLOURS if colour not in ("black", "white", "gray"))

SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart",
    "moon", "diamond", "hexagon", "arrow", "rectangle", "drop", "bolt",
)  # fmt: skip
OBJECTS = (
    "house", "tree", "car", "boat", "fish", "cat", "cloud", "mushroom", "key", "cup", "umbrella", "balloon",
    "robot", "rocket", "bird", "butterfly", "table", "chair", "hat", "bottle", "flag", "cactus", "flower", "lamp",
)  # fmt: skip
PATTERNS = (
    "stripes", "dots", "checkerboard", "grid", "waves", "zigzag", "bricks",
    "speckles", "target", "rays", "marble", "plaid", "crosses", "camouflage",
)  # fmt: skip
SCENES = (
    "sunset", "night", "beach", "desert", "forest", "ocean",
    "mountains", "snow", "field", "city", "storm", "rainbow",
)  # fmt: skip
LETTERS = tuple("ABCEFGHJKLMNPRSTVWXZ")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SYNONYMS: dict[str, tuple[str, ...]] = {
    # colours
    "red": ("crimson", "scarlet"),
    "blue": ("navy",),
    "purple": ("violet",),
    "cyan": ("turquoise",),
    "gray": ("grey",),
    # shapes
    "circle": ("disc",),
    "cross": ("plus sign",),
    "ring": ("hoop",),
    "moon": ("crescent",),
    "diamond": ("rhombus",),
    "bolt": ("lightning bolt",),
    "drop": ("droplet",),
    # objects
    "house": ("home",),
    "car": ("automobile",),
    "boat": ("ship",),
    "cat": ("kitten",),
    "mushroom": ("toadstool",),
    "cup": ("mug",),
    "umbrella": ("parasol",),
    "rocket": ("spaceship",),
    "table": ("desk",),
    # patterns
    "stripes": ("lines",),
    "dots": ("spots",),
    "checkerboard": ("chessboard",),
    "plaid": ("tartan",),
    "bricks": ("brick wall",),
    # scenes
    "night": ("night sky",),
    "forest": ("woods",),
    "ocean": ("sea",),
    "city": ("skyline",),
    "desert": ("dunes",),
    "snow": ("winter",),
}


def world_seed(*parts: object) -> int:
    """A 64-bit seed from the parts' text: equal in every process, distinct for anagrams (unlike `hash` or sums).

    The mini world's own: every pixel, caption and held-out pair hangs on it. `bench.system.randomness.stable_seed`, from which
    runs draw, joins its parts otherwise and has 63 bits, so the two give different numbers for the same parts.
    """
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def jittered(colour: str, rng: np.random.Generator, spread: float) -> np.ndarray:
    """The RGB value (3,) of a colour name, each channel moved by up to `spread` grey levels."""
    return np.clip(np.array(COLOURS[colour]) + rng.uniform(-spread, spread, 3), 0, 255)


def _held_out(nouns: tuple[str, ...], pairs: int) -> tuple[tuple[str, str], ...]:
    """Choose `pairs` chromatic (colour, noun) pairs; every noun is used equally often, give or take one."""
    chooser = random.Random(world_seed("held out", len(nouns)))
    uses = [pairs // len(nouns) + (index < pairs % len(nouns)) for index in range(len(nouns))]
    chooser.shuffle(uses)
    return tuple((colour, noun) for noun, n in zip(nouns, uses, strict=True) for colour in chooser.sample(CHROMATIC, n))


HELD_OUT_SHAPES = _held_out(SHAPES, 20)
HELD_OUT_OBJECTS = _held_out(OBJECTS, 60)
HELD_OUT = frozenset(HELD_OUT_SHAPES + HELD_OUT_OBJECTS)
