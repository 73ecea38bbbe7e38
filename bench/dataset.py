"""Where images come from: the interface that a data set implements."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class ImageSource:
    """A list of labelled images that are read on demand.

    `labels` are the data set's own, 0..K-1. `read(rows)` gives images as uint8 arrays (height, width, 3), which may
    differ in size. `digest` identifies the pixels: features are cached under it and results record it.
    """

    def __init__(self, labels: np.ndarray, read: Callable[[np.ndarray], Sequence[np.ndarray]], digest: str):
        self.labels = np.asarray(labels, dtype=np.int64)
        self.read = read
        self.digest = digest

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_arrays(cls, images: np.ndarray, labels: np.ndarray, digest: str | None = None) -> "ImageSource":
        """A source over images held in memory, (n, height, width, 3) uint8."""
        if digest is None:
            digest = hashlib.sha256(images.tobytes() + np.asarray(labels, np.int64).tobytes()).hexdigest()
        return cls(labels, lambda rows: images[rows], digest)

    @classmethod
    def concatenate(cls, sources: Sequence["ImageSource"], labels: Sequence[np.ndarray]) -> "ImageSource":
        """One source over several, with new labels for each part."""
        starts = np.cumsum([0] + [len(source) for source in sources])

        def read(rows: np.ndarray) -> list[np.ndarray]:
            rows = np.asarray(rows)
            images: list = [None] * len(rows)
            for source, start in zip(sources, starts):
                places = np.flatnonzero((rows >= start) & (rows < start + len(source)))
                if len(places):
                    for place, image in zip(places, source.read(rows[places] - start)):
                        images[place] = image
            return images

        all_labels = np.concatenate([np.asarray(part, np.int64) for part in labels])
        digest = hashlib.sha256(("".join(source.digest for source in sources)).encode() + all_labels.tobytes())
        return cls(all_labels, read, digest.hexdigest())

    def limited(self, per_class: int | None) -> "ImageSource":
        """The first `per_class` images of every class (all of them for None), in the original order."""
        if per_class is None:
            return self
        rank = np.zeros(len(self), np.int64)
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            rank[members] = np.arange(len(members))
        kept = np.flatnonzero(rank < per_class)
        digest = hashlib.sha256(self.digest.encode() + kept.tobytes()).hexdigest()
        return ImageSource(self.labels[kept], lambda rows: self.read(kept[rows]), digest)


@dataclass(frozen=True)
class Folders:
    """Where a data set finds and keeps its files."""

    data: Path  # what the user has placed or downloaded: one folder a data set, named like it
    cache: Path  # what can be made again at any time: generated images, digests, features


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without touching an image."""

    name: str
    version: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]  # each with one "{}"; training uses the first, evaluation averages all of them
    summary: str  # one line
    origin: str  # where the images come from, and their licence
    train_images: int | None = None  # number of images of the whole split; None: not fixed
    test_images: int | None = None
    image_size: tuple[int, int] = (224, 224)  # height and width of a typical image


@dataclass(frozen=True)
class Dataset:
    """A data set: facts, and two sources that are opened when first asked for.

    The object that a `bench.datasets` entry point names. `open_split(split, folders)` gives the images of "train" or
    "test", or raises BenchError with one line that says what is missing, where it was looked for and how to get it.
    """

    info: DatasetInfo
    open_split: Callable[[str, Folders], ImageSource]
