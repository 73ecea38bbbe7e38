"""Records -> pictures: which figures a results folder gives, and the numbers in them.

The numbers come from bench.pictures.series and bench.results.metrics, bench.pictures.figures draws them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError, unknown_name
from bench.pictures import figures, rankings, series
from bench.pictures.file_names import slug, stem
from bench.pictures.form import Form
from bench.pictures.front import Point, accuracy_against_cost
from bench.pictures.labels import FEW
from bench.pictures.notes import averaged, hollow, where
from bench.pictures.picture import AS_EVER, Picture, save
from bench.pictures.rankings import critical_difference, ranking_picture
from bench.pictures.style import DURATIONS, FORMATS, INK, REFERENCE, SIZES, Style, styles
from bench.results import accuracy, calibration
from bench.results.conditions import ZERO_SHOT
from bench.results.groups import Group, MethodRuns, arranged
from bench.results.loaded import Results, load
from bench.results.metrics import METRICS, final_scores
from bench.results.records import restrictions
from bench.results.run_data import TASK_AGNOSTIC, RunData
from bench.system.progress import followed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "critical_difference", "of_group", "of_results", "plot", "ranking_picture", "save"]

Looks = dict[str, Style]  # label of a method -> how it looks


def plot(paths: Iterable[Path], folder: Path, kinds: Sequence[str] = (), format: str = "png", form: Form = AS_EVER) -> list[Path]:
    """Write the pictures of the runs at or below the paths (kinds: default all) and return their files."""
    if format not in FORMATS:
        raise BenchError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    if folder.exists() and not folder.is_dir():
        raise BenchError(f"{folder}: is a file; -o wants a folder for the pictures")
    for kind in kinds:
        if kind not in ALL_KINDS:
            raise unknown_name("kind of picture", kind, ALL_KINDS)
    pictures = of_results(form.chosen(load(paths)), kinds, form)
    return [save(picture, folder, format, form) for picture in followed(pictures, "writing pictures", len(pictures))]


def of_results(found: Results, kinds: Sequence[str] = (), form: Form = AS_EVER) -> list[Picture]:
    """All pictures of these results. A kind asked for by name that cannot be drawn is an error, otherwise it is left out."""
    groups = arranged(found)
    looks = method_styles(groups, form)
    per_group = [kind for kind in kinds if kind in KINDS]
    pictures = []
    drawn = groups if per_group or not kinds else []
    for group in followed(drawn, "drawing, group", len(drawn)):
        pictures += of_group(group, found, looks, per_group)
    for kind in [kind for kind in kinds if kind not in KINDS]:
        pictures.append(rankings.asked_for(found, kind, form))
    if not kinds:
        pictures += [one for one in (ranking_picture(found, form), rankings.over_runs_picture(found, form)) if one]
    return pictures


def of_group(group: Group, found: Results, look_of: Looks, kinds: Sequence[str] = ()) -> list[Picture]:
    """The pictures of one group. A kind asked for by name that cannot be drawn is an error, otherwise it is left out."""
    pictures = []
    for kind in kinds or KINDS:
        drawn = KINDS[kind](group, found, look_of)
        if kinds and not drawn:
            raise BenchError(f"no {kind} picture of {group.protocol}: {MISSING[kind]}")
        pictures += drawn
    return pictures


def method_styles(groups: Iterable[Group], form: Form = AS_EVER) -> dict[str, Style]:
    """One look a method, the same in all pictures; zero-shot is a grey reference, and grey is what others stand out from."""
    methods = [own for group in groups for own in group.methods]
    learners = sorted({own.label for own in methods if own.method != ZERO_SHOT})
    joint = {own.label for own in methods if own.joint}
    quiet = {own.label for own in methods if not form.stands_out(own)}
    return styles(learners, joint, quiet) | {own.label: REFERENCE for own in methods if own.method == ZERO_SHOT}


# -- pictures ---------------------------------------------------------------------------------------------------


def _competing(group: Group, otherwise: str) -> str:
    if group.conditions["scenario"] == TASK_AGNOSTIC:
        return "classes of tasks to come compete, too"
    return "each task's own classes compete" if group.task_incremental else otherwise


def _picture(group: Group, kind: str, name: str, title: str, note: str, draw: Callable[..., "Figure"]) -> Picture:
    warning = restrictions(group.conditions["limits"]) if group.conditions["limits"] else ""
    return Picture(kind, f"{stem(group)}_{name}", title, where(group), note, draw, warning)


def _loud(methods: Iterable[MethodRuns], look_of: Looks) -> list[MethodRuns]:
    """Each of which has a picture of its own, where a kind draws one a method: those that stand out."""
    return [own for own in methods if not look_of[own.label].quiet]


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
    band = "band" if len(_loud(drawn, look_of)) <= FEW else ""
    note = "; ".join([note, averaged(drawn, band), *hollow(drawn)])
    return [_picture(group, kind, kind, title, note, partial(figures.curves, lines))]


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
        _picture(
            group, "matrix", f"matrix_{slug(own.label)}", f"Accuracy of {own.label} on each task, in percent",
            f"{note}; {averaged([own])}", partial(figures.heat_map, matrices[own.label], group.tasks, low),
        )
        for own in _loud(group.methods, look_of) if not np.isnan(matrices[own.label]).all()
    ]  # fmt: skip


def _reliability(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    pictures = []
    for own in _loud(group.methods, look_of):
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
            _picture(group, "reliability", f"reliability_{slug(own.label)}", f"Reliability of {own.label}", note,
                     partial(figures.reliability, *bins, ece, style))
        )  # fmt: skip
    return pictures


def _against(
    group: Group, kind: str, title: str, said: str, axis: tuple[str, dict[float, str]], costs: dict[str, float], look_of: Looks
) -> list[Picture]:
    """A picture of accuracy against a cost of each method, NaN = not known."""
    points, drawn, unknown, reference = [], [], [], None
    for own in group.methods:
        mean, spread = (float(value) for value in series.mean_and_spread(own.last))
        if own.method == ZERO_SHOT:
            reference = reference or (own.label, mean)
        elif np.isnan(costs[own.label]) or np.isnan(mean):
            unknown.append(own.label)
        else:
            points.append(Point(own.label, look_of[own.label], costs[own.label], mean, spread))
            drawn.append(own)
    if not points:
        return []
    line = "line: Pareto front, no cheaper method is as accurate" + (" (upper bounds aside)" if hollow(drawn) else "")
    left_out = [f"left out, cost not known: {', '.join(unknown)}"] if unknown else []
    note = "; ".join([said, averaged(drawn, "bars"), line, *hollow(drawn), *left_out])
    return [_picture(group, kind, kind, title, note, partial(accuracy_against_cost, points, *axis, reference))]


def _cost(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    manifests = {own.label: [found.manifests.get(run_id, {}) for run_id in own.run_ids] for own in group.methods}
    seconds = {name: float(np.mean([series.training_seconds(one) for one in own])) for name, own in manifests.items()}
    timed = [name for name, value in seconds.items() if not np.isnan(value)]
    devices = {one.get("environment", {}).get("device", "unknown device").strip() for name in timed for one in manifests[name]}
    # a method that learns nothing measurable still has a place on a logarithmic axis
    costs = {name: max(value, 1e-3) if name in timed else value for name, value in seconds.items()}
    said = f"time spent in learning on {', '.join(sorted(devices))}"
    title, axis = "Accuracy at the end against training time", ("training time", DURATIONS)
    return _against(group, "cost", title, said, axis, costs, look_of)


def _storage(group: Group, found: Results, look_of: Looks) -> list[Picture]:
    stored = {
        own.label: float(np.mean([series.stored_bytes(found.manifests.get(run_id, {})) for run_id in own.run_ids]))
        for own in group.methods
    }
    costs = {name: value if np.isnan(value) else max(value, 1.0) for name, value in stored.items()}
    title = "Accuracy at the end against what is stored between tasks"
    axis = ("stored from task to task", SIZES)
    return _against(group, "storage", title, "exemplars, trained weights and statistics", axis, costs, look_of)


KINDS: dict[str, Callable[[Group, Results, Looks], list[Picture]]] = {
    "accuracy": _accuracy,
    "future": _future,
    "matrix": _matrix,
    "reliability": _reliability,
    "cost": _cost,
    "storage": _storage,
}
MISSING = {  # why a kind has nothing to draw
    "accuracy": "the records hold no accuracy on learned tasks",
    "future": "no method was scored on future tasks",
    "matrix": "the records hold no accuracy on learned tasks",
    "reliability": "the runs were kept without their samples.safetensors",
    "cost": "the runs were kept without their manifest.json, or only zero-shot was run",
    "storage": "the runs were kept without their manifest.json, state no exemplars, or only zero-shot was run",
}
ALL_KINDS = (*KINDS, *rankings.TITLES)
