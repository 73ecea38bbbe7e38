"""The nine downstream data sets: harder photographs of seen and unseen things, drawn on the machine they run on."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from .backgrounds import any_colour, background, contrasting
from .drawing import CANVAS, FACTOR, SIZE, Canvas, Nuisance, ellipse, photograph, placed, pose
from .factors import (
    HELD_OUT_OBJECTS,
    HELD_OUT_SHAPES,
    LETTERS,
    NUMBERS,
    OBJECTS,
    PATTERNS,
    SCENES,
    jittered,
    world_seed,
)
from .figures import MIRRORED, draw_filled, draw_outlined, wobble
from .landuse import KINDS, aerial
from .letters import STROKES
from .patterns import pattern
from .scenes import scene

SEED = 0
CAMERA = Nuisance(noise=22, contrast=0.3, brightness=25, blur=0.3)
BACKGROUNDS = (0.45, 0.15, 0.15, 0.15, 0.10)
SPREAD = 30  # jitter of a named colour, grey levels per channel
TILT = 0.28  # radians by which every letter and sketch leans: a shift that training can learn, unlike mere noise
_SEPIA = np.array([1.07, 0.99, 0.82])


@dataclass(frozen=True)
class MiniDataset:
    """A data set by its words; the images come from `draw`."""

    name: str
    class_names: tuple[str, ...]
    template: str
    train_per_class: int
    test_per_class: int


def _dots(label: int, rng: np.random.Generator) -> np.ndarray:
    """`label` + 1 dots that do not touch; after too many failures the dots shrink."""
    main = any_colour(rng, SPREAD)
    ground = contrasting(rng, main, SPREAD)[1]
    radius, tries = rng.uniform(0.17, 0.21), 0
    centres: list[np.ndarray] = []
    while len(centres) <= label:
        centre = rng.uniform(-1 + radius, 1 - radius, 2)
        if all(np.hypot(*(centre - other)) > 2.4 * radius for other in centres):
            centres.append(centre)
        tries += 1
        if tries % 50 == 0:
            radius *= 0.9
    canvas = Canvas()
    for x, y in centres:
        canvas.fill([0.5 * CANVAS * (1 + ellipse(x, y, radius, radius, 16))], main)
    return photograph(canvas.over(np.broadcast_to(ground, (SIZE, SIZE, 3))), rng, CAMERA)


def _aerial(label: int, rng: np.random.Generator) -> np.ndarray:
    return photograph(aerial(KINDS[label], rng), rng, CAMERA)


def _letter(label: int, rng: np.random.Generator) -> np.ndarray:
    main = any_colour(rng, SPREAD)
    affine = pose(rng, (0.55, 0.85), 0.15, squeeze=0.2, shear=0.15, tilt=TILT)
    width = rng.uniform(2.2, 4.6) * FACTOR
    canvas = Canvas()
    for stroke in STROKES[LETTERS[label]]:
        canvas.stroke(wobble(placed(stroke, affine), rng, 2.2), width, main)
    return photograph(canvas.over(background(rng, main, BACKGROUNDS, SPREAD).image), rng, CAMERA)


def _figure(colour: str, noun: str, rotation: float, rng: np.random.Generator) -> np.ndarray:
    main = jittered(colour, rng, SPREAD)
    canvas = Canvas()
    affine = pose(rng, (0.4, 0.9), rotation, noun in MIRRORED)
    draw_filled(canvas, noun, affine, {"main": main, "accent": contrasting(rng, main, SPREAD)[1]})
    return photograph(canvas.over(background(rng, main, BACKGROUNDS, SPREAD).image), rng, CAMERA)


def _object(label: int, rng: np.random.Generator) -> np.ndarray:
    return _figure(*HELD_OUT_OBJECTS[label], 0.25, rng)


def _shape(label: int, rng: np.random.Generator) -> np.ndarray:
    return _figure(*HELD_OUT_SHAPES[label], 0.5, rng)


def _scene(label: int, rng: np.random.Generator) -> np.ndarray:
    """A crop of a scene; every second one faded to sepia."""
    image = scene(SCENES[label], rng, rng.uniform(0.45, 0.8))
    if rng.random() < 0.5:
        image = image.mean(axis=2, keepdims=True) * _SEPIA
    return photograph(image, rng, CAMERA)


def _sketch(label: int, rng: np.random.Generator) -> np.ndarray:
    noun = OBJECTS[label]
    levels = (rng.uniform(0, 45), rng.uniform(215, 255))
    ink, paper = levels if rng.random() < 0.5 else levels[::-1]
    canvas = Canvas()
    affine = pose(rng, (0.6, 0.92), 0.2, noun in MIRRORED, tilt=TILT)
    draw_outlined(canvas, noun, affine, np.full(3, ink), rng.uniform(0.8, 1.5), lambda line: wobble(line, rng, 1.3))
    return photograph(canvas.over(np.full((SIZE, SIZE, 3), paper)), rng, CAMERA)


def _texture(label: int, rng: np.random.Generator) -> np.ndarray:
    """A warped pattern under uneven light."""
    ink = any_colour(rng, SPREAD)
    ground = contrasting(rng, ink, SPREAD)[1]
    image = pattern(PATTERNS[label], rng, ink, ground, tilt=0.25, frequency=(2.0, 4.2), warp=rng.uniform(0.1, 0.3))
    slope = rng.uniform(-0.35, 0.35, 2)
    ramp = np.linspace(-1, 1, SIZE)
    light = 1 + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]  # (SIZE, SIZE)
    return photograph(image * light[..., None], rng, CAMERA)


def _digits(split: str, per_class: int) -> np.ndarray:
    """Scikit-learn's handwritten digits, 8 x 8 interpolated to 26 x 26 and centred: (10 * per_class, SIZE, SIZE, 3)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    by_class = [np.flatnonzero(labels == label) for label in range(10)]
    chosen = np.concatenate([rows[:per_class] if split == "train" else rows[-per_class:] for rows in by_class])
    side = 26
    position = np.clip((np.arange(side) + 0.5) * 8 / side - 0.5, 0, 7)
    matrix = np.stack([np.interp(position, np.arange(8), unit) for unit in np.eye(8)], axis=1)  # (26, 8)
    enlarged = matrix @ (images[chosen].reshape(-1, 8, 8) * (255 / 16)) @ matrix.T  # (n, 26, 26)
    margin = (SIZE - side) // 2
    padded = np.pad(enlarged, ((0, 0), (margin, margin), (margin, margin)))
    return np.repeat((padded + 0.5).astype(np.uint8)[..., None], 3, axis=3)


_PHOTO = "a photo of a {}."
DATASETS: dict[str, MiniDataset] = {
    dataset.name: dataset
    for dataset in (
        MiniDataset("counts", ("one dot", *(f"{n} dots" for n in NUMBERS[2:9])), "a photo of {}.", 50, 40),
        MiniDataset("digits", tuple(f"digit {n}" for n in NUMBERS), "a photo of the {}.", 50, 40),
        MiniDataset("landuse", KINDS, _PHOTO, 50, 40),
        MiniDataset("letters", tuple(f"letter {c.lower()}" for c in LETTERS), _PHOTO, 50, 40),
        MiniDataset("objects", tuple(f"{c} {n}" for c, n in HELD_OUT_OBJECTS), _PHOTO, 30, 15),
        MiniDataset("scenes", SCENES, _PHOTO, 50, 40),
        MiniDataset("shapes", tuple(f"{c} {n}" for c, n in HELD_OUT_SHAPES), _PHOTO, 50, 40),
        MiniDataset("sketches", OBJECTS[:20], _PHOTO, 50, 40),
        MiniDataset("textures", PATTERNS, "a photo of {}.", 50, 40),
    )
}
# The image (SIZE, SIZE, 3) uint8 of a class index; digits are the one set that is not drawn.
_PAINTERS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "counts": _dots,
    "landuse": _aerial,
    "letters": _letter,
    "objects": _object,
    "scenes": _scene,
    "shapes": _shape,
    "sketches": _sketch,
    "textures": _texture,
}


def draw(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images (n, 32, 32, 3) uint8 and labels (n,) int64 of a split, class after class; equal on every call."""
    if name not in DATASETS or split not in ("train", "test"):
        raise ValueError(f"no {split!r} split of {name!r}; the mini world has train and test of {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    per_class = dataset.train_per_class if split == "train" else dataset.test_per_class
    labels = np.repeat(np.arange(len(dataset.class_names)), per_class)
    if name == "digits":
        return _digits(split, per_class), labels
    images = []
    for label, class_name in enumerate(dataset.class_names):
        rng = np.random.default_rng(world_seed(SEED, name, split, class_name))
        images += [_PAINTERS[name](label, rng) for _ in range(per_class)]
    return np.stack(images), labels


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    """The sha256 of the shapes, pixels and labels."""
    content = hashlib.sha256(f"{images.shape}{labels.shape}".encode())
    content.update(np.ascontiguousarray(images, np.uint8).tobytes())
    content.update(np.ascontiguousarray(labels, "<i8").tobytes())
    return content.hexdigest()


@cache
def _pinned() -> dict[str, dict[str, str]]:
    return json.loads(resources.files(__package__).joinpath("digests.json").read_text())


def pinned_digest(name: str, split: str) -> str:
    """The digest this split had when the shipped numbers were measured."""
    return _pinned()[name][split]
