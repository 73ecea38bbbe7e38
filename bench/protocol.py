"""A protocol: which data sets, in what order, cut into which tasks, scored how."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from bench import registry
from bench.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.errors import BenchError
from bench.features import FeatureStore
from bench.randomness import stable_seed
from bench.stream import Scenario, ScenarioKind, Split, Stream, Task


@dataclass(frozen=True)
class TaskPlan:
    """One task before any image is opened: some classes of one data set, in the order in which they are learned."""

    name: str
    dataset: str
    labels: tuple[int, ...]  # the data set's own labels


@dataclass(frozen=True)
class Protocol:
    """The object that a `bench.protocols` entry point names.

    `tasks(order_seed)` gives the plan of the stream. A protocol whose order is fixed says so, and has one order only.
    """

    name: str
    version: str
    kind: ScenarioKind
    summary: str
    tasks: Callable[[int], Sequence[TaskPlan]]
    fixed_order: bool = False
    templates: tuple[str, ...] | None = None  # None: each data set's own
    exemplars_per_class: int | None = None
    exemplars_total: int | None = None
    source: str = ""  # who defined it

    @property
    def exemplars(self) -> str:
        """The exemplar budget in words, as records state it."""
        if self.exemplars_per_class is not None:
            return f"{self.exemplars_per_class}/class"
        return f"{self.exemplars_total} total" if self.exemplars_total is not None else "none"

    def scenario(self, order_seed: int) -> Scenario:
        """What a method may know before it starts; opens no image."""
        plans = self.tasks(order_seed)
        infos = [dataset_info(plan.dataset) for plan in plans]
        return Scenario(
            kind=self.kind,
            class_names=tuple(info.class_names[k] for plan, info in zip(plans, infos) for k in plan.labels),
            templates=tuple(self.templates or info.templates for plan, info in zip(plans, infos) for _ in plan.labels),
            task_of_class=tuple(index for index, plan in enumerate(plans) for _ in plan.labels),
            exemplars_per_class=self.exemplars_per_class,
            exemplars_total=self.exemplars_total,
        )

    def templates_digest(self) -> str:
        """8 hex digits for the set of prompt templates."""
        templates = self.scenario(0).templates
        return hashlib.sha256(repr(sorted(set(templates))).encode()).hexdigest()[:8]

    def stream(
        self, order_seed: int, store: FeatureStore, folders: Folders, limit_train: int | None, limit_test: int | None
    ) -> Stream:
        """The stream with its images; the limits keep the first so many images of every class."""
        tasks, first = [], 0
        for index, plan in enumerate(self.tasks(order_seed)):
            train, test = (
                _split(_open(plan.dataset, split, folders, limit), plan, first, store)
                for split, limit in (("train", limit_train), ("test", limit_test))
            )
            for split, images in (("train", train), ("test", test)):
                if not len(images):
                    raise BenchError(f"{self.name}: task {plan.name!r} has no {split} images; check data set {plan.dataset}")
            tasks.append(Task(index, plan.name, tuple(range(first, first + len(plan.labels))), train, test))
            first += len(plan.labels)
        return Stream(self.scenario(order_seed), tuple(tasks))


def dataset_info(name: str) -> DatasetInfo:
    return registry.load("dataset", name).info


_SOURCES: dict[tuple, ImageSource] = {}  # opened image sources of this process, shared by all runs


def _open(name: str, split: str, folders: Folders, limit: int | None) -> ImageSource:
    key = (name, split, folders, limit)
    if key not in _SOURCES:
        dataset: Dataset = registry.load("dataset", name)
        _SOURCES[key] = dataset.open_split(split, folders).limited(limit)
    return _SOURCES[key]


def _split(source: ImageSource, plan: TaskPlan, first: int, store: FeatureStore) -> Split:
    """The images of a task's classes, in the source's order, with labels counted from `first` in learning order."""
    position = {label: first + k for k, label in enumerate(plan.labels)}
    rows = np.flatnonzero(np.isin(source.labels, plan.labels))
    labels = torch.tensor([position[int(label)] for label in source.labels[rows]], dtype=torch.long)
    return Split([(source, rows)], labels, store)


# -- the two shapes that most protocols have --------------------------------------------------------------------


def class_incremental(dataset: str, sizes: Sequence[int]) -> Callable[[int], list[TaskPlan]]:
    """The classes of one data set, shuffled by the order seed and cut into tasks of the given sizes."""
    return partial(_class_incremental, dataset, tuple(sizes))


def _class_incremental(dataset: str, sizes: tuple[int, ...], order_seed: int) -> list[TaskPlan]:
    order = np.random.default_rng(stable_seed("class order", dataset, order_seed)).permutation(sum(sizes))
    ends = np.cumsum(sizes)
    return [
        TaskPlan(f"classes {end - size + 1}-{end}", dataset, tuple(int(k) for k in order[end - size : end]))
        for size, end in zip(sizes, ends)
    ]


def one_task_per_dataset(datasets: Sequence[str]) -> Callable[[int], list[TaskPlan]]:
    """Every data set whole, one after another, classes in their own order."""
    return partial(_one_task_per_dataset, tuple(datasets))


def _one_task_per_dataset(datasets: tuple[str, ...], order_seed: int) -> list[TaskPlan]:
    return [TaskPlan(name, name, tuple(range(len(dataset_info(name).class_names)))) for name in datasets]
