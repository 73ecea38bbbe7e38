"""Training batches: a new random order each epoch, within the protocol's budget of training images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from bench import Draws, Scenario


def count_steps(scenario: Scenario, n: int, batch_size: int, epochs: int) -> int:
    """Steps of `epochs` passes over `n` images, cut at the protocol's budget (Scenario.images_per_task)."""
    steps = epochs * math.ceil(n / batch_size)
    if scenario.images_per_task is not None:
        steps = min(steps, math.ceil(scenario.images_per_task / batch_size))
    return steps


def batches(
    scenario: Scenario, draws: Draws, n: int, batch_size: int, epochs: int, *purpose: object
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """(step, epoch, rows) of every step: as many as `count_steps` says; an epoch's last batch may be smaller.

    The order of an epoch is drawn for (*purpose, epoch): give a purpose that names the task and the phase.
    """
    step, steps = 0, count_steps(scenario, n, batch_size, epochs)
    for epoch in range(epochs):
        for rows in draws.permutation(n, *purpose, epoch).split(batch_size):
            if step == steps:
                return
            yield step, epoch, rows
            step += 1


def share_budget(scenario: Scenario, images: Sequence[int]) -> list[Scenario]:
    """The scenario as each phase of a task's training sees it, for methods that train in several phases.

    `images` says how many images every phase would go through. Where their sum exceeds the protocol's budget
    (Scenario.images_per_task), each phase gets its proportional part of it, rounded down.
    """
    budget = scenario.images_per_task
    if budget is None or sum(images) <= budget:
        return [scenario] * len(images)
    return [replace(scenario, images_per_task=budget * part // sum(images)) for part in images]
