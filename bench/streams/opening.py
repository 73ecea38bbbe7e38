"""From a protocol to a stream: its tasks with their images."""

from dataclasses import replace

import numpy as np
import torch

from bench.errors import BenchError
from bench.images.dataset import Folders, ImageSource
from bench.streams import sources
from bench.streams.features import FeatureStore
from bench.streams.protocol import Protocol, TaskPlan
from bench.streams.stream import Split, Stream, Task


def open_stream(
    protocol: Protocol,
    order_seed: int,
    store: FeatureStore,
    folders: Folders,
    limit_train: int | None = None,
    limit_test: int | None = None,
    synthetic: bool = False,
) -> Stream:
    """The stream of an order seed; the limits keep the first so many images of every class.

    synthetic: stand-in images of the right number and size instead of the data sets' own.
    """
    sources.refuse_undivided(protocol, order_seed, folders, synthetic)
    tasks, first, available = [], 0, 0.0
    for index, plan in enumerate(protocol.tasks(order_seed)):
        train, test = (
            _split(sources.images(protocol, plan.dataset, split, folders, limit, synthetic), plan, first, store)
            for split, limit in (("train", limit_train), ("test", limit_test))
        )
        for split, images in (("train", train), ("test", test)):
            if not len(images):
                raise BenchError(f"{protocol.name}: task {plan.name!r} has no {split} images; check data set {plan.dataset}")
        tasks.append(Task(index, plan.name, tuple(range(first, first + len(plan.labels))), train, test))
        first += len(plan.labels)
        present = np.isin(sources.images(protocol, plan.dataset, "train", folders, None, synthetic).labels, plan.labels).sum()
        available += int(present) / sources.completeness(protocol, plan.dataset, folders, synthetic)
    budget = len(tasks[0].train) if protocol.budgeted else None
    used = sum(len(task.train) for task in tasks) / available
    return Stream(replace(protocol.scenario(order_seed), images_per_task=budget, train_fraction=used), tuple(tasks))


def _split(source: ImageSource, plan: TaskPlan, first: int, store: FeatureStore) -> Split:
    """The images of a task's classes, in the source's order, with labels counted from `first` in learning order."""
    position = {label: first + k for k, label in enumerate(plan.labels)}
    rows = np.flatnonzero(np.isin(source.labels, plan.labels))
    labels = torch.tensor([position[int(label)] for label in source.labels[rows]], dtype=torch.long)
    return Split([(source, rows)], labels, store)
