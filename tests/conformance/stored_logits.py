"""A model whose logits were stored, scored by the harness's own evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from bench.learning.evaluation import Cell, evaluate
from bench.results.records import CANDIDATES
from bench.streams.stream import Scenario, Stream, Task


@dataclass(frozen=True)
class StoredSplit:
    """The test images of a task, each as its row of logits."""

    rows: torch.Tensor  # (n, classes)
    labels: torch.Tensor  # (n,)

    def batches(self, inputs: str, size: int) -> Iterator[torch.Tensor]:
        yield from self.rows.split(size)


def cells(logits: np.ndarray, labels: np.ndarray, classes_per_task: Sequence[int], after_task: int) -> Iterator[Cell]:
    """What the model after a task says of every test image.

    logits: (images, classes) of all classes, or of those seen so far: then it has no text side. labels: (images,) positions
    in learning order.
    """
    ends = np.cumsum(classes_per_task).tolist()
    classes = [tuple(range(end - n, end)) for end, n in zip(ends, classes_per_task)]
    owner = np.repeat(np.arange(len(classes)), classes_per_task)
    names = tuple(map(str, range(ends[-1])))
    scenario = Scenario("class-incremental", names, (("{}",),) * len(names), tuple(owner.tolist()))
    tasks = []
    for task, own in enumerate(classes):
        rows = owner[labels] == task
        split = StoredSplit(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]).long())
        tasks.append(Task(task, f"task {task}", own, None, split))
    model = SimpleNamespace(
        zero_shot=logits.shape[1] == ends[-1],
        inputs="features",
        test_batches=None,
        scores_depend_on_list=False,
        logits=lambda batch, wanted: batch[:, list(wanted)],
    )
    return evaluate(model, Stream(scenario, tuple(tasks)), after_task)


def accuracy_matrices(
    logits: Sequence[np.ndarray], labels: np.ndarray, classes_per_task: Sequence[int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({candidates: (T, T) accuracies}, (T,) test images of each task) of models whose logits are `logits[t]` after task t."""
    tasks = len(classes_per_task)
    n = np.bincount(np.repeat(np.arange(tasks), classes_per_task)[labels], minlength=tasks)
    matrices = {candidates: np.full((tasks, tasks), np.nan) for candidates in CANDIDATES}
    for after in range(tasks):
        for cell in cells(logits[after], labels, classes_per_task, after):
            if cell.correct is not None:
                matrices[cell.candidates][after, cell.eval_task] = cell.correct / n[cell.eval_task]
    return matrices, n
