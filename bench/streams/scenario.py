"""What a method may know of a stream before it starts. Needs no torch: a plan asks for it, too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.images.class_names import as_tokenized

# What is known of a test image. class-incremental: nothing, and only the classes seen so far compete with each other.
# task-incremental: its task, so that only that task's classes compete. task-agnostic: nothing, and the names of classes that
# are still to come are candidates, too, from the start.
ScenarioKind = Literal["class-incremental", "task-incremental", "task-agnostic"]
# Of a task-agnostic stream. stream: all classes compete for every image, learned or not. seen: those learned so far do, and
# for an image of a task that is still to come its own task's as well.
LabelSpace = Literal["stream", "seen"]


@dataclass(frozen=True)
class Scenario:
    """What a method may know of the stream before it starts."""

    kind: ScenarioKind
    class_names: tuple[str, ...]  # of all classes, in the order in which they are learned
    templates: tuple[tuple[str, ...], ...]  # for each class; the first one is used in training
    task_of_class: tuple[int, ...]  # for each class, the index of the task that adds it
    exemplars_per_class: int | None = None  # exemplar memory: so many of every class seen ...
    exemplars_total: int | None = None  # ... or so many in all; both None: no exemplar may be kept
    images_per_task: int | None = None  # compute budget: a task's training may go through so many images; None: no limit
    label_space: LabelSpace = "stream"  # of a task-agnostic stream; says nothing of others
    train_fraction: float = 1.0  # share of the training images that is used: less than 1 with --limit-train, or a copy of a part

    def scaled(self, count: int) -> int:
        """Of `count` training inputs that a method makes itself, as many as fit the share of images that is used; at least 1.

        A quick run on few images is then short for methods that draw synthetic embeddings, too.
        """
        return max(1, round(count * self.train_fraction))

    @property
    def task_known(self) -> bool:
        """Is the task of a test image given, so that classes compete within a task only?"""
        return self.kind == "task-incremental"

    @property
    def names_known(self) -> bool:
        """Are all classes of the stream candidates from the start, under their names alone?"""
        return self.kind == "task-agnostic" and self.label_space == "stream"

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

    def namesakes(self) -> list[int]:
        """For each class the first one whose prompts the tokenizer cannot tell from its own; itself, if none comes before it."""
        first: dict[tuple[str, ...], int] = {}
        prompts = self.prompts_of(range(len(self.class_names)))
        return [first.setdefault(tuple(map(as_tokenized, own)), c) for c, own in enumerate(prompts)]
