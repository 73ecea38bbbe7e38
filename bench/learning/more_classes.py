"""The state of a method whose stream has become longer: more classes, and a task more.

A method keeps some of its state by class or by task of the whole stream, one row each. A method that is made for the longer
stream has these rows for the new ones, too, as it begins with them; the rows of the others are those that were kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from bench.learning.method import Method
from bench.streams.scenario import Scenario


@dataclass(frozen=True)
class Counts:
    """How many classes and tasks a stream has."""

    classes: int
    tasks: int

    @classmethod
    def of(cls, scenario: Scenario) -> "Counts":
        return cls(len(scenario.class_names), scenario.n_tasks)


def load_into(method: Method, state: Mapping[str, torch.Tensor], before: Counts) -> None:
    """Load a state that was kept when the stream was shorter into a method that was made for the stream as it is now."""
    now = Counts.of(method.scenario)
    if now != before:
        own = method.state_dict()
        state = {name: _widened(value, own[name], before, now) if name in own else value for name, value in state.items()}
    method.load_state_dict(state)
    if now != before:
        method.classes_added(range(before.classes, now.classes))


def _widened(kept: torch.Tensor, fresh: torch.Tensor, before: Counts, now: Counts) -> torch.Tensor:
    """The kept tensor, with the rows (or columns) of new classes and tasks from the fresh one, if it has any."""
    if kept.shape == fresh.shape or kept.ndim != fresh.ndim:
        return kept
    pairs = {(before.classes, now.classes), (before.tasks, now.tasks)}
    longer = [(old, new) in pairs and old != new for old, new in zip(kept.shape, fresh.shape)]
    if not any(longer):
        return kept  # it has grown since `prepare`, and is no list of the stream's classes
    shape = [new if here else old for here, old, new in zip(longer, kept.shape, fresh.shape)]
    # what has grown along another dimension since `prepare` has nothing there yet for the new classes
    wider = fresh.detach().cpu().clone() if tuple(shape) == fresh.shape else torch.zeros(shape, dtype=kept.dtype)
    wider[tuple(slice(0, size) for size in kept.shape)] = kept.cpu()
    return wider
