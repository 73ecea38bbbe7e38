"""Training batches: a new random order each epoch, within the protocol's budget of training images."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from bench import Draws, Scenario
from bench.system import progress


class Batch(NamedTuple):
    step: int  # from 0, through all epochs
    epoch: int
    rows: torch.Tensor  # (b,) which images


def steps_within_budget(*, images: int, batch_size: int, epochs: int, budget: int | None, whole_batches: bool = False) -> int:
    """Steps of `epochs` passes over so many images, cut at a budget of images; None: no limit."""
    steps = epochs * steps_of_an_epoch(images=images, batch_size=batch_size, whole_batches=whole_batches)
    return steps if budget is None else min(steps, math.ceil(budget / batch_size))


def steps_of_an_epoch(*, images: int, batch_size: int, whole_batches: bool = False) -> int:
    return images // batch_size if whole_batches and images >= batch_size else math.ceil(images / batch_size)


def training_batches(
    draws: Draws,
    *,
    images: int,
    batch_size: int,
    epochs: int,
    budget: int | None,
    purpose: Sequence[object],
    whole_batches: bool = False,
) -> Iterator[Batch]:
    """The batches of every step: as many as `steps_within_budget` says; an epoch's last batch may be smaller.

    images    so many there are to learn from
    budget    images that may be gone through. It has no default, lest a method train for longer than a protocol allows: what
              that is says Scenario.images_per_task, and for the phases of a task `budgets_of_phases`
    purpose   of the draws: the order of an epoch is drawn for (*purpose, epoch). Name the phase and the task: two phases with
              one purpose would see their images in the same order
    whole_batches  leaves out an epoch's last batch where it is smaller; with fewer images than a batch has, they are one

    Who asks for the first one begins a phase of training, named by the purpose's first word: its losses are logged by its epochs.
    """
    step, steps = 0, steps_within_budget(
        images=images, batch_size=batch_size, epochs=epochs, budget=budget, whole_batches=whole_batches
    )  # fmt: skip
    of_an_epoch = steps_of_an_epoch(images=images, batch_size=batch_size, whole_batches=whole_batches)
    progress.trains(_phase_of(purpose), steps, of_an_epoch)
    for epoch in range(epochs):
        for rows in draws.permutation(images, *purpose, epoch).split(batch_size):
            if step == steps:
                return
            if whole_batches and len(rows) < min(batch_size, images):
                continue
            yield Batch(step, epoch, rows)
            step += 1


def _phase_of(purpose: Sequence[object]) -> str:
    """How a phase of training is called, by the purpose of its draws; empty for the one that most methods have.

    >>> _phase_of(("batch order", 3)), _phase_of(("balanced batch order", 3)), _phase_of(("domain autoencoder", 0))
    ('', 'balanced', 'domain autoencoder')
    """
    return " ".join(word for word in str(next(iter(purpose), "")).split() if word not in ("batch", "order"))


def budgets_of_phases(scenario: Scenario, images: Sequence[int]) -> list[int | None]:
    """The budget of images of each phase, for methods that train on a task in several phases; None: no limit.

    `images` says how many images every phase would go through. Where their sum exceeds the protocol's budget
    (Scenario.images_per_task), each phase gets its proportional part of it, rounded down.
    """
    budget = scenario.images_per_task
    if budget is None or sum(images) <= budget:
        return [budget] * len(images)
    return [budget * part // sum(images) for part in images]


# -- as they were called before: for one release ------------------------------------------------------------------


def batches(
    scenario: Scenario, draws: Draws, n: int, batch_size: int, epochs: int, *purpose: object
) -> Iterator[Batch]:
    """`training_batches` in the form that `bench new` wrote into methods before, with numbers by their place."""
    _warn("batches", "training_batches, whose arguments have names")
    budget = scenario.images_per_task
    return training_batches(draws, images=n, batch_size=batch_size, epochs=epochs, budget=budget, purpose=purpose)


def count_steps(scenario: Scenario, n: int, batch_size: int, epochs: int) -> int:
    """`steps_within_budget` of the scenario."""
    _warn("count_steps", "steps_within_budget, whose arguments have names")
    return steps_within_budget(images=n, batch_size=batch_size, epochs=epochs, budget=scenario.images_per_task)


def share_budget(scenario: Scenario, images: Sequence[int]) -> list[Scenario]:
    """`budgets_of_phases` as copies of the scenario, one for each phase, for `batches` and `count_steps`."""
    _warn("share_budget", "budgets_of_phases, which gives numbers")
    return [replace(scenario, images_per_task=budget) for budget in budgets_of_phases(scenario, images)]


def _warn(former: str, now: str) -> None:
    text = f"methods.shared.batches.{former} is {now} now; the former one goes with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
