"""What a step of the campaign is, and which there are."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Group = Literal["correctness", "measurements", "candidates"]
GROUPS: tuple[Group, ...] = ("correctness", "measurements", "candidates")
Rows = Sequence[dict[str, str]]


class NotApplicable(Exception):
    """The step says nothing on this device; the message says why."""


@dataclass(frozen=True)
class Conditions:
    """What the steps are carried out under."""

    device: str  # cuda, cpu or standin
    size: str  # small or full
    cache: Path  # of generated images and features

    @property
    def small(self) -> bool:
        return self.size == "small"

    def only_on_cuda(self, what: str = "") -> None:
        if self.device != "cuda":
            raise NotApplicable("needs CUDA" + (f": {what}" if what else ""))


@dataclass(frozen=True)
class Step:
    """One piece of work that is lost if it is interrupted: some seconds to a minute or two."""

    name: str
    group: Group
    table: str
    seconds: float  # that it takes, about
    work: Callable[[Conditions], Rows]


def all_steps(conditions: Conditions) -> list[Step]:
    """In the order in which they are carried out: what is wrong has to be known before it is measured."""
    from tests.benchmarks.gpu import candidates, correctness, measurements

    return [*correctness.steps(conditions), *measurements.steps(conditions), *candidates.steps(conditions)]


def found_by(source: str, conditions: Conditions) -> list[Step]:
    """The steps that "module:function" gives."""
    module, _, function = source.partition(":")
    return getattr(importlib.import_module(module), function)(conditions)
