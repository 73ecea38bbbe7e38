"""What a protocol produces and a method learns from: a stream of tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from bench.errors import RunFailure
from bench.images.dataset import ImageSource
from bench.streams.decoded import DECODED
from bench.streams.scenario import Scenario
from bench.system.parallel import prefetched
from bench.system.phases import phase

if TYPE_CHECKING:
    from bench.streams.features import FeatureStore, Layer


class Split:
    """The images of one task, in two forms: features of the frozen image encoder, or pixels.

    `labels` (n,) are positions in the stream's class list. The images lie in one or several sources.
    """

    def __init__(self, pieces: Sequence[tuple[ImageSource, np.ndarray]], labels: torch.Tensor, store: "FeatureStore"):
        self.pieces = list(pieces)
        self.labels = labels
        self.store = store

    def __len__(self) -> int:
        return len(self.labels)

    def features(self, view: str = "plain", layer: "Layer" = "projected") -> torch.Tensor:
        """(n, d) raw (un-normalised) image embeddings on the backbone's device; `view` is "plain" or "mirrored".

        `layer` "pooled" gives the image tower's output before its projection into the space shared with text.
        """
        parts = [self.store.features(source, view, layer)[rows] for source, rows in self.pieces]
        return torch.from_numpy(np.concatenate(parts)).to(self.store.backbone.device)

    @phase("load")
    def pixels(self, rows: torch.Tensor | None = None, view: str = "plain") -> torch.Tensor:
        """(b, 3, size, size) preprocessed pixels of the chosen rows (all of them by default), on the device."""
        wanted = np.arange(len(self)) if rows is None else rows.numpy()
        starts = np.cumsum([0] + [len(piece_rows) for _, piece_rows in self.pieces])
        images: list[Any] = [None] * len(wanted)
        for (source, piece_rows), start in zip(self.pieces, starts):
            places = np.flatnonzero((wanted >= start) & (wanted < start + len(piece_rows)))
            if len(places):
                squares = DECODED.squares(source, piece_rows[wanted[places] - start], self.store.backbone, together=len(self))
                for place, image in zip(places, squares):
                    images[place] = image
        return self.store.backbone.preprocess(images, view)

    def batches(self, inputs: str, size: int) -> Iterator[torch.Tensor]:
        """The images in order, `size` at a time, as "features", "pooled" features or "pixels"."""
        chunks = torch.arange(len(self)).split(size)
        if inputs == "pixels":
            yield from (pixels for _, pixels in prefetched(chunks, self.pixels, self.store.backbone.device))
        else:
            yield from (self.inputs(inputs, rows) for rows in chunks)

    def inputs(self, inputs: str, rows: torch.Tensor) -> torch.Tensor:
        """The chosen images in the form that a method's `logits` takes: "features", "pooled" features or "pixels"."""
        if inputs == "pixels":
            return self.pixels(rows)
        layers: dict[str, Layer] = {"features": "projected", "pooled": "pooled"}
        return self.chosen(rows).features(layer=layers[inputs])

    def chosen(self, rows: torch.Tensor) -> "Split":
        """The images at these rows, in their order."""
        wanted = rows.cpu().numpy()
        starts = np.cumsum([0] + [len(piece_rows) for _, piece_rows in self.pieces])
        owner = np.searchsorted(starts, wanted, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1), len(wanted)]  # runs of rows that lie in the same piece
        pieces = []
        for first, last in pairwise(cuts):
            if last > first:
                source, piece_rows = self.pieces[owner[first]]
                pieces.append((source, piece_rows[wanted[first:last] - starts[owner[first]]]))
        pieces = pieces or [(source, piece_rows[:0]) for source, piece_rows in self.pieces[:1]]  # none chosen
        return Split(pieces, self.labels[torch.from_numpy(wanted)], self.store)

    @classmethod
    def concatenate(cls, splits: Sequence["Split"]) -> "Split":
        pieces = [piece for split in splits for piece in split.pieces]
        return cls(pieces, torch.cat([split.labels for split in splits]), splits[0].store)


class SealedSplit:
    """Stands where the test images would be while a method learns: touching it is an error."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RunFailure(f"test data may not be used in training (asked for test.{name})")


@dataclass(frozen=True)
class Task:
    """One step of the stream: the classes it adds, as positions in the stream's class list, and their images."""

    index: int
    name: str
    classes: tuple[int, ...]
    train: Split
    test: Split | SealedSplit

    def for_training(self) -> "Task":
        """The task as `learn` sees it: without its test images."""
        return replace(self, test=SealedSplit())


@dataclass(frozen=True)
class Stream:
    """An ordered list of tasks. Class lists of tasks do not overlap and follow each other: 0..a, a+1..b, ..."""

    scenario: Scenario
    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        flat = [c for task in self.tasks for c in task.classes]
        if flat != list(range(len(self.scenario.class_names))):
            raise ValueError("the tasks of a stream must own consecutive classes in learning order")

    def seen(self, after_task: int) -> list[int]:
        """All classes learned when task `after_task` is done."""
        return [c for task in self.tasks[: after_task + 1] for c in task.classes]

    def joined(self) -> Task:
        """All tasks as one: what a joint (upper-bound) method learns."""
        classes = tuple(self.seen(len(self.tasks) - 1))
        train = Split.concatenate([task.train for task in self.tasks])
        return Task(len(self.tasks) - 1, "joint", classes, train, SealedSplit())
