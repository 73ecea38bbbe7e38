"""What a protocol produces and a method learns from: a stream of tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import torch

from bench.errors import RunFailure
from bench.images.dataset import ImageSource
from bench.streams.decoded import DECODED
from bench.system.parallel import prefetched
from bench.system.phases import phase

if TYPE_CHECKING:
    from bench.streams.features import FeatureStore, Layer

ScenarioKind = Literal["class-incremental", "task-incremental"]


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
class Scenario:
    """What a method may know of the stream before it starts."""

    kind: ScenarioKind  # task-incremental: the task of a test image is known; class-incremental: it is not
    class_names: tuple[str, ...]  # of all classes, in the order in which they are learned
    templates: tuple[tuple[str, ...], ...]  # for each class; the first one is used in training
    task_of_class: tuple[int, ...]  # for each class, the index of the task that adds it
    exemplars_per_class: int | None = None  # exemplar memory: so many of every class seen ...
    exemplars_total: int | None = None  # ... or so many in all; both None: no exemplar may be kept
    images_per_task: int | None = None  # compute budget: a task's training may go through so many images; None: no limit
    train_fraction: float = 1.0  # share of the training images that is used: less than 1 with --limit-train, or a copy of a part

    def scaled(self, count: int) -> int:
        """Of `count` training inputs that a method makes itself, as many as fit the share of images that is used; at least 1.

        A quick run on few images is then short for methods that draw synthetic embeddings, too.
        """
        return max(1, round(count * self.train_fraction))

    @property
    def n_tasks(self) -> int:
        return self.task_of_class[-1] + 1

    def prompts(self, classes: Sequence[int], template: str | None = None) -> list[str]:
        """The hand-made prompt of each class: its first template, or the given one, filled with its name."""
        return [(template or self.templates[c][0]).format(self.class_names[c]) for c in classes]

    def prompts_of(self, classes: Sequence[int], template: str | None = None) -> list[list[str]]:
        """All prompts of each class: its templates, or the given one alone, filled with its name."""
        lists = [[template] if template else self.templates[c] for c in classes]
        return [[one.format(self.class_names[c]) for one in templates] for c, templates in zip(classes, lists)]


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
