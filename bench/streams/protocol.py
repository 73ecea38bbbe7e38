"""A protocol: which data sets, in what order, cut into which tasks, scored how.

It opens no image (bench/streams/opening.py does), and so needs no torch: plans and lists ask it as well.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.images import class_names
from bench.images.dataset import Content, Dataset, DatasetInfo
from bench.images.embeddings import EmbeddingFile
from bench.streams.scenario import LabelSpace, Scenario, ScenarioKind
from bench.streams.validation import Validation
from bench.system import former_names, registry
from bench.system.seeds import stable_seed

CONTENTS: tuple[Content, ...] = ("own", "official", "pinned")  # from the least that a name says to the most


@dataclass(frozen=True)
class TaskPlan:
    """One task before any image is opened: some classes of one data set, in the order in which they are learned."""

    name: str
    dataset: str
    labels: tuple[int, ...]  # the data set's own labels


@dataclass(frozen=True)
class Order:
    """One way to order a stream: its tasks for every order seed."""

    tasks: Callable[[int], Sequence[TaskPlan]]
    summary: str  # the rule, in one line
    fixed: bool = False  # the same for every order seed


@dataclass(frozen=True)
class Protocol:
    """The object that a `bench.protocols` entry point names.

    `tasks(order_seed)` gives the plan of the stream. A protocol whose order is fixed says so, and has one order only.
    What a user may change about it has a name: another order, another paper's form (bench/streams/options.py).
    """

    name: str
    version: str
    kind: ScenarioKind
    summary: str
    tasks: Callable[[int], Sequence[TaskPlan]]
    fixed_order: bool = False
    label_space: LabelSpace = "stream"  # of a task-agnostic one
    templates: tuple[str, ...] | None = None  # None: each data set's own
    exemplars_per_class: int | None = None
    exemplars_total: int | None = None
    source: str = ""  # who defined it; "": not stated
    order: str = ""  # the name of its order, if `orders` has it
    orders: Mapping[str, Order] = field(default_factory=dict)  # all named orders, its own among them
    variants: Mapping[str, "Protocol"] = field(default_factory=dict)  # option -> the same stream as another paper runs it
    budgeted: bool = False  # training on a task may go through as many images as the first task has
    shots: int | None = None  # training images of every class; None: all
    shot_rule: str = "own"  # which these are: a name of bench.streams.shots.RULES
    validation: Validation | None = None  # the part of the training images that stands where the test images would be
    datasets: Mapping[str, Dataset] = field(default_factory=dict)  # those that are not registered, by name
    embeddings: EmbeddingFile | None = None  # all that there is of its images
    like: str = ""  # the protocol on images whose embeddings these are, where that is known; the whole one of which it is a part

    @property
    def exemplars(self) -> str:
        """The exemplar budget in words, as records state it."""
        if self.exemplars_per_class is not None:
            return f"{self.exemplars_per_class}/class"
        return f"{self.exemplars_total} total" if self.exemplars_total is not None else "none"

    @property
    def known_as(self) -> str:
        """The name by which recipes and random numbers go: embeddings are learned as their images would be, the first tasks of a
        stream as if others came."""
        return self.like or self.name

    def dataset(self, name: str) -> Dataset:
        """One of its data sets."""
        return self.datasets[name] if name in self.datasets else registry.load("dataset", name)

    @property
    def content(self) -> Content:
        """What its name says about its images: as much as the name of that data set of which the name says least."""
        found = {self.dataset(name).content for name in self.dataset_names(0)}
        return next(kind for kind in CONTENTS if kind in found)

    @property
    def notes(self) -> list[str]:
        """What a user should know of its data sets as they lie here."""
        return [note for name in self.dataset_names(0) for note in self.dataset(name).notes]

    def dataset_names(self, order_seed: int) -> list[str]:
        """The data sets of a stream, each once."""
        return list(dict.fromkeys(plan.dataset for plan in self.tasks(order_seed)))

    def scenario(self, order_seed: int) -> Scenario:
        """What a method may know before it starts; opens no image, so a compute budget is not in it yet."""
        plans = self.tasks(order_seed)
        infos = [self.dataset(plan.dataset).info for plan in plans]
        for info in {info.name: info for info in infos}.values():
            _refuse_repeated_names(info)
        return Scenario(
            kind=self.kind,
            class_names=tuple(info.class_names[k] for plan, info in zip(plans, infos) for k in plan.labels),
            templates=tuple(self.templates or info.templates for plan, info in zip(plans, infos) for _ in plan.labels),
            task_of_class=tuple(index for index, plan in enumerate(plans) for _ in plan.labels),
            exemplars_per_class=self.exemplars_per_class,
            exemplars_total=self.exemplars_total,
            label_space=self.label_space,
        )

    def templates_digest(self) -> str:
        """8 hex digits for the set of prompt templates."""
        templates = self.scenario(0).templates
        return hashlib.sha256(repr(sorted(set(templates))).encode()).hexdigest()[:8]

    def stream(self, *arguments: Any, **named: Any) -> Any:
        """`bench.streams.opening.open_stream` under the name that it had before, for one release."""
        return former_names.called("Protocol.stream", "bench.streams.opening:open_stream")(self, *arguments, **named)


def _refuse_repeated_names(info: DatasetInfo) -> None:
    """Of two classes with one prompt the second could never be predicted."""
    for one, other in class_names.unexpected(info.class_names, info.repeated_names):
        names = f"{info.class_names[one]!r} (label {one}) and {info.class_names[other]!r} (label {other})"
        raise BenchError(f"data set {info.name}: two classes make the same prompt, {names}; give them different names")


# -- the two shapes that most protocols have --------------------------------------------------------------------


def class_incremental(
    dataset: str, sizes: Sequence[int], order: Callable[[int], Sequence[int]] | None = None
) -> Callable[[int], list[TaskPlan]]:
    """The classes of one data set, cut into tasks of the given sizes.

    order: from the order seed to the data set's labels as they are learned; by default they are shuffled by the seed.
    """
    return partial(_class_incremental, dataset, tuple(sizes), order or partial(shuffled_labels, dataset, sum(sizes)))


def shuffled_labels(dataset: str, n: int, order_seed: int) -> list[int]:
    """The labels 0..n-1 of a data set in a random order of our own."""
    return np.random.default_rng(stable_seed("class order", dataset, order_seed)).permutation(n).tolist()


def _class_incremental(
    dataset: str, sizes: tuple[int, ...], order: Callable[[int], Sequence[int]], order_seed: int
) -> list[TaskPlan]:
    labels = order(order_seed)
    return [
        TaskPlan(f"classes {end - size + 1}-{end}", dataset, tuple(int(k) for k in labels[end - size : end]))
        for size, end in zip(sizes, np.cumsum(sizes).tolist())
    ]


def one_task_per_dataset(datasets: Sequence[str] | Mapping[str, str]) -> Callable[[int], list[TaskPlan]]:
    """Every data set whole, one after another, classes in their own order.

    They are named as they are registered, or as "folder:PATH". A mapping gives the tasks names of their own: task -> data set.
    """
    named = datasets if isinstance(datasets, Mapping) else {name: name for name in datasets}
    return partial(_one_task_per_dataset, tuple(named.items()))


def _one_task_per_dataset(datasets: tuple[tuple[str, str], ...], order_seed: int) -> list[TaskPlan]:
    plans = []
    for task, name in datasets:
        info = registry.load("dataset", name).info
        by_path = task == name and not registry.knows("dataset", name)  # results name a folder, not where it lies
        plans.append(TaskPlan(info.name if by_path else task, name, tuple(range(len(info.class_names)))))
    return plans
