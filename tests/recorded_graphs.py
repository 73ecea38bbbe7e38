"""CUDA graphs without CUDA: a recording that reads its inputs and leaves its results in fixed places, as a graph does."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.clip import acceleration


@pytest.fixture
def recorded_on_the_cpu(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the first argument of what is recorded, in turn."""
    shapes: list[tuple[int, ...]] = []

    def record(function: Callable[..., Any], places: list[torch.Tensor]) -> tuple[Callable[[], None], Any]:
        shapes.append(tuple(places[0].shape))
        outputs = function(*places)

        def replay() -> None:
            for place, value in zip(_tensors(outputs), _tensors(function(*places))):
                place.copy_(value)

        for place in _tensors(outputs):
            place.fill_(float("nan"))  # recording computes nothing
        return replay, outputs

    monkeypatch.setattr(acceleration, "record", record)
    return shapes


def _tensors(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in _tensors(part)]
