"""What passes between the stand-in device and the host in each step of training."""

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.system import progress
from tests.stand_in_device import crossings
from tests.stand_in_device.crossings import Crossing


@dataclass
class Phase:
    """A phase of training, as a method announces one."""

    name: str
    steps: list[list[Crossing]] = field(default_factory=list)  # the crossings of each step

    def usual(self, *kinds: str) -> int:
        """Crossings of these kinds in an ordinary step: the median of all steps but the first, which also prepares. A look at
        the loss every twentieth step, or at the end of an epoch, is not ordinary."""
        counts = [sum(crossing.kind in kinds for crossing in step) for step in self.steps[1:]]
        return statistics.median_low(counts) if counts else 0

    @property
    def last(self) -> str:
        """The crossings of the last step but one, in words."""
        return "; ".join(map(str, self.steps[-2] if len(self.steps) > 2 else self.steps[-1]))


class Steps(progress.Listener):
    """Gives each crossing to the step that was not over when it happened."""

    def __init__(self, found: list[Crossing]):
        self.found, self.phases = found, list[Phase]()

    def trains(self, phase: str, steps: int | None, of_an_epoch: int | None) -> None:
        self.found.clear()
        self.phases.append(Phase(phase))

    def step(self, loss: Any) -> None:
        if not self.phases:
            self.phases.append(Phase(""))
        self.phases[-1].steps.append(self.found.copy())
        self.found.clear()


@contextlib.contextmanager
def watched() -> Iterator[list[Phase]]:
    """The phases of training that this thread goes through meanwhile."""
    with crossings.counted() as found:
        steps = Steps(found)
        with progress.listening(steps):
            yield steps.phases
