"""The fixture's images as the stream of a stored run of a method without a text side."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from bench.stream import Split, Task
from tests.conformance.stored_runs import World

PRECISIONS = pytest.mark.parametrize("precision", ["float64", "float32"])


def unlabelled(world: World, rows: np.ndarray | None = None) -> Split:
    """Some of the fixture's images (all by default), also of classes that are not in the stream."""
    rows = torch.arange(len(world.labels)) if rows is None else torch.from_numpy(rows)
    return world.split(rows, torch.zeros(len(rows), dtype=torch.long))


def stream_of(vectors, tiny, folder, precision: str) -> tuple[World, Callable[..., Iterator[Task]]]:
    """The world, and a function that gives its tasks from the names of the arrays with a task's images and labels."""
    ends = np.cumsum([len(classes) for classes in vectors.params["tasks"]])
    classes = [part.tolist() for part in np.split(vectors["class_order"], ends[:-1])]
    world = World(tiny, folder, precision, "class-incremental", classes, ["{}"])

    def tasks(images: str, labels: str) -> Iterator[Task]:
        for index in range(len(classes)):
            rows, of_rows = (torch.from_numpy(vectors[f"task{index}/{name}"]) for name in (images, labels))
            yield world.task(index, rows, of_rows)

    return world, tasks
