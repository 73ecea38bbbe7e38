"""How much there is to learn and to score in a run: what its time grows with."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError
from bench.runs.run import Run
from bench.streams import names as protocol_names
from bench.streams.protocol import Protocol


@dataclass(frozen=True)
class Size:
    """Of a run."""

    tasks: int
    train: float  # images of all tasks
    test: float
    epochs: int = 0  # of the method's recipe; 0: it has none of that name
    iterations: int = 0

    def learning(self, other: "Size") -> float:
        """So many times longer than on the other one a method learns. Updates that are counted do not grow with the images."""
        if self.iterations and other.iterations and not (self.epochs or other.epochs):
            return self.tasks * self.iterations / (other.tasks * other.iterations)
        epochs = self.epochs / other.epochs if self.epochs and other.epochs else 1.0
        return epochs * self.train / other.train

    def scoring(self, other: "Size") -> float:
        """All test images are scored after every task."""
        return self.tasks * self.test / (other.tasks * other.test)


def of_run(run: Run) -> Size | None:
    """As far as its protocol says without opening an image; None where a data set does not say how many images it has."""
    images = _images(run.protocol_given, run.order_seed, run.limit_train, run.limit_test)
    return Size(*images, **_length(run.settings)) if images else None


def of_manifest(manifest: Mapping[str, Any]) -> Size | None:
    """Of a finished run; None where its manifest does not say."""
    tasks = manifest.get("tasks")
    if not tasks:
        return None
    train, test = (sum(task[f"{kind}_images"] for task in tasks) for kind in ("train", "test"))
    return Size(len(tasks), train, test, **_length(manifest["identity"].get("settings") or {})) if train and test else None


def _length(settings: Mapping[str, Any]) -> dict[str, int]:
    found = {name: settings.get(name) for name in ("epochs", "iterations")}
    return {name: value if isinstance(value, int) else 0 for name, value in found.items()}


@functools.lru_cache(maxsize=256)
def _images(
    protocol: str, order_seed: int, limit_train: int | None, limit_test: int | None
) -> tuple[int, float, float] | None:
    """(tasks, training images, test images)"""
    try:
        found = protocol_names.find(protocol)
        tasks = found.tasks(order_seed)
    except BenchError:
        return None
    classes: dict[str, int] = {}
    for task in tasks:
        classes[task.dataset] = classes.get(task.dataset, 0) + len(task.labels)
    train = _of_split(found, classes, "train", limit_train, found.shots)
    test = _of_split(found, classes, "test", limit_test, None)
    return (len(tasks), train, test) if tasks and train and test else None


def _of_split(
    protocol: Protocol, classes: Mapping[str, int], split: str, limit: int | None, shots: int | None
) -> float | None:
    total = 0.0
    most = min((count for count in (limit, shots) if count is not None), default=None)
    for dataset, count in classes.items():
        info = protocol.dataset(dataset).info
        whole = info.images(split)
        own = None if whole is None else whole * count / len(info.class_names)
        capped = None if most is None else most * count
        if own is None and capped is None:
            return None
        total += min(number for number in (own, capped) if number is not None)
    return total
