"""Sets of vectors whose stream ends a task earlier, made of the stored ones.

What a run has computed before its last task does not depend on it, so these are sets that an author's run could have left, with
exact numbers: fewer tasks, and classes of the fixture that no task learns although its images are still scored. `CUTS` says of
each file what else of it belongs to the lost classes. The files that are not in it cannot be cut: see `WHOLE`.
"""

import copy
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from tests.conformance.vectors import Vectors


@dataclass(frozen=True)
class Cut:
    """How to leave out the last task of a file.

    `first` is the number of the first task in the arrays' names. `classes` and `tasks` are patterns of arrays with an axis over
    all classes (or tasks) of the stream -> that axis; `halves` have one over components, which the tasks share equally.
    """

    first: int
    classes: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    halves: tuple[str, ...] = ()


_ORDER = {"class_order": 0}
_OF_HEADS = _ORDER | {"*head.weight": 0, "*head.bias": 0, "*/test_logits*": 1, "*/train_logits_step1": 1}
_TASKS_OF_ROWS = {"task_classes": 0, "tasks": 0}

CUTS = {  # (method, pattern of files)
    ("attriclip", "*"): Cut(1, tasks=_TASKS_OF_ROWS),
    ("bofa", "vectors*"): Cut(1),
    ("bofa", "lambda_given*"): Cut(1),
    ("cca-cl", "cca-cl*"): Cut(0, _ORDER | {"*/text_prototypes": 0, "*/logits": 1}),
    ("clip-adapter", "continual*"): Cut(1, tasks=_TASKS_OF_ROWS),
    ("clg-cbm", "*"): Cut(1),
    ("coda-prompt", "*"): Cut(0, _ORDER | {"*last.weight": 0, "*last.bias": 0}, halves=("*/e_?_*", "hp_pool")),
    ("condu", "condu*"): Cut(0),
    ("continual-clip", "*"): Cut(1, {"task_classes": 0, "ensemble_text_features": 0, "ensemble_logits": 1}, {"task_sizes": 0}),
    ("coop", "continual*"): Cut(1, tasks=_TASKS_OF_ROWS),
    ("dualprompt", "*"): Cut(0, _OF_HEADS),
    ("engine", "*"): Cut(1, {"*zero_shot_logits": 1}),
    ("icarl", "*"): Cut(1),
    ("icarl-cil", "*"): Cut(0, _ORDER),
    ("l2p", "*"): Cut(0, _OF_HEADS),
    ("lwf", "*"): Cut(1),
    ("proof", "*"): Cut(1, {"task_classes_flat": 0}, {"task_sizes": 0}),
    ("ranpac", "*"): Cut(0),  # its errors are means over the columns of all classes, those of no task too
    ("rapf", "*"): Cut(0, _ORDER | {"text_features": 0, "*/test_logits_all_classes": 1}),
    ("simplecil", "*"): Cut(0, _ORDER),
    ("slca", "*"): Cut(0, _ORDER),
    ("wise-ft", "*"): Cut(1),
    ("zscl", "zscl.npz"): Cut(1),
    ("zscl", "zscl_cil.npz"): Cut(1, tasks=_TASKS_OF_ROWS),
}
WHOLE = {
    ("bofa", "lambda_search*"): "the search on stored prototypes, without training",
    ("cca-cl", "analysis*"): "the closed form on drawn features, no stream",
    ("cgil", "*"): "a stream of one task has no transfer to later tasks, which the file states",
    ("ci-transfer", "*"): "of stored logits, not of the fixture's images",
    ("clap", "*"): "noise and losses are numbered through the whole run",
    ("clip-adapter", "vectors*"): "no stream, and half of the fixture's classes already",
    ("cocoop", "*"): "no stream, and half of the fixture's classes already",
    ("coleclip", "*"): "names come back, so that columns are no classes of one task; prompts are of all tasks",
    ("condu", "unify*"): "drawn changes, no stream",
    ("coop", "vectors*"): "no stream, and half of the fixture's classes already",
    ("diki", "*"): "every group of classes is scored after every task, with Gaussians and votes of all tasks so far",
    ("dpw", "*"): "every group of classes is scored after every task, with Gaussians and votes of all tasks so far",
    ("lada", "lada*"): "which images are given a learned class depends on all classes of the stream",
    ("lada", "fits*"): "fits class by class, no stream",
    ("magmax", "magmax*"): "its other merges are of the changes of all tasks",
    ("magmax", "merges*"): "drawn changes, no stream",
    ("maple", "*"): "no stream, and half of the fixture's classes already",
    ("metrics-clap", "*"): "of stored logits, not of the fixture's images",
    ("mg-clip", "cil*"): "probabilities of all classes are normalised over those of the lost task too",
    ("mg-clip", "epochs*"): "the first task alone",
    ("moe-adapters", "*"): "its only training is on the first task; the others' classes are scored",
    ("rail", "*"): "zero-shot CLIP and the regression are joined among all classes of the stream",
    ("vpt-variational", "*"): "no stream, and half of the fixture's classes already",
}


def without_last_task(vectors: Vectors, method: str, keep_classes: bool = False) -> Vectors:
    """The vectors of the same run, ended a task earlier.

    keep_classes: the run knows of the classes of the lost task nevertheless, as a head does that was made for all classes.
    """
    cut = next(cut for (name, pattern), cut in CUTS.items() if name == method and fnmatchcase(vectors.path.name, pattern))
    tasks = vectors.tasks
    learned = sum(map(len, tasks[:-1]))
    last = re.compile(rf"(^|[/_])task{cut.first + len(tasks) - 1}([/_]|$)")
    shorter = copy.copy(vectors)
    shorter.arrays = {name: array for name, array in vectors.arrays.items() if not last.search(name)}
    for name, array in shorter.arrays.items():
        axes = {} if keep_classes else {axis: learned for pattern, axis in cut.classes.items() if fnmatchcase(name, pattern)}
        axes |= {axis: len(tasks) - 1 for pattern, axis in cut.tasks.items() if fnmatchcase(name, pattern)}
        for axis, length in axes.items():
            array = np.take(array, range(length), axis)
        if any(fnmatchcase(name, pattern) for pattern in cut.halves):
            array = array[: len(array) * (len(tasks) - 1) // len(tasks)] if array.ndim else array * (len(tasks) - 1) // len(tasks)
        shorter.arrays[name] = array
    lists = {name: vectors.params.get(name, tasks)[:-1] for name in ("tasks", "task_sizes")}
    shorter.params = _with(vectors.params, **lists, n_tasks=len(tasks) - 1)
    shorter.ratios, shorter.limits = {}, {}
    return shorter


def _with(params: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The settings with those changed that are there."""
    return params | {name: value for name, value in changes.items() if name in params}
