"""Lists of images in files that come with a data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.images.layouts import Copy


def text_lines(copy: Copy, path: Path) -> list[str]:
    """The lines of a text file without empty ones and outer spaces."""
    with copy.reading(path):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line]


def labels_by_name(copy: Copy, path: Path, images: Sequence[str], names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(n,) int64: which of `classes` each image belongs to, by the name that the list in `path` gives."""
    label_of = {name: label for label, name in enumerate(classes)}
    for image, name in zip(images, names):
        if name not in label_of:
            raise copy.damaged(path, f"image {image} is of class {name!r}, which is none of the {len(classes)} classes")
    return np.array([label_of[name] for name in names], dtype=np.int64)
