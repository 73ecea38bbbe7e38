"""Stand-in images: as many and as large as a data set's own, for measuring speed and memory without the data.

What is real: the number of images of each split (spread evenly over the classes), their size, the class names, and so
every shape and count that a method meets. What is not: the pictures, and reading files. A class has a coarse pattern of
its own under noise, so that training behaves like training; the accuracies mean nothing.
"""

import hashlib

import numpy as np

from bench.images.dataset import DatasetInfo, Folders
from bench.images.sources import ImageSource
from bench.system.seeds import stable_seed

VERSION = 1  # bump when the pictures change
# where a data set does not say how many it has: as ImageNet, since the larger ones of these are parts of it
IMAGES_PER_CLASS = {"train": 1300, "test": 50}
PATTERN = 8  # squares of a class pattern along each side
NOISE = 64  # grey levels


def stand_in(info: DatasetInfo, split: str, folders: Folders) -> ImageSource:
    """The stand-in for one split of a data set. Called like Dataset.open_split; needs no folder."""
    labels = _labels(info, split)

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([_image(info, split, int(row), int(labels[row])) for row in rows])

    facts = ("synthetic", VERSION, info.name, split, len(info.class_names), len(labels), info.image_size)
    return ImageSource(labels, read, hashlib.sha256(repr(facts).encode()).hexdigest())


def _labels(info: DatasetInfo, split: str) -> np.ndarray:
    """Labels of all images, class by class; the first classes get one image more where the number does not divide."""
    classes = len(info.class_names)
    total = info.images(split) or IMAGES_PER_CLASS[split] * classes
    return np.repeat(np.arange(classes), [total // classes + (label < total % classes) for label in range(classes)])


def _image(info: DatasetInfo, split: str, row: int, label: int) -> np.ndarray:
    """One image (height, width, 3): the class's coarse pattern under the row's own noise."""
    height, width = info.image_size
    coarse = np.random.default_rng(stable_seed("synthetic class", info.name, label)).integers(
        0, 256 - NOISE, (PATTERN, PATTERN, 3), dtype=np.uint8
    )
    pattern = coarse[np.arange(height) * PATTERN // height][:, np.arange(width) * PATTERN // width]
    noise = np.random.default_rng(stable_seed("synthetic image", info.name, split, row)).integers(
        0, NOISE, (height, width, 3), dtype=np.uint8
    )
    return pattern + noise
