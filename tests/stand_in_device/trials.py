"""A method learns on the stand-in device, as shortly as can be: two tasks of the mini world with two classes each."""

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bench import Draws, Method
from bench.clip import backbone as backbones
from bench.images.dataset import Folders
from bench.streams import reference
from bench.streams.features import FeatureStore
from bench.streams.opening import open_stream
from bench.streams.protocol import Protocol, TaskPlan
from tests.methods.teaching import teach

LIKE = "mini60-6x10"  # whose recipe the method is run with
TASKS, CLASSES_PER_TASK = 2, 2
# At the recipe's 0.03, noise of 1e-7 on what cgil draws moves its scores by up to half of the largest: where the gradient is
# rounding alone, Adam's first steps are still as long as the learning rate. At this one it moves them by a thousandth.
STEADY = {"alignment_lr": 0.003}


def learned(method_class: type[Method], cache: Path, device: str, images: int = 4, **changes: Any) -> torch.Tensor:
    """(images, classes) scores of the training images after two tasks, on the CPU.

    images: of each class. changes: of settings, beside those of `quick`, which shorten training.
    """
    store = FeatureStore(backbones.load("mini", None, device, "float32"), cache / "features")
    folders = Folders(data=cache / "no-data", cache=cache)
    stream = open_stream(_protocol(method_class), 0, store, folders, images, images)
    fields = {field.name for field in dataclasses.fields(method_class.Settings)}
    small = {field: value for field, value in ({"batch_size": 2} | STEADY).items() if field in fields}
    settings = method_class.settings_for(LIKE, {**method_class.quick, **small, **changes})
    method = method_class(settings, store.backbone, stream.scenario, Draws(LIKE, "trial", 0)).eval()
    if method.reference_names:
        method.use_reference(reference.load(method.reference_names, store, folders)[0])
    teach(method, *([stream.joined()] if method.joint else [task.for_training() for task in stream.tasks]))
    classes = list(range(len(stream.scenario.class_names)))
    with torch.inference_mode():
        return torch.cat([method.logits(next(task.test.batches(method.inputs, 64)), classes).cpu() for task in stream.tasks])


def _protocol(method: type[Method]) -> Protocol:
    def tasks(order_seed: int) -> list[TaskPlan]:
        labels = np.arange(0, 60, 15).reshape(TASKS, CLASSES_PER_TASK).tolist()  # of several domains
        return [TaskPlan(f"task {t}", "mini60", tuple(row)) for t, row in enumerate(labels)]

    return Protocol("trial", "1", method.scenarios[0], "of these tests", tasks, fixed_order=True, exemplars_per_class=2)


def variations(method: type[Method]) -> Iterator[dict[str, Any]]:
    """Every switch and every choice of its settings, turned by itself from what a trial has otherwise."""
    usual = method.settings_for(LIKE, method.quick)
    kinds = typing.get_type_hints(type(usual))
    for field in dataclasses.fields(usual):
        for value in _choices(kinds[field.name]):
            if value != getattr(usual, field.name):
                yield {field.name: value}


def _choices(kind: Any) -> list[Any]:
    """
    >>> _choices(bool), _choices(Literal["a", "b"] | int), _choices(float)
    ([False, True], ['a', 'b'], [])
    """
    if kind is bool:
        return [False, True]
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return list(itertools.chain(*map(_choices, typing.get_args(kind))))
    return []
