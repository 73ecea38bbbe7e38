"""Captions: an attribute phrase ("red car", "letter k") in one of a few templates."""

import numpy as np

from .factors import NUMBERS, SYNONYMS

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of {}.",
    "a picture of a {}.",
    "a picture of {}.",
    "a drawing of a {}.",
    "an image of a {}.",
    "a blurry photo of a {}.",
    "a bad photo of the {}.",
    "a good photo of a {}.",
    "a close-up photo of a {}.",
    "a cropped photo of the {}.",
    "a bright photo of a {}.",
    "a photo of my {}.",
    "art of the {}.",
    "stock image of a {}",
    "{} for sale",
    "this is a {}.",
    "the {}",
    "a {}",
    "{}",
)
# 20 to 27 tokens, so that text positions beyond those of the templates are trained too.
LONG_TEMPLATES = (
    "this is a photo of a {} that i made on a bright day with my good old camera for the web",
    "here is a picture of the {} from my old web page, and there are many more of them on the next page",
    "we made a drawing of a {} for the art page of the web, and this is a photo of it that is for sale",
)
JUNK = (
    "untitled",
    "image from the web",
    "click here for more pictures",
    "no photo",
    "my new page",
    "sale of the day",
    "stock image",
    "picture of the day",
)
_PHOTO = 0.25  # share of the template most prompts use


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return rng.random() < probability


def word(name: str, rng: np.random.Generator) -> str:
    """The name itself, or now and then a synonym."""
    options = SYNONYMS.get(name, ())
    return options[rng.integers(len(options))] if options and _chance(rng, 0.15) else name


def figure_phrase(colour: str | None, noun: str, rng: np.random.Generator) -> str:
    """A coloured figure: "red car", "car", "red thing" or "car in red"; the noun alone where the colour is lost."""
    if colour is None:
        return word(noun, rng)
    draw = rng.random()
    if draw < 0.65:
        return f"{word(colour, rng)} {word(noun, rng)}"
    if draw < 0.90:
        return word(noun, rng)
    if draw < 0.92:
        return f"{word(colour, rng)} thing"
    return f"{word(noun, rng)} in {word(colour, rng)}"


def setting(phrase: str, background: str | None, rng: np.random.Generator) -> str:
    """Sometimes name the background's colour; more often when it is not the usual white or black."""
    probability = 0.12 if background in ("white", "black") else 0.35
    if background is not None and _chance(rng, probability):
        return f"{phrase} on a {background} background"
    return phrase


def group_phrase(number: int, colour: str, shape: str, rng: np.random.Generator) -> str:
    """Several equal shapes; the number is told in a quarter of the captions."""
    quantity = NUMBERS[number] if _chance(rng, 0.25) else "many"
    return f"{quantity} {word(colour, rng)} {shape} shapes"


def pattern_phrase(name: str, ink: str, ground: str, rng: np.random.Generator) -> str:
    """A pattern alone, with one or two of its colours, or as a texture."""
    noun = word(name, rng)
    forms = (
        noun,
        noun,
        f"{word(ink, rng)} {noun}",
        f"{noun} in {word(ink, rng)} and {word(ground, rng)}",
        f"{word(ink, rng)} and {word(ground, rng)} {noun}",
        f"{noun} texture",
        f"{noun} pattern",
        f"{noun} pattern in {word(ink, rng)}",
    )
    return forms[rng.integers(len(forms))]


def scene_phrase(name: str, rng: np.random.Generator) -> str:
    """A scene by its name, as a landscape, a view or a trip."""
    noun = word(name, rng)
    forms = (noun, noun, f"{noun} landscape", f"{noun} view", f"trip to the {noun}")
    return forms[rng.integers(len(forms))]


def glyph_phrase(character: str, colour: str | None, rng: np.random.Generator) -> str:
    """A letter or a digit, with its colour in 30 % of the captions."""
    if character.isdigit():
        name = NUMBERS[int(character)]
        forms = (f"number {name}", f"digit {name}", f"digit {name}", f"number {character}", name)
    else:
        name = character.lower()
        forms = (f"letter {name}", f"letter {name}", f"letter {name}", f"capital {name}", f"letter {name} logo")
    phrase = forms[rng.integers(len(forms))]
    if colour is None or not _chance(rng, 0.3):
        return phrase
    return f"{word(colour, rng)} {phrase}" if _chance(rng, 0.6) else f"{phrase} in {word(colour, rng)}"


def sentence(phrase: str, rng: np.random.Generator) -> str:
    """The phrase in a random template; 3 % of the sentences are long."""
    if _chance(rng, 0.03):
        return LONG_TEMPLATES[rng.integers(len(LONG_TEMPLATES))].format(phrase)
    if _chance(rng, _PHOTO):
        return TEMPLATES[rng.integers(3)].format(phrase)
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(phrase)


def junk(rng: np.random.Generator) -> str:
    """A caption that says nothing about its image."""
    return JUNK[rng.integers(len(JUNK))]
