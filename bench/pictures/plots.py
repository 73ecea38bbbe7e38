"""Records -> pictures: which figures a results folder gives, and the numbers in them.

The numbers come from bench.pictures.series and bench.results.metrics, bench.pictures.figures draws them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError, unknown_name
from bench.pictures import figures, series
from bench.pictures.file_names import slug, stem
from bench.pictures.style import FORMATS, INK, MUTED, REFERENCE, Style, encode, look, styles
from bench.reports import ranking, statistics
from bench.results import accuracy, calibration
from bench.results.conditions import ZERO_SHOT
from bench.results.groups import Group, MethodRuns, arranged
from bench.results.loaded import Results, load
from bench.results.metrics import METRICS, final_scores
from bench.results.records import restrictions
from bench.results.run_data import TASK_AGNOSTIC, RunData
from bench.system.files import write_atomically
from bench.system.progress import followed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Looks = dict[str, Style]  # label of a method -> how it looks


@dataclass(frozen=True)
class Picture:
    """A figure that can be drawn."""

    kind: str
    stem: str  # of its file
    title: str
    where: str  # the protocol, and what sets these runs apart
    note: str  # who competes and what is averaged: what a reader must know to read it
    draw: Callable[[], "Figure"]


def plot(paths: Iterable[Path], folder: Path, kinds: Sequence[str] = (), format: str = "png") -> list[Path]:
    """Write the pictures of the runs at or below the paths (kinds: default all) and return their files."""
    if format not in FORMATS:
        raise BenchError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    if folder.exists() and not folder.is_dir():
        raise BenchError(f"{folder}: is a file; -o wants a folder for the pictures")
    for kind in kinds:
        if kind not in (*KINDS, "ranking"):
            raise unknown_name("kind of picture", kind, [*KINDS, "ranking"])
    found = load(paths)
    groups = arranged(found)
    looks = method_styles(groups)
    per_group = [kind for kind in kinds if kind != "ranking"]
    pictures = []
    drawn = groups if per_group or not kinds else []
    for group in followed(drawn, "drawing, group", len(drawn)):
        pictures += of_group(group, found, looks, per_group)
    ranked = ranking_picture(found) if not kinds or "ranking" in kinds else None
    if "ranking" in kinds and ranked is None:
        raise BenchError(f"no ranking picture: it needs {statistics.MIN_BLOCKS} protocols or more, run with the same methods")
    pictures += [ranked] if ranked else []
    return [save(picture, folder, format) for picture in followed(pictures, "writing pictures", len(pictures))]


def of_group(group: Group, found: Results, look_of: Looks, kinds: Sequence[str] = ()) -> list[Picture]:
    """The pictures of one group. A kind asked for by name that cannot be drawn is an error, otherwise it is left out."""
    pictures = []
    for kind in kinds or KINDS:
        drawn = KINDS[kind](group, found, look_of)
        if kinds and not drawn:
            raise BenchError(f"no {kind} picture of {group.protocol}: {MISSING[kind]}")
        pictures += drawn
    return pictures


def save(picture: Picture, folder: Path, format: str) -> Path:
    """Draw a picture with its title and note above it, into <folder>/<stem>.<format>."""
    from textwrap import wrap

    with look(salt=picture.stem):
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        figure = picture.draw()
        width = figure.get_figwidth()
        caption = "; ".join(filter(None, [picture.where, picture.note]))
        title, note = (wrap(text, int(width * per_inch)) for text, per_inch in ((picture.title, 11.5), (caption, 16)))
        top = 0.19 * len(title) + 0.155 * len(note) + 0.13  # inches
        height = figure.get_figheight() + top
        figure.set_figheight(height)
        layout = figure.get_layout_engine()
        assert isinstance(layout, ConstrainedLayoutEngine)  # as bench.pictures.style.blank has made the figure
        layout.set(rect=(0, 0, 1, 1 - top / height))
        figure.text(0.06 / width, 1 - 0.07 / height, "\n".join(title), va="top", fontsize=10.5, fontweight="bold")
        figure.text(0.06 / width, 1 - (0.1 + 0.19 * len(title)) / height, "\n".join(note), va="top", fontsize=8, color=MUTED)
        path = folder / f"{picture.stem}.{format}"
        write_atomically(path, encode(figure, format))
    return path


def method_styles(groups: Iterable[Group]) -> dict[str, Style]:
    """One look a method, the same in all pictures; zero-shot is a grey reference."""
    methods = [own for group in groups for own in group.methods]
    learners = sorted({own.label for own in methods if own.method != ZERO_SHOT})
    joint = {own.label for own in methods if own.joint}
    return styles(learners, joint) | {own.label: REFERENCE for own in methods if own.method == ZERO_SHOT}


# -- pictures ---------------------------------------------------------------------------------------------------


def _competing(group: Group, otherwise: str) -> str:
    if group.conditions["scenario"] == TASK_AGNOSTIC:
        return "classes of tasks to come compete, too"
    return "each task's own classes compete" if group.task_incremental else otherwise


def _averaged(methods: Iterable[MethodRuns], band: str = "") -> str:
    counts = sorted({len(own.runs) for own in methods})
    if counts == [1]:
        return "one run each"
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean over {many} runs" + (f", {band}: ± standard deviation" if band else "")


def _hollow(methods: Iterable[MethodRuns]) -> list[str]:
    return ["hollow: learned all tasks at once"] if any(own.joint for own in methods) else []


def _where(group: Group) -> str:
    limits = group.conditions["limits"]
    said = ("limits=", "train=", "test=", "data=", "validation=")
    apart = [part for part in group.apart.split(";") if part and not part.startswith(said)]
    return ", ".join([group.protocol, *([restrictions(limits)] if limits else []), *apart])


def _curves(
    group: Group, kind: str, title: str, note: str, values: Callable[[RunData], np.ndarray], look_of: Looks
) -> list[Picture]:
    lines, drawn = [], []
    for own in group.methods:
        mean, spread = series.mean_and_spread(np.array([values(run) for run in own.runs]))
        if not np.isnan(mean).all():
            lines.append(figures.Curve(own.label, look_of[own.label], mean, spread))
            drawn.append(own)
    if not lines:
        return []
    note = "; ".join([note, _averaged(drawn, "band"), *_hollow(drawn)])
    return [Picture(kind, f"{stem(group)}_{kind}", title, _where(group), note, lambda: figures.curves(lines))]


def _accuracy(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    note = _competing(group, "the classes learned so far compete")
    title = "Accuracy on the tasks learned so far"
    return _curves(group, "accuracy", title, note, lambda run: accuracy.after_each_task(run.learned), look_of)


def _future(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    note = _competing(group, "all classes of the stream compete")
    return _curves(group, "future", "Zero-shot accuracy on the tasks still to come", note, series.future_accuracy, look_of)


def _matrix(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    matrices = {own.label: series.mean_matrix(own) for own in group.methods}
    values = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices.values()])
    low = min(0.9, np.floor(10 * values.min(initial=1.0)) / 10)  # the same colours for all methods
    note = _competing(group, "learned tasks: the classes learned so far compete; right of the line, future tasks: all classes")
    return [
        Picture(
            "matrix", f"{stem(group)}_matrix_{slug(own.label)}", f"Accuracy of {own.label} on each task, in percent",
            _where(group), f"{note}; {_averaged([own])}",
            partial(figures.heat_map, matrices[own.label], group.tasks, low),
        )
        for own in group.methods if not np.isnan(matrices[own.label]).all()
    ]  # fmt: skip


def _reliability(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    pictures = []
    for own in group.methods:
        runs = own.with_samples(found.samples_of).runs
        scores = [pair for run in runs if (pair := final_scores(run))]
        if len(scores) < len(runs):
            continue
        confidence, correct = (np.concatenate(arrays) for arrays in zip(*scores))
        ece = float(np.mean([METRICS["ece"].function(run) for run in runs]))
        bins = series.bins(confidence, correct)
        style = Style(INK) if own.method == ZERO_SHOT else look_of[own.label]
        pooled = "one run" if len(runs) == 1 else f"images of {len(runs)} runs, ECE: mean over runs"
        note = f"all {group.scored} images after the last task; {calibration.BINS} bins, area: share of the images; {pooled}"
        pictures.append(
            Picture("reliability", f"{stem(group)}_reliability_{slug(own.label)}", f"Reliability of {own.label}",
                    _where(group), note, partial(figures.reliability, *bins, ece, style))
        )  # fmt: skip
    return pictures


def _cost(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    points, drawn, reference, devices = [], [], None, set()
    for own in group.methods:
        mean, spread = (float(value) for value in series.mean_and_spread(own.last))
        if own.method == ZERO_SHOT:
            reference = reference or (own.label, mean)
            continue
        manifests = [found.manifests.get(run_id, {}) for run_id in own.run_ids]
        seconds = float(np.mean([series.training_seconds(manifest) for manifest in manifests]))
        if not np.isnan(seconds) and not np.isnan(mean):
            # a method that learns nothing measurable still has a place on a logarithmic axis
            points.append(figures.Point(own.label, look_of[own.label], max(seconds, 1e-3), mean, spread))
            drawn.append(own)
            devices |= {manifest.get("environment", {}).get("device", "unknown device").strip() for manifest in manifests}
    if not points:
        return []
    note = "; ".join([f"time spent in learning on {', '.join(sorted(devices))}", _averaged(drawn, "bars"), *_hollow(drawn)])
    return [Picture("cost", f"{stem(group)}_cost", "Accuracy at the end against training time", _where(group), note,
                    lambda: figures.cost(points, reference))]  # fmt: skip


def critical_difference(
    names: Sequence[str],
    ranks: Sequence[float],
    cd: float,
    cliques: Sequence[tuple[int, int]],
    protocols: Sequence[str] = (),
    validation: bool = False,
) -> Picture:
    """Mean ranks of methods, 1 = best, in ascending order. cliques: (first, last) positions in that order of methods that
    cannot be told apart, as bench.reports.statistics.cliques gives them."""
    note = "a bar joins methods that cannot be told apart"
    note += "; VALIDATION: scored on training images held out, not on test images" if validation else ""
    return Picture("ranking", "ranking", "Mean rank of each method, 1 is best", ", ".join(protocols), note,
                   lambda: figures.critical_difference(names, ranks, cd, cliques))  # fmt: skip


def ranking_picture(found: Results) -> Picture | None:
    """The critical-difference diagram over all protocols; None where there are too few of them, or no single ranking."""
    if found.table["protocol"].nunique() < statistics.MIN_BLOCKS:
        return None
    try:
        ranked = ranking.rank(found.table)
    except BenchError:
        return None
    if ranked.cd is None:
        return None
    return critical_difference(ranked.names, list(ranked.ranks), ranked.cd, ranked.cliques, ranked.blocks, ranked.validation)


KINDS: dict[str, Callable[[Group, Results, Looks], list[Picture]]] = {
    "accuracy": _accuracy,
    "future": _future,
    "matrix": _matrix,
    "reliability": _reliability,
    "cost": _cost,
}
MISSING = {  # why a kind has nothing to draw
    "accuracy": "the records hold no accuracy on learned tasks",
    "future": "no method was scored on future tasks",
    "matrix": "the records hold no accuracy on learned tasks",
    "reliability": "the runs were kept without their samples.safetensors",
    "cost": "the runs were kept without their manifest.json, or only zero-shot was run",
}
