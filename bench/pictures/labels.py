"""Names beside lines and points, so that none covers another one and none leaves the picture."""

from collections.abc import Sequence
from textwrap import fill, wrap
from typing import TYPE_CHECKING

import numpy as np

from bench.pictures.style import INK, MUTED, OTHERS, REFERENCE, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

SIZES = (9.5, 8.5, 7.5, 7.0, 6.5, 6.0, 5.5, 5.0)  # points, from as easy as the rest of the picture to just legible in print
FEW = 12  # so many names can be written at the largest size
GAP = 1.0  # points between two names
PITCH = 1.2  # height of a line of text, in sizes of its letters
LONGEST = 22  # characters of a method's name on one line
SMALL = 7.0  # points: the methods that stand behind the others are named in such letters
MOST_LINES = 3  # more names than fit into so many lines are counted instead


def letters(names: int) -> float:
    """How large so many names are written where the picture grows with them.

    >>> letters(5), letters(50)
    (9.5, 7.0)
    """
    return SIZES[0] if names <= FEW else 7.0


def on_lines(label: str) -> str:
    """A method's name on a few lines."""
    return fill(label.replace(";", "; "), LONGEST, max_lines=4, placeholder=" ...")


def name_others(figure: "Figure", names: Sequence[str], marker: str = "") -> None:
    """The methods that stand grey behind the others, in a legend below the axes; that there are so many, if they are too many.

    marker: in its line, where these methods are points."""
    from matplotlib.lines import Line2D

    lines = wrap(", ".join(names), max(10, int(16 * (figure.get_figwidth() - 0.5))), break_on_hyphens=False)
    text = "\n".join(lines) if len(lines) <= MOST_LINES else f"{len(names)} other methods"
    handle = Line2D([], [], color=OTHERS, linewidth=0 if marker else 1.5, marker=marker or "none", markersize=4)
    figure.legend([handle], [text], loc="outside lower left", frameon=False, fontsize=SMALL,
                  labelcolor=MUTED, handlelength=1.4, borderpad=0.2)  # fmt: skip


def spread_out(wanted: Sequence[float], heights: Sequence[float], room: float) -> list[float]:
    """Centres between 0 and `room`, as near to the wanted ones as is possible without overlap (least squares).

    >>> spread_out([2.0, 10.0, 10.0], [2.0, 2.0, 2.0], room=20.0), spread_out([5.0, 5.0], [2.0, 2.0], room=5.0)
    ([2.0, 9.0, 11.0], [2.0, 4.0])
    """
    order = np.argsort(wanted, kind="stable")
    size = np.asarray(heights, dtype=float)[order]
    offset = np.concatenate([[0.0], np.cumsum((size[1:] + size[:-1]) / 2)])  # of each centre when all touch
    blocks: list[tuple[float, int]] = []  # (mean, members): neighbours that would overlap move together
    for target in np.asarray(wanted, dtype=float)[order] - offset:
        mean, members = target, 1
        while blocks and blocks[-1][0] > mean:
            other, others = blocks.pop()
            mean, members = (other * others + mean * members) / (others + members), others + members
        blocks.append((mean, members))
    first = np.repeat([mean for mean, _ in blocks], [members for _, members in blocks])
    lowest, highest = size[0] / 2, room - size[-1] / 2 - offset[-1]
    centres = np.empty(len(size))
    centres[order] = offset + (np.clip(first, lowest, highest) if lowest < highest else first)
    return centres.tolist()


# -- beside the ends of lines -----------------------------------------------------------------------------------


def label_ends(figure: "Figure", axes: "Axes", ends: Sequence[tuple[float, float, str, Style]]) -> None:
    """A text right of the axes for each line's end (x, y, text, style), joined to it by a line of its colour and dash.

    There is no marker in it: beyond the last task one would be taken for another task.
    """
    if not ends:
        return
    figure.draw_without_rendering()  # so that the height of the axes is known
    room = axes.get_window_extent().height
    low, high = axes.get_ylim()
    texts = [
        axes.text(1.1, 0.5, text, transform=axes.transAxes, va="center", linespacing=1.0, fontsize=letters(len(ends)),
                  color=MUTED if style == REFERENCE else INK)
        for _, _, text, style in ends
    ]  # fmt: skip
    heights = _shrunk(texts, letters(len(ends)), room, GAP * figure.dpi / 72)
    centres = spread_out([(y - low) / (high - low) * room for _, y, _, _ in ends], heights, room)
    for (x, y, _, style), text, centre in zip(ends, texts, centres):
        place = centre / room
        text.set_y(place)
        line = {"arrowstyle": "-", "color": style.colour, "linewidth": 1, "linestyle": style.dash, "shrinkA": 0, "shrinkB": 2}
        axes.annotate("", (x, y), (1.085, place), textcoords=axes.transAxes, annotation_clip=False, arrowprops=line)


def _shrunk(texts: Sequence["Text"], largest: float, room: float, gap: float) -> list[float]:
    """The heights of the texts with a gap, in pixels, once their letters are so small that all fit into the room."""
    heights: list[float] = []
    for size in [size for size in SIZES if size <= largest]:
        for text in texts:
            text.set_fontsize(size)
        heights = [text.get_window_extent().height + gap * (1 + 2 * text.get_text().count("\n")) for text in texts]
        if sum(heights) <= room:
            break
    return heights


# -- beside points ----------------------------------------------------------------------------------------------


def label_points(
    figure: "Figure",
    axes: "Axes",
    points: Sequence[tuple[float, float, str]],
    size: float,
    unnamed: Sequence[tuple[float, float]] = (),
    lines: Sequence[tuple[float, float, float, float]] = (),
) -> None:
    """The text of each point (x, y, text) near it, where it covers no point and no other text; joined to it unless it is close.

    size: of the letters; they become smaller where a text would find no place. unnamed: further points. lines: from (x, y) to
    (x, y), which a text goes over only where there is no other place for it.
    """
    if not points:
        return
    figure.draw_without_rendering()
    for letter_size in [one for one in SIZES if one <= size]:
        offsets = _offsets(figure, axes, points, letter_size, unnamed, lines)
        if offsets is not None:
            break
    else:
        offsets = [(0.0, 9.0, False)] * len(points)  # whoever asked for this size of picture is told that it is too small
    for (x, y, text), (right, up, far) in zip(points, offsets):
        line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        note = axes.annotate(text, (x, y), (right, up), textcoords="offset points", ha="center", va="center", linespacing=1.0,
                             fontsize=letter_size, arrowprops=line if far else None)  # fmt: skip
        note.set_in_layout(False)


def _offsets(
    figure: "Figure",
    axes: "Axes",
    points: Sequence[tuple[float, float, str]],
    size: float,
    unnamed: Sequence[tuple[float, float]],
    lines: Sequence[tuple[float, float, float, float]],
) -> list[tuple[float, float, bool]] | None:
    """Where the middle of each text is, in points from its own point, and whether a line has to join them.

    None if one finds no place with letters of this size."""
    pixels = figure.dpi / 72
    inside = axes.get_window_extent()
    at = axes.transData.transform([(x, y) for x, y, _ in points])
    around = 5 * pixels
    others = axes.transData.transform(np.reshape(unnamed, (-1, 2)))
    taken = [*np.hstack([at - around, at + around]), *np.hstack([others - around / 2, others + around / 2])]
    taken += [_corners(text.get_window_extent()) for text in axes.texts]
    drawn = list(axes.transData.transform(np.reshape(lines, (-1, 2))).reshape(-1, 4))
    found = []
    for number, (here, (width, height)) in enumerate(zip(at, _measured(axes, [text for _, _, text in points], size))):
        offsets, far = _nearest_first(width, height, pixels, max(inside.width, inside.height))
        half = np.array([width, height]) / 2
        boxes = np.hstack([here + offsets - half, here + offsets + half])
        allowed = (boxes[:, :2] > inside.min).all(axis=1) & (boxes[:, 2:] < inside.max).all(axis=1)
        choice = np.flatnonzero(allowed & ~_overlap(boxes, np.array(taken)).any(axis=1))
        if not len(choice):
            return None
        leaders = np.hstack([here + offsets, np.broadcast_to(here, offsets.shape)])
        passed = np.array(taken[:number] + taken[number + 1 :]).reshape(-1, 4)  # its line may go to its own point
        best = choice[0]  # the nearest, unless one that is clear of all lines is found
        for some in np.array_split(choice, -(-len(choice) // 32)):
            clear = ~_crossing(np.reshape(drawn, (-1, 4)), boxes[some]).any(axis=0)
            clear &= ~(far[some] & _crossing(leaders[some], passed).any(axis=1))
            if clear.any():
                best = some[clear.argmax()]
                break
        taken.append(boxes[best])
        if far[best]:
            drawn.append(leaders[best])
        found.append((float(offsets[best, 0] / pixels), float(offsets[best, 1] / pixels), bool(far[best])))
    return found


def _measured(axes: "Axes", texts: Sequence[str], size: float) -> list[tuple[float, float]]:
    """Width and height of each text in pixels, with the gap to its neighbours."""
    gap = GAP * axes.figure.dpi / 72
    found = []
    for text in texts:
        written = axes.text(0.5, 0.5, text, fontsize=size, linespacing=1.0, transform=axes.transAxes)  # 0 has no logarithm
        box = written.get_window_extent()
        written.remove()
        found.append((box.width + 2 * gap, box.height + gap))
    return found


def _nearest_first(width: float, height: float, pixels: float, farthest: float) -> tuple[np.ndarray, np.ndarray]:
    """(places, 2) offsets of the middle of a text from its point in pixels, and whether each needs a line to the point."""
    turns = np.array([0, 12, 6, 18, 3, 9, 15, 21, 1, 23, 11, 13, 2, 22, 10, 14, 4, 8, 16, 20, 5, 7, 17, 19]) * np.pi / 12
    distances = 6 * pixels * 1.18 ** np.arange(2 + np.ceil(np.log(farthest / (6 * pixels)) / np.log(1.18)))
    away, turn = (grid.ravel() for grid in np.meshgrid(distances, turns, indexing="ij"))
    offsets = np.column_stack([np.cos(turn) * (width / 2 + away), np.sin(turn) * (height / 2 + away)])
    return offsets, away > 8 * pixels


def _corners(box: "Bbox") -> np.ndarray:
    """Left, bottom, right, top."""
    return np.array([box.x0, box.y0, box.x1, box.y1])


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(boxes, others): do these rectangles (left, bottom, right, top) cover each other?

    >>> _overlap(np.array([[0, 0, 2, 2]]), np.array([[1, 1, 3, 3], [2, 0, 3, 1]])).tolist()
    [[True, False]]
    """
    boxes, others = boxes[:, None], others[None]
    return np.logical_and((boxes[..., :2] < others[..., 2:]).all(axis=-1), (others[..., :2] < boxes[..., 2:]).all(axis=-1))


def _crossing(segments: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(segments, boxes): does a segment (x, y, x, y) go through a rectangle (left, bottom, right, top)?

    The stretch of the segment's parameter that lies between two sides, of both directions (Liang and Barsky 1984).

    >>> _crossing(np.array([[0, 0, 4, 4]]), np.array([[1, 1, 2, 2], [3, 0, 4, 1]])).tolist()
    [[True, False]]
    """
    start, step = segments[:, None, :2], (segments[:, 2:] - segments[:, :2])[:, None]
    step = np.where(step == 0, 1e-12, step)
    one, other = (boxes[None, :, :2] - start) / step, (boxes[None, :, 2:] - start) / step
    enters, leaves = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
    return np.maximum(enters, 0) < np.minimum(leaves, 1)


# -- whether all is well ----------------------------------------------------------------------------------------


def misplaced(figure: "Figure") -> list[str]:
    """The texts of a figure that leave it, and the pairs that cover each other, as its renderer measures them."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    texts = _written(figure)
    boxes = [Text.get_window_extent(text) for text in texts]  # an annotation would count the line to its point
    whole = figure.bbox
    found = [
        f"{text.get_text()!r} leaves the picture"
        for text, box in zip(texts, boxes)
        if box.x0 < whole.x0 - 1 or box.y0 < whole.y0 - 1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]
    corners = np.array([_corners(box) for box in boxes]).reshape(-1, 4)
    covered = _overlap(corners + np.array([1, 1, -1, -1]), corners)  # that they touch is no harm
    pairs = [(texts[i], texts[j]) for i, j in np.argwhere(np.triu(covered, 1))]
    found += [f"{one.get_text()!r} covers {other.get_text()!r}" for one, other in pairs if not _beside_slanted(one, other)]
    return found


def _written(figure: "Figure") -> list["Text"]:
    """All texts that are drawn; those of ticks outside the axes are not."""
    texts = [*figure.texts, *[text for legend in figure.legends for text in legend.get_texts()]]
    for axes in figure.axes:
        texts += [*axes.texts]
        if not axes.axison:
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *[label for tick in shown for label in (tick.label1, tick.label2)]]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def _beside_slanted(text: "Text", other: "Text") -> bool:
    """Do two slanted names of ticks lie beside each other, though the upright rectangles around them overlap?"""
    angle = text.get_rotation()
    if angle != other.get_rotation() or angle % 90 == 0:
        return False
    places = [one.get_transform().transform(one.get_position()) for one in (text, other)]
    apart = abs(places[0][0] - places[1][0]) * np.sin(np.radians(angle))
    return bool(apart >= float(text.get_fontsize()) * text.figure.dpi / 72)
