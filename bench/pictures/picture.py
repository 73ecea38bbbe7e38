"""A picture before it is drawn, and how it becomes a file: its title, what must be said beside it, and its size."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.pictures.form import Form, Size
from bench.pictures.labels import misplaced
from bench.pictures.style import MUTED, encode, look
from bench.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AS_EVER = Form()
LEAST_HEIGHT = 0.5  # inches below the title, in which something can be drawn at all


@dataclass(frozen=True)
class Picture:
    """A figure that can be drawn."""

    kind: str
    stem: str  # of its file
    title: str
    where: str  # the protocol, and what sets these runs apart
    note: str  # who competes and what is averaged: what a reader must know to read it
    draw: Callable[..., "Figure"]  # size: width and height in inches; by default as large as it takes
    warning: str = ""  # what is said above the picture even where nothing else is: that the numbers are not what they seem


def save(picture: Picture, folder: Path, format: str, form: Form = AS_EVER) -> Path:
    """Draw a picture with its title and note above it, into <folder>/<stem>.<format>."""
    with look(salt=picture.stem):
        figure = drawn(picture, form)
        path = folder / f"{picture.stem}.{format}"
        write_atomically(path, encode(figure, format))
    return path


def drawn(picture: Picture, form: Form = AS_EVER) -> "Figure":
    """The figure with its title and note; BenchError where they and what it says do not fit into the size that was asked for."""
    if form.size is None:
        figure = picture.draw()
        _put_above(figure, *_words(picture, form, figure.get_figwidth()))
        return figure
    from matplotlib.figure import Figure

    width, height = form.size
    top = _put_above(Figure(form.size), *_words(picture, form, width))
    if height - top < LEAST_HEIGHT:
        raise BenchError(_too_small(picture, form.size))
    with warnings.catch_warnings():  # matplotlib only warns where nothing is left for the axes
        warnings.filterwarnings("error", message="constrained_layout not applied")
        try:
            figure = picture.draw(size=(width, height - top))
            _put_above(figure, *_words(picture, form, width))
            fits = not misplaced(figure)
        except UserWarning:
            fits = False
    if not fits:
        raise BenchError(_too_small(picture, form.size))
    return figure


def _too_small(picture: Picture, size: Size) -> str:
    wanted = "a larger --size, fewer --methods, or --highlight with the few that matter"
    return f"{picture.stem}: what it says does not fit into {size[0]:g}x{size[1]:g} inches; give {wanted}"


def _words(picture: Picture, form: Form, width: float) -> tuple[list[str], list[str]]:
    """The lines of the title and of the note below it."""
    title = picture.title if form.title is None else form.title
    caption = picture.warning if form.title == "" else "; ".join(filter(None, [picture.where, picture.note]))
    return wrap(title, int(width * 11.5)), wrap(caption, int(width * 16))


def _put_above(figure: "Figure", title: list[str], note: list[str]) -> float:
    """Make a figure taller, with these lines in the room that is won. How many inches that is."""
    if not title and not note:
        return 0.0
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    top = 0.19 * len(title) + 0.155 * len(note) + 0.13  # inches
    width, height = figure.get_figwidth(), figure.get_figheight() + top
    figure.set_figheight(height)
    layout = figure.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):  # as bench.pictures.style.blank has made it
        layout.set(rect=(0, 0, 1, 1 - top / height))
    figure.text(0.06 / width, 1 - 0.07 / height, "\n".join(title), va="top", fontsize=10.5, fontweight="bold")
    figure.text(0.06 / width, 1 - (0.1 + 0.19 * len(title)) / height, "\n".join(note), va="top", fontsize=8, color=MUTED)
    return top
