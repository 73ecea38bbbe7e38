"""Glyphs twice: poly-line capitals for the downstream letters, a scalable font's glyphs for pretraining."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .drawing import CANVAS, arc

# Each letter is a list of pen strokes in the box [-1, 1] x [-1, 1].
_BOWL = arc(-0.6, -0.5, 1.1, 0.5, -90, 90, 8)  # the upper bowl of B, P and R
_Stroke = np.ndarray | list[tuple[float, float]]
_PEN: dict[str, list[_Stroke]] = {
    "A": [[(-0.75, 1), (0, -1), (0.75, 1)], [(-0.45, 0.3), (0.45, 0.3)]],
    "B": [[(-0.6, 1), (-0.6, -1)], _BOWL, arc(-0.6, 0.5, 1.2, 0.5, -90, 90, 8)],
    "C": [arc(0.1, 0, 0.8, 1, 310, 50, 12)],
    "E": [[(0.6, -1), (-0.6, -1), (-0.6, 1), (0.6, 1)], [(-0.6, 0), (0.4, 0)]],
    "F": [[(0.6, -1), (-0.6, -1), (-0.6, 1)], [(-0.6, 0), (0.4, 0)]],
    "G": [arc(0.05, 0, 0.8, 1, 310, 60, 12), [(0.15, 0.15), (0.75, 0.15), (0.7, 0.85)]],
    "H": [[(-0.65, -1), (-0.65, 1)], [(0.65, -1), (0.65, 1)], [(-0.65, 0), (0.65, 0)]],
    "J": [np.concatenate([[(0.5, -1)], arc(0, 0.5, 0.5, 0.5, 0, 160, 8)])],
    "K": [[(-0.6, -1), (-0.6, 1)], [(0.65, -1), (-0.6, 0.15)], [(-0.2, -0.2), (0.7, 1)]],
    "L": [[(-0.5, -1), (-0.5, 1), (0.65, 1)]],
    "M": [[(-0.8, 1), (-0.75, -1), (0, 0.5), (0.75, -1), (0.8, 1)]],
    "N": [[(-0.65, 1), (-0.65, -1), (0.65, 1), (0.65, -1)]],
    "P": [[(-0.6, 1), (-0.6, -1)], _BOWL],
    "R": [[(-0.6, 1), (-0.6, -1)], _BOWL, [(-0.1, 0), (0.6, 1)]],
    "S": [np.concatenate([arc(0, -0.5, 0.6, 0.5, 330, 90, 8), arc(0, 0.5, 0.6, 0.5, -90, 150, 8)])],
    "T": [[(-0.8, -1), (0.8, -1)], [(0, -1), (0, 1)]],
    "V": [[(-0.75, -1), (0, 1), (0.75, -1)]],
    "W": [[(-0.9, -1), (-0.45, 1), (0, -0.4), (0.45, 1), (0.9, -1)]],
    "X": [[(-0.7, -1), (0.7, 1)], [(0.7, -1), (-0.7, 1)]],
    "Z": [[(-0.65, -1), (0.65, -1), (-0.65, 1), (0.65, 1)]],
}
STROKES: dict[str, list[np.ndarray]] = {
    letter: [np.asarray(stroke, float) for stroke in strokes] for letter, strokes in _PEN.items()
}


@cache
def _glyph(character: str, weight: int) -> Image.Image:
    """A centred grey-scale glyph (CANVAS, CANVAS) of Pillow's own font, `weight` pixels bolder than regular."""
    image = Image.new("L", (CANVAS, CANVAS))
    font = ImageFont.load_default(size=100)
    middle = (CANVAS / 2, CANVAS / 2)
    left, top, right, bottom = font.getbbox(character, stroke_width=weight)
    corner = (middle[0] - (left + right) / 2, middle[1] - (top + bottom) / 2)
    ImageDraw.Draw(image).text(corner, character, fill=255, font=font, stroke_width=weight)
    return image


def font_mask(character: str, affine: np.ndarray, weight: int) -> np.ndarray:
    """Mask (CANVAS, CANVAS) of a font glyph seen through an affine map (2, 3) from the unit box to the canvas."""
    inverse = np.linalg.inv(affine[:, :2])
    half = CANVAS / 2
    linear = inverse * half  # canvas pixel -> glyph pixel
    offset = half - linear @ affine[:, 2]
    matrix = (*linear[0], offset[0], *linear[1], offset[1])
    glyph, bilinear = _glyph(character, weight), Image.Resampling.BILINEAR
    return np.asarray(glyph.transform((CANVAS, CANVAS), Image.Transform.AFFINE, matrix, bilinear)) > 127
