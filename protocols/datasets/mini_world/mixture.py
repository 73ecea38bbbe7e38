"""The pretraining mixture: "web product photos" with captions, free of the held-out compositions."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import captions
from .backgrounds import Background, background, contrasting, paper, plain
from .drawing import CANVAS, SIZE, Canvas, Nuisance, photograph, placed, pose
from .factors import COLOURS, HELD_OUT, LETTERS, OBJECTS, PATTERNS, SCENES, SHAPES, jittered
from .figures import FIGURES, MIRRORED, draw_filled, draw_outlined
from .letters import font_mask
from .patterns import pattern
from .scenes import scene

CAMERA = Nuisance(noise=7, contrast=0.15, brightness=18, blur=0.1)
STUDIO_SHARE = 0.6  # backgrounds that are plain off-white or off-black
OTHER_BACKGROUNDS = (0.65, 0.17, 0.08, 0.05, 0.05)
SPREAD = 22  # jitter of a named colour, grey levels per channel
GREY_SHARE = 0.03  # images that lost their colours; their captions name none
_COLOUR_NAMES = tuple(COLOURS)
_FRAME = 0.5 * CANVAS * np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])  # the unit box fills the canvas


class Sample(NamedTuple):
    """One drawn pair before the camera."""

    image: np.ndarray  # (SIZE, SIZE, 3), float
    phrase: str
    figures: list[tuple[str, str]]  # every (colour, noun) shown


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[rng.integers(len(names))]


def _allowed(rng: np.random.Generator, nouns: tuple[str, ...]) -> tuple[str, str]:
    """A random (colour, noun) that is not held out, by rejection."""
    while True:
        figure = (_pick(rng, _COLOUR_NAMES), _pick(rng, nouns))
        if figure not in HELD_OUT:
            return figure


def _behind(rng: np.random.Generator, main: np.ndarray) -> Background:
    if rng.random() < STUDIO_SHARE:
        return plain(*paper(rng, main))
    return background(rng, main, OTHER_BACKGROUNDS, SPREAD)


def _paint(
    canvas: Canvas, noun: str, main: np.ndarray, affine: np.ndarray, rng: np.random.Generator, outlined: float = 0
) -> None:
    """Draw one figure, with probability `outlined` by its edges only."""
    if rng.random() < outlined:
        draw_outlined(canvas, noun, affine, main, rng.uniform(1.2, 2.4))
    else:
        draw_filled(canvas, noun, affine, {"main": main, "accent": contrasting(rng, main, SPREAD)[1]})


def _figure(rng: np.random.Generator, nouns: tuple[str, ...], outlined: float, grey: bool) -> Sample:
    colour, noun = _allowed(rng, nouns)
    main = jittered(colour, rng, SPREAD)
    image, ground = _behind(rng, main)
    canvas = Canvas()
    affine = pose(rng, (0.66, 0.97), 0.15, noun in MIRRORED)
    _paint(canvas, noun, main, affine, rng, outlined)
    if grey:
        return Sample(canvas.over(image), captions.figure_phrase(None, noun, rng), [(colour, noun)])
    phrase = captions.setting(captions.figure_phrase(colour, noun, rng), ground, rng)
    return Sample(canvas.over(image), phrase, [(colour, noun)])


def _shape(rng: np.random.Generator, grey: bool) -> Sample:
    return _figure(rng, SHAPES, 0.12, grey)


def _object(rng: np.random.Generator, grey: bool) -> Sample:
    return _figure(rng, OBJECTS, 0.04, grey)


def _pattern(rng: np.random.Generator, grey: bool) -> Sample:
    name, ink = _pick(rng, PATTERNS), _pick(rng, _COLOUR_NAMES)
    ink_colour = jittered(ink, rng, SPREAD)
    if rng.random() < 0.5:  # dark on light, as printed
        ground, ground_colour = paper(rng, ink_colour)
    else:
        ground, ground_colour = contrasting(rng, ink_colour, SPREAD)
    image = pattern(name, rng, ink_colour, ground_colour)
    phrase = captions.word(name, rng) if grey else captions.pattern_phrase(name, ink, ground, rng)
    return Sample(image, phrase, [])


def _scene(rng: np.random.Generator, grey: bool) -> Sample:
    name = _pick(rng, SCENES)
    return Sample(scene(name, rng), captions.scene_phrase(name, rng), [])


def _glyph(rng: np.random.Generator, grey: bool) -> Sample:
    digit = rng.random() < 0.4
    character = str(rng.integers(10)) if digit else _pick(rng, LETTERS)
    colour = _pick(rng, _COLOUR_NAMES)
    main = jittered(colour, rng, SPREAD)
    image, ground = _behind(rng, main)
    canvas = Canvas()
    affine = pose(rng, (0.8, 1.15), 0.12, squeeze=0.2, shear=0.3)
    canvas.paint(font_mask(character, affine, int(rng.integers(0, 8))), main)
    phrase = captions.glyph_phrase(character, None if grey else colour, rng)
    return Sample(canvas.over(image), phrase if grey else captions.setting(phrase, ground, rng), [])


def _two_objects(rng: np.random.Generator, grey: bool) -> Sample:
    canvas, figures = Canvas(), []
    image = None
    for offset in (-0.25, 0.25):
        colour, noun = _allowed(rng, OBJECTS)
        main = jittered(colour, rng, SPREAD)
        if image is None:
            image, _ = _behind(rng, main)
        affine = pose(rng, (0.42, 0.5), 0.15, noun in MIRRORED)
        affine[0, 2] = CANVAS * (0.5 + offset)
        _paint(canvas, noun, main, affine, rng)
        figures.append((colour, noun))
    assert image is not None  # the first object has one drawn behind it
    parts = [f"{captions.word(colour, rng)} {captions.word(noun, rng)}" for colour, noun in figures]
    if grey:
        parts = [noun for _, noun in figures]
    return Sample(canvas.over(image), f"{parts[0]} and a {parts[1]}", figures)


def _object_in_scene(rng: np.random.Generator, grey: bool) -> Sample:
    colour, noun = _allowed(rng, OBJECTS)
    name = _pick(rng, SCENES)
    main = jittered(colour, rng, SPREAD)
    canvas = Canvas()
    _paint(canvas, noun, main, pose(rng, (0.5, 0.8), 0.15, noun in MIRRORED), rng)
    phrase = captions.figure_phrase(None if grey else colour, noun, rng)
    return Sample(canvas.over(scene(name, rng)), f"{phrase} and {captions.word(name, rng)}", [(colour, noun)])


def _group(rng: np.random.Generator, grey: bool) -> Sample:
    """Two to eight equal shapes on a jittered 3 x 3 lattice."""
    colour, shape = _allowed(rng, SHAPES)
    main = jittered(colour, rng, SPREAD)
    image, _ = _behind(rng, main)
    number = int(rng.integers(2, 9))
    size = rng.uniform(0.18, 0.26)
    canvas = Canvas()
    for cell in rng.permutation(9)[:number]:
        centre = (np.array([cell % 3, cell // 3]) - 1) * 0.62 + rng.uniform(-0.08, 0.08, 2)
        canvas.fill([placed(contour * size + centre, _FRAME) for contour in FIGURES[shape][0].contours], main)
    phrase = "many shapes" if grey else captions.group_phrase(number, colour, shape, rng)
    return Sample(canvas.over(image), phrase, [(colour, shape)])


KINDS: dict[str, tuple[float, Callable[[np.random.Generator, bool], Sample]]] = {
    "shape": (0.22, _shape),
    "object": (0.285, _object),
    "pattern": (0.16, _pattern),
    "scene": (0.05, _scene),
    "glyph": (0.185, _glyph),
    "two objects": (0.03, _two_objects),
    "object in scene": (0.03, _object_in_scene),
    "group": (0.04, _group),
}
JUNK_SHARE = 0.01


def mixture(n: int, seed: int) -> tuple[np.ndarray, list[str], list[dict]]:
    """Draw `n` pairs: images (n, SIZE, SIZE, 3) uint8, their captions, and what is in each of them.

    A factor record has `kind` (a key of KINDS), `figures` (every coloured noun shown) and `junk` (whether the caption
    says nothing about the image).
    """
    rng = np.random.default_rng(seed)
    names, shares = list(KINDS), np.array([share for share, _ in KINDS.values()])
    kinds = rng.choice(len(names), size=n, p=shares / shares.sum())
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    texts, factors = [], []
    for index, kind in enumerate(kinds):
        grey, is_junk = rng.random() < GREY_SHARE, rng.random() < JUNK_SHARE
        sample = KINDS[names[kind]][1](rng, grey)
        image = np.repeat(sample.image.mean(axis=2, keepdims=True), 3, axis=2) if grey else sample.image
        images[index] = photograph(image, rng, CAMERA)
        texts.append(captions.junk(rng) if is_junk else captions.sentence(sample.phrase, rng))
        factors.append({"kind": names[kind], "figures": sample.figures, "junk": is_junk})
    return images, texts, factors
