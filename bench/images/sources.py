"""Labelled images that are read on demand: from memory, from files, or put together from other sources."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

Images = Sequence[np.ndarray] | np.ndarray  # each (height, width, 3) uint8; one array where all have the same size
Read = Callable[[np.ndarray], Images]
READ_AT_ONCE = 256  # images that are only looked at once


class ImageSource:
    """A list of labelled images that are read on demand.

    `labels` are the data set's own, 0..K-1. `read(rows)` gives images as uint8 arrays (height, width, 3), which may
    differ in size. `digest` identifies the images in their order: features are cached under it and results record it. It
    may be given as a function, which is then called when the digest is first asked for. `in_memory`: the images lie there
    as pixels already, so reading them again costs nothing.
    """

    def __init__(self, labels: np.ndarray, read: Read, digest: str | Callable[[], str], in_memory: bool = False):
        self.labels = np.asarray(labels, dtype=np.int64)
        self.read = read
        self.in_memory = in_memory
        self._digest = digest

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        if not isinstance(self._digest, str):
            self._digest = self._digest()
        return self._digest

    def names(self) -> list[str]:
        """What the images are called: their files, or where they have none their rows of the whole source."""
        return [str(row) for row in range(len(self))]

    hashes_pixels = True  # `image_digests` are those of pixels
    decoding = 0  # version of the program that decodes its files (bench/images/decoding.py); 0: they are pixels already

    def embedded(self, layer: str) -> np.ndarray | None:
        """(n, d) float32 embeddings of all images, where they are there instead of pixels: "projected" or "pooled"."""
        return None

    def image_digests(self, rows: np.ndarray) -> list[str]:
        """One digest for each of these images: of its pixels here, of its file where images lie in files of their own."""
        return [digest_of_pixels(image) for image in self.read(rows)]

    def pixel_digests(self, rows: np.ndarray, shapes: Collection[tuple[int, ...]]) -> list[str | None]:
        """The digest of the pixels of each of these images; None if it has none of the shapes (height, width, 3)."""
        found: list[str | None] = []
        for start in range(0, len(rows), READ_AT_ONCE):
            images = self.read(rows[start : start + READ_AT_ONCE])
            found += [digest_of_pixels(image) if image.shape in shapes else None for image in images]
        return found

    @classmethod
    def from_arrays(cls, images: np.ndarray, labels: np.ndarray, digest: str | None = None) -> "ImageSource":
        """A source over images held in memory, (n, height, width, 3) uint8."""

        def of_pixels() -> str:
            return hashlib.sha256(images.tobytes() + np.asarray(labels, np.int64).tobytes()).hexdigest()

        return cls(labels, lambda rows: images[rows], digest or of_pixels, in_memory=True)

    @classmethod
    def from_list(cls, images: Sequence[np.ndarray], labels: np.ndarray) -> "ImageSource":
        """A source over images held in memory that differ in size, each (height, width, 3) uint8."""

        def of_pixels() -> str:
            digest = hashlib.sha256(np.asarray(labels, np.int64).tobytes())
            for image in images:
                digest.update(repr(image.shape).encode() + image.tobytes())
            return digest.hexdigest()

        return cls(labels, lambda rows: [images[row] for row in rows], of_pixels, in_memory=True)

    @classmethod
    def concatenate(cls, sources: Sequence["ImageSource"], labels: Sequence[np.ndarray]) -> "ImageSource":
        """One source over several, with new labels for each part."""
        return _Concatenation(sources, np.concatenate([np.asarray(part, np.int64) for part in labels]))

    def select(self, rows: np.ndarray) -> "ImageSource":
        """A source of these rows only, in this order."""
        return _Selection(self, np.asarray(rows))

    def limited(self, per_class: int | None) -> "ImageSource":
        """The first `per_class` images of every class (all of them for None), in the original order."""
        if per_class is None:
            return self
        rank = np.zeros(len(self), np.int64)
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            rank[members] = np.arange(len(members))
        return self.select(np.flatnonzero(rank < per_class))


class _Selection(ImageSource):
    """Some rows of a source."""

    def __init__(self, whole: ImageSource, rows: np.ndarray):
        def digest() -> str:
            return hashlib.sha256(whole.digest.encode() + rows.tobytes()).hexdigest()

        super().__init__(whole.labels[rows], lambda wanted: whole.read(rows[wanted]), digest, whole.in_memory)
        self.whole, self.rows, self.hashes_pixels, self.decoding = whole, rows, whole.hashes_pixels, whole.decoding

    def embedded(self, layer: str) -> np.ndarray | None:
        whole = self.whole.embedded(layer)
        return None if whole is None else whole[self.rows]

    def image_digests(self, rows: np.ndarray) -> list[str]:
        return self.whole.image_digests(self.rows[rows])

    def names(self) -> list[str]:
        whole = self.whole.names()
        return [whole[row] for row in self.rows.tolist()]

    def pixel_digests(self, rows: np.ndarray, shapes: Collection[tuple[int, ...]]) -> list[str | None]:
        return self.whole.pixel_digests(self.rows[rows], shapes)


class _Concatenation(ImageSource):
    """Several sources, one after another."""

    def __init__(self, sources: Sequence[ImageSource], labels: np.ndarray):
        self.sources = list(sources)
        self.starts = np.cumsum([0] + [len(source) for source in sources])
        in_memory = all(source.in_memory for source in sources)
        super().__init__(
            labels, lambda rows: self._gather(rows, lambda source, own: source.read(own)), self._digest_of_parts, in_memory
        )
        self.hashes_pixels = all(source.hashes_pixels for source in sources)
        self.decoding = max((source.decoding for source in sources), default=0)

    def embedded(self, layer: str) -> np.ndarray | None:
        parts = [found for source in self.sources if (found := source.embedded(layer)) is not None]
        return np.concatenate(parts) if parts and len(parts) == len(self.sources) else None

    def image_digests(self, rows: np.ndarray) -> list[str]:
        return self._gather(rows, lambda source, own: source.image_digests(own))

    def pixel_digests(self, rows: np.ndarray, shapes: Collection[tuple[int, ...]]) -> list[str | None]:
        return self._gather(rows, lambda source, own: source.pixel_digests(own, shapes))

    def _gather(self, rows: np.ndarray, ask: Callable[[ImageSource, np.ndarray], Iterable[Any]]) -> list[Any]:
        """What the sources answer about their own rows, in the order of `rows`."""
        rows = np.asarray(rows)
        answers: list[Any] = [None] * len(rows)
        for source, start in zip(self.sources, self.starts):
            places = np.flatnonzero((rows >= start) & (rows < start + len(source)))
            if len(places):
                for place, answer in zip(places, ask(source, rows[places] - start)):
                    answers[place] = answer
        return answers

    def _digest_of_parts(self) -> str:
        parts = "".join(source.digest for source in self.sources)
        return hashlib.sha256(parts.encode() + self.labels.tobytes()).hexdigest()


def digest_of_pixels(image: np.ndarray) -> str:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def out_of_range(labels: np.ndarray, classes: int) -> np.ndarray:
    """The rows whose label is none of 0..classes-1, in order."""
    return np.flatnonzero((labels < 0) | (labels >= classes))


def out_of_range_in_words(label: int, image: str, classes: int) -> str:
    """What is said of such a label, wherever one is found.

    >>> out_of_range_in_words(7, "image 3", 5)
    'label 7 of image 3 is out of range 0..4'
    """
    return f"label {label} of {image} is out of range 0..{classes - 1}"
