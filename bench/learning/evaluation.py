"""One method after one task -> records: every test split of the stream, past, present and future, scored once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from bench.learning.method import Method
from bench.learning.test_batches import TestBatches
from bench.streams.stream import Stream, Task

ROUNDING = 1e-5  # of a score in float32, as a share of it: what is left of equal text features after one matrix product
BATCH = 500  # test images at a time, for methods whose scores do not depend on it


class Images(Protocol):
    """What is scored: the test split of a task, or images that somebody has given."""

    def __len__(self) -> int: ...

    def batches(self, inputs: str, size: int) -> Iterator[torch.Tensor]:
        """The images in order, `size` at a time, in the form that a method's `logits` takes."""

    def inputs(self, inputs: str, rows: torch.Tensor) -> torch.Tensor:
        """The chosen images in that form."""


@dataclass(frozen=True)
class Cell:
    """The scores of one test split among one set of candidates, image by image."""

    eval_task: int
    candidates: str
    prediction: np.ndarray  # (n,) position in the stream's class list; the first of equal maxima
    confidence: np.ndarray  # (n,) largest softmax probability among the candidates
    entropy: np.ndarray  # (n,) of that softmax, in nats
    energy: np.ndarray  # (n,) log-sum-exp of the logits
    correct: int | None  # None: the true class is not a candidate, the cell serves novelty detection only
    tied: int | None = None  # images whose largest score several classes share; counted in task-agnostic streams only


def candidate_sets(stream: Stream, after_task: int, eval_task: int, zero_shot: bool) -> dict[str, list[int]]:
    """Which classes compete when `eval_task` is scored after learning `after_task`.

    Where the task of a test image is known (task-incremental), only its own classes do. Otherwise a learned task is
    scored among the classes seen so far, and among its own; a future task among all classes, among those not learned
    yet, and among its own. A method without a text side cannot score unlearned classes, and gets no such cells. "seen" on
    a future task has no right answer: its scores are what novelty detection looks at.
    """
    seen = stream.seen(after_task)
    own = list(stream.tasks[eval_task].classes)
    if stream.scenario.task_known:
        return {"task": own} if eval_task <= after_task or zero_shot else {}
    if stream.scenario.kind == "task-agnostic":
        return _agnostic_candidates(stream, after_task, eval_task, zero_shot)
    if eval_task <= after_task:
        return {"seen": seen, "task": own}
    sets = {"seen": seen}
    if zero_shot:
        every = list(range(len(stream.scenario.class_names)))
        sets |= {"all": every, "future": every[len(seen) :], "task": own}
    return sets


def _agnostic_candidates(stream: Stream, after_task: int, eval_task: int, zero_shot: bool) -> dict[str, list[int]]:
    """One set for every image, learned or not: all classes of the stream, or those seen and, where it is still to come, the
    task's own. A method that cannot score unlearned classes is asked only when there is none left."""
    if not zero_shot and after_task + 1 < len(stream.tasks):
        return {}
    if stream.scenario.names_known:
        return {"all": list(range(len(stream.scenario.class_names)))}
    return {"seen+task": sorted({*stream.seen(after_task), *stream.tasks[eval_task].classes})}


@torch.inference_mode()
def evaluate(method: Method, stream: Stream, after_task: int) -> Iterator[Cell]:
    """Score every test split with all its candidate sets."""
    wanted = [candidate_sets(stream, after_task, task.index, method.zero_shot) for task in stream.tasks]
    widest = [sorted(set().union(*sets.values())) for sets in wanted]
    namesakes = torch.tensor(stream.scenario.namesakes()) if stream.scenario.kind == "task-agnostic" else None
    batches = method.test_batches
    by_list = getattr(method, "scores_depend_on_list", False)  # what plays a method in somebody's test may not say it
    if batches and by_list:
        raise TypeError(f"{type(method).__name__}: scores cannot depend on other images and on the list of classes")
    tests = [task.test for task in stream.tasks]
    scores = _scores_of_composed_batches(method, batches, tests, after_task + 1, widest) if batches else None
    for task, sets, classes in zip(stream.tasks, wanted, widest):
        if not sets:
            continue
        if by_list:
            yield from _cells_by_list(method, task, sets, namesakes)
            continue
        logits = _scores_in_order(method, task.test, classes) if scores is None else scores[task.index]
        place = {c: column for column, c in enumerate(classes)}
        for candidates, classes in sets.items():
            columns = torch.tensor([place[c] for c in classes])
            yield _cell(logits[:, columns], classes, task.index, candidates, task.test.labels, namesakes)


def _cells_by_list(method: Method, task: Task, sets: dict[str, list[int]], namesakes: torch.Tensor | None) -> Iterator[Cell]:
    """Every set of candidates scored by itself, one after the other on each batch: a method may encode its images once."""
    found: dict[str, list[torch.Tensor]] = {candidates: [] for candidates in sets}
    for batch in task.test.batches(method.inputs, BATCH):
        for candidates, classes in sets.items():
            found[candidates].append(method.logits(batch, classes).float().cpu())
    for candidates, classes in sets.items():
        yield _cell(torch.cat(found[candidates]), classes, task.index, candidates, task.test.labels, namesakes)


@torch.inference_mode()
def scores(method: Method, images: Sequence[Images], learned: int, classes: list[int]) -> list[torch.Tensor]:
    """(n, classes) logits of the images of every task, the classes in ascending order: as `evaluate` gets them, for any images.

    images: those of task 0, 1, ... (a task may have none), of which the first `learned` tasks have been learned.
    """
    if batches := method.test_batches:
        found = _scores_of_composed_batches(method, batches, images, learned, [classes] * len(images))
        return [found[task] for task in range(len(images))]
    return [_scores_in_order(method, own, classes) if len(own) else torch.zeros(0, len(classes)) for own in images]


def _scores_in_order(method: Method, images: Images, classes: list[int]) -> torch.Tensor:
    return torch.cat([method.logits(batch, classes).float().cpu() for batch in images.batches(method.inputs, BATCH)])


def _scores_of_composed_batches(
    method: Method, batches: TestBatches, images: Sequence[Images], learned: int, widest: Sequence[list[int]]
) -> dict[int, torch.Tensor]:
    """The logits of every task that has candidates, batch by batch as the method's `test_batches` composes them."""
    scored = [task for task in range(len(images)) if widest[task]]
    lengths = [len(images[task]) for task in scored]
    logits = {task: torch.zeros(len(images[task]), len(widest[task])) for task in scored}
    for batch in batches.compose(lengths, min(learned, len(scored)), method.draws):
        classes = sorted(set().union(*(widest[scored[place]] for place, _ in batch)))
        inputs = torch.cat([images[scored[place]].inputs(method.inputs, rows) for place, rows in batch])
        found = method.logits(inputs, classes).float().cpu()
        column = {c: k for k, c in enumerate(classes)}
        for (place, rows), part in zip(batch, found.split([len(rows) for _, rows in batch])):
            own = widest[scored[place]]
            logits[scored[place]][rows] = part[:, [column[c] for c in own]]
    return logits


def _cell(
    logits: torch.Tensor,
    classes: list[int],
    eval_task: int,
    candidates: str,
    labels: torch.Tensor,
    namesakes: torch.Tensor | None = None,
) -> Cell:
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"the method gave logits that are not finite (task {eval_task}, candidates {candidates})")
    log_probability = logits.log_softmax(dim=-1)  # (n, classes)
    column, tied = logits.argmax(dim=-1), None
    if namesakes is not None:
        column, tied = first_of_equals(logits, namesakes[torch.tensor(classes)])
    prediction = torch.tensor(classes)[column]
    answerable = bool(torch.isin(labels, torch.tensor(classes)).all())
    return Cell(
        eval_task=eval_task,
        candidates=candidates,
        prediction=prediction.numpy().astype(np.int32),
        confidence=log_probability.max(dim=-1).values.exp().numpy(),
        entropy=-(log_probability.exp() * log_probability).sum(dim=-1).numpy(),
        energy=logits.logsumexp(dim=-1).numpy(),
        correct=int((prediction == labels).sum()) if answerable else None,
        tied=tied,
    )


# -- classes of one name ----------------------------------------------------------------------------------------


def first_of_equals(logits: torch.Tensor, namesakes: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(n,) the first column of the largest score of each image, and the number of images whose largest score several share.

    Two data sets of a stream may have a class of one name. Their text features are the same numbers, but may leave a device
    with other last digits, which would then decide: scores of namesakes that differ by rounding alone count as equal.
    namesakes: (C,) columns with the same value have the same prompts.
    """
    best, column = logits.max(dim=-1, keepdim=True)  # (n, 1)
    close = (best - logits <= ROUNDING * best.abs()) & (namesakes[column] == namesakes)
    equal = close | (logits == best)  # (n, C)
    return equal.int().argmax(dim=-1), int((equal.sum(dim=-1) > 1).sum())
