"""The mini world's data sets: nine image domains, and unions of some of them under one template.

Images are drawn on first use, kept as one file a split in the cache folder, and checked against a pinned digest.
"""

import sys
from functools import partial

import numpy as np

from bench import Dataset, DatasetInfo, Folders, ImageSource
from bench.system.files import npy, write_atomically
from protocols.datasets.mini_world import downstream

ORIGIN = "drawn by this package; digits: scikit-learn's load_digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0)"
VERSION = "1"
SIZE = (downstream.SIZE, downstream.SIZE)


def _open_domain(name: str, split: str, folders: Folders) -> ImageSource:
    """The images of one domain, from the cache if they are there and whole."""
    pinned = downstream.pinned_digest(name, split)
    path = folders.cache / "mini-world" / f"{name}-{split}-{pinned[:12]}.npy"
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
    write_atomically(path, npy(images))
    return ImageSource.from_arrays(images, labels, pinned)


def _labels(name: str, split: str) -> np.ndarray:
    facts = downstream.DATASETS[name]
    per_class = facts.train_per_class if split == "train" else facts.test_per_class
    return np.repeat(np.arange(len(facts.class_names)), per_class)


def _domain(name: str, summary: str) -> Dataset:
    facts = downstream.DATASETS[name]
    info = DatasetInfo(
        name=f"mini-{name}",
        version=VERSION,
        class_names=tuple(facts.class_names),
        templates=(facts.template,),
        summary=summary,
        origin=ORIGIN,
        train_images=len(_labels(name, "train")),
        test_images=len(_labels(name, "test")),
        image_size=SIZE,
    )
    return Dataset(info, partial(_open_domain, name), content="pinned")


def _open_union(parts: dict[str, int], split: str, folders: Folders) -> ImageSource:
    """The first so many classes of each domain, one after another."""
    sources, labels, offset = [], [], 0
    for name, classes in parts.items():
        source = _open_domain(name, split, folders)
        rows = np.flatnonzero(source.labels < classes)
        if len(rows) < len(source):
            images = np.stack(list(source.read(rows)))
            source = ImageSource.from_arrays(images, source.labels[rows])
        sources.append(source)
        labels.append(source.labels + offset)
        offset += classes
    return ImageSource.concatenate(sources, labels)


def _union(name: str, parts: dict[str, int], summary: str) -> Dataset:
    info = DatasetInfo(
        name=name,
        version=VERSION,
        class_names=tuple(c for part, classes in parts.items() for c in downstream.DATASETS[part].class_names[:classes]),
        templates=("a photo of a {}.",),
        summary=summary,
        origin=ORIGIN,
        train_images=_images_of_union(parts, "train"),
        test_images=_images_of_union(parts, "test"),
        image_size=SIZE,
    )
    return Dataset(info, partial(_open_union, parts), content="pinned")


def _images_of_union(parts: dict[str, int], split: str) -> int:
    return sum(int((_labels(part, split) < classes).sum()) for part, classes in parts.items())


counts = _domain("counts", summary="one to eight dots: counting, which pretraining hardly teaches")
digits = _domain("digits", summary="handwritten digits (scikit-learn's), where pretraining saw printed ones")
landuse = _domain("landuse", summary="aerial tiles: neither the words nor the look were seen in pretraining")
letters = _domain("letters", summary="20 capitals in wobbly pen strokes on any background")
objects = _domain("objects", summary="60 colour-object pairs that pretraining never showed, in clutter")
scenes = _domain("scenes", summary="12 landscapes, cropped, half of them sepia")
shapes = _domain("shapes", summary="20 colour-shape pairs that pretraining never showed, rotated, in clutter")
sketches = _domain("sketches", summary="20 objects as thin, wobbly line drawings")
textures = _domain("textures", summary="14 patterns, warped and unevenly lit")

mini60 = _union(
    "mini60",
    {"digits": 10, "landuse": 10, "letters": 20, "sketches": 20},
    summary="digits, landuse, letters and sketches under one template",
)
shapes_objects = _union(
    "mini-shapes-objects", {"shapes": 20, "objects": 20}, summary="20 shapes and the first 20 objects"
)
sketches_letters = _union(
    "mini-sketches-letters", {"sketches": 20, "letters": 20}, summary="20 sketches and 20 letters"
)
