"""The fixture's images as the stream of a stored run of a method without a text side."""

from collections.abc import Callable, Iterator

import pytest
import torch

from bench.streams.stream import Task
from tests.conformance.stored_runs import World

PRECISIONS = pytest.mark.parametrize("precision", ["float64", "float32"])


def world_of(vectors, tiny, folder, precision: str, classes: int | None = None) -> World:
    """The fixture as the stream of a stored run that knows of so many classes: of those of its tasks, unless it says more."""
    learned = {c for task in vectors.tasks for c in task}
    others = [c for c in range(len(tiny.class_names)) if c not in learned]
    never_learned = others[: (classes or len(learned)) - len(learned)]
    return World(tiny, folder, precision, "class-incremental", vectors.tasks, ["{}"], never_learned)


def stream_of(
    vectors, tiny, folder, precision: str, classes: int | None = None
) -> tuple[World, Callable[..., Iterator[Task]]]:
    """The world, and a function that gives its tasks from the names of the arrays with a task's images and labels."""
    world = world_of(vectors, tiny, folder, precision, classes)

    def tasks(images: str, labels: str) -> Iterator[Task]:
        for index in range(len(world.classes)):
            rows, of_rows = (torch.from_numpy(vectors[f"task{index}/{name}"]) for name in (images, labels))
            yield world.task(index, rows, of_rows)

    return world, tasks
