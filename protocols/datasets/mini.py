"""The mini world's data sets: nine image domains, and unions of some of them under one template.

Images are drawn on first use, kept as one file a split in the cache folder, and checked against a pinned digest.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from bench.dataset import Dataset, DatasetInfo, ImageSource
from bench.files import write_atomically
from protocols.datasets.mini_world import downstream

ORIGIN = "drawn by this package (digits: scikit-learn's load_digits, public domain)"
VERSION = "1"


def _open_domain(name: str, split: str, cache: Path) -> ImageSource:
    """The images of one domain, from the cache if they are there and whole."""
    pinned = downstream.pinned_digest(name, split)
    path = cache / "mini-world" / f"{name}-{split}-{pinned[:12]}.npy"
    labels = _labels(name, split)
    if path.exists():
        try:
            images = np.load(path, allow_pickle=False)
            if downstream.digest(images, labels) == pinned:
                return ImageSource.from_arrays(images, labels, pinned)
        except (ValueError, OSError):
            pass  # a damaged file is drawn again
    images, labels = downstream.draw(name, split)
    found = downstream.digest(images, labels)
    if found != pinned:
        print(
            f"mini-{name} {split}: the images drawn here differ from the pinned ones (another numpy or Pillow?); "
            "numbers may differ slightly from the published baselines",
            file=sys.stderr,
        )
        return ImageSource.from_arrays(images, labels, found)
    _save(path, images)
    return ImageSource.from_arrays(images, labels, pinned)


def _labels(name: str, split: str) -> np.ndarray:
    facts = downstream.DATASETS[name]
    per_class = facts.train_per_class if split == "train" else facts.test_per_class
    return np.repeat(np.arange(len(facts.class_names)), per_class)


def _save(path: Path, images: np.ndarray) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _domain(name: str) -> Dataset:
    facts = downstream.DATASETS[name]
    info = DatasetInfo(f"mini-{name}", VERSION, tuple(facts.class_names), (facts.template,), ORIGIN)
    return Dataset(info, partial(_open_domain, name))


def _open_union(parts: dict[str, int], split: str, cache: Path) -> ImageSource:
    """The first so many classes of each domain, one after another."""
    sources, labels, offset = [], [], 0
    for name, classes in parts.items():
        source = _open_domain(name, split, cache)
        rows = np.flatnonzero(source.labels < classes)
        if len(rows) < len(source):
            images = np.stack(source.read(rows))
            source = ImageSource.from_arrays(images, source.labels[rows])
        sources.append(source)
        labels.append(source.labels + offset)
        offset += classes
    return ImageSource.concatenate(sources, labels)


def _union(name: str, parts: dict[str, int]) -> Dataset:
    class_names = tuple(c for part, classes in parts.items() for c in downstream.DATASETS[part].class_names[:classes])
    info = DatasetInfo(name, VERSION, class_names, ("a photo of a {}.",), ORIGIN)
    return Dataset(info, partial(_open_union, parts))


counts = _domain("counts")
digits = _domain("digits")
landuse = _domain("landuse")
letters = _domain("letters")
objects = _domain("objects")
scenes = _domain("scenes")
shapes = _domain("shapes")
sketches = _domain("sketches")
textures = _domain("textures")

mini60 = _union("mini60", {"digits": 10, "landuse": 10, "letters": 20, "sketches": 20})
shapes_objects = _union("mini-shapes-objects", {"shapes": 20, "objects": 20})
sketches_letters = _union("mini-sketches-letters", {"sketches": 20, "letters": 20})
