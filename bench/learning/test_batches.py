"""Which test images are scored together, for methods whose scores depend on the other images of the batch.

    task     batches of images of one task, shuffled once: as CLAP4CLIP's authors evaluate. The composition tells the
             method that these images belong together.
    mixed    batches of images of all tasks seen so far, shuffled together (those of future tasks among themselves)
    single   every image by itself: nothing can be learned from its neighbours
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from bench.system.randomness import Draws

Composition = Literal["task", "mixed", "single"]


@dataclass(frozen=True)
class TestBatches:
    """How a method's test batches are made up: part of what its numbers mean, and recorded with them."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    composition: Composition = "task"
    size: int = 32
    shuffled: bool = True  # False: in the data set's order

    def __str__(self) -> str:
        return "single images" if self.composition == "single" else f"{self.composition}, {self.size} images"

    def compose(self, lengths: Sequence[int], seen: int, draws: Draws) -> Iterator[list[tuple[int, torch.Tensor]]]:
        """Batches as lists of (task, rows of its test split); every image of `lengths` (images per task) comes once.

        The first `seen` tasks have been learned. The shuffle depends on the run's seed only, not on what was evaluated before.
        """
        tasks = torch.cat([torch.full((n,), task) for task, n in enumerate(lengths)])
        rows = torch.cat([torch.arange(n) for n in lengths])
        if self.composition == "mixed":
            groups = [torch.nonzero(tasks < seen).flatten(), torch.nonzero(tasks >= seen).flatten()]
        else:
            groups = [torch.nonzero(tasks == task).flatten() for task in range(len(lengths))]
        size = 1 if self.composition == "single" else self.size
        for index, group in enumerate(groups):
            if self.shuffled and size > 1:
                group = group[draws.permutation(len(group), "test batches", self.composition, index)]
            for batch in group.split(size):
                if len(batch):
                    yield [(int(task), rows[batch[tasks[batch] == task]]) for task in tasks[batch].unique()]
