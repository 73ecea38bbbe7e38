"""The images that a stream draws on, by data set and split: as many of every class as protocol and limit allow.

Opening a source reads no image, and needs no torch: plans compare the images that are there with those of finished runs. A
protocol with a validation part has no test images but that: then nothing but the training split of a data set is opened.
"""

import functools
from collections.abc import Callable, Collection

import numpy as np

from bench.errors import BenchError
from bench.images import layouts
from bench.images.dataset import DatasetInfo, Folders, ImageSource
from bench.images.stand_ins import stand_in
from bench.streams.protocol import Protocol
from bench.streams.shots import RULES
from bench.streams.validation import Validation

# opened sources that a process keeps, the latest: runs share them and their digests. A stream has a few for each of its data
# sets; a longer list would hold the images in memory of streams that nobody asks for any more
KEPT = 64


def images(
    protocol: Protocol, dataset: str, split: str, folders: Folders, limit: int | None, synthetic: bool = False
) -> ImageSource:
    """Those of "train" or "test"; the limit keeps the first so many of every class.

    synthetic: stand-in images of the right number and size instead of the data set's own.
    """
    found = protocol.dataset(dataset)
    if protocol.validation:
        rule, part = protocol.shot_rule, protocol.validation
        return _divided(found.info, found.open_split, split, folders, protocol.shots, limit, synthetic, rule, part)
    shots = protocol.shots if split == "train" else None
    return _opened(found.info, found.open_split, split, folders, shots, limit, synthetic, protocol.shot_rule)


def refuse_undivided(
    protocol: Protocol, order_seed: int, folders: Folders, synthetic: bool, names: Collection[str] | None = None
) -> None:
    """BenchError for a class of the stream that the validation part leaves without training or validation images.

    names: of the data sets that are looked at (default: all of the stream).
    """
    if not protocol.validation:
        return
    for plan in protocol.tasks(order_seed):
        if names is not None and plan.dataset not in names:
            continue
        found = protocol.dataset(plan.dataset)
        whole = _opened(found.info, found.open_split, "train", folders, None, None, synthetic)
        rows = _rows_of_shots(whole.labels, protocol.shots, found.info.name, protocol.shot_rule)
        distinct = np.bincount(whole.labels[np.unique(rows)], minlength=len(found.info.class_names))
        for label in plan.labels:
            if complaint := protocol.validation.complaint(int(distinct[label])):
                name = found.info.class_names[label]
                raise BenchError(f"{protocol.name}: class {name!r} of data set {plan.dataset} {complaint}; hold out another part")


def completeness(protocol: Protocol, dataset: str, folders: Folders, synthetic: bool) -> float:
    """Training images that this copy of a data set has, of those that the official one has; 1 where that is not fixed."""
    found = protocol.dataset(dataset)
    present = len(_opened(found.info, found.open_split, "train", folders, None, None, synthetic))
    return min(1.0, present / (found.info.train_images or present))


def there(protocol: Protocol, order_seed: int, folders: Folders) -> list[str]:
    """The data sets of a stream whose training images can be opened as they lie there; nothing is downloaded."""
    found = []
    for name in protocol.dataset_names(order_seed):
        dataset = protocol.dataset(name)
        try:
            if dataset.layouts and not layouts.find(dataset.layouts, folders.data):
                continue
            _opened(dataset.info, dataset.open_split, "train", folders, None, None, False)
        except (BenchError, OSError):  # no data folder, or a damaged copy: the run that needs it says so
            continue
        found.append(name)
    return found


@functools.lru_cache(maxsize=KEPT)
def _opened(
    info: DatasetInfo,
    open_split: Callable[[str, Folders], ImageSource],
    split: str,
    folders: Folders,
    shots: int | None,
    limit: int | None,
    synthetic: bool,
    shot_rule: str = "own",
) -> ImageSource:
    source = stand_in(info, split, folders) if synthetic else open_split(split, folders)
    if shots is not None:
        source = source.select(_rows_of_shots(source.labels, shots, info.name, shot_rule))
    return source.limited(limit)


@functools.lru_cache(maxsize=KEPT)
def _divided(
    info: DatasetInfo,
    open_split: Callable[[str, Folders], ImageSource],
    split: str,
    folders: Folders,
    shots: int | None,
    limit: int | None,
    synthetic: bool,
    shot_rule: str,
    validation: Validation,
) -> ImageSource:
    """The part of the training images that is left for training, or that is held out, as "test"."""
    whole = _opened(info, open_split, "train", folders, None, None, synthetic)
    rows = _rows_of_shots(whole.labels, shots, info.name, shot_rule)
    return whole.select(validation.divided(rows, whole.labels[rows], info.name)[split]).limited(limit)


def _rows_of_shots(labels: np.ndarray, shots: int | None, dataset: str, shot_rule: str) -> np.ndarray:
    return np.arange(len(labels)) if shots is None else RULES[shot_rule].rows(labels, shots, dataset)
