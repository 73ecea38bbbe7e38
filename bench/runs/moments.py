"""What a run is doing, as those who carry it out tell those who show it: plain data that also crosses to another process."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Moment:
    """A run at one moment."""

    done: int  # tasks finished
    what: str  # "learning digits", say; "" when the run is over
    phase: str = ""  # of learning, or other work inside: "balanced", "encoding images"
    step: int = 0  # steps of the phase that are made
    steps: int | None = None  # so many it has; None: not known
    epoch: int | None = None  # the one that goes on, from 1
    epochs: int | None = None
    loss: float | None = None  # the last one that was read
    ended: str = ""  # name of the task that has just been finished; of a run that is over, how it ended
    left: float | None = None  # seconds to the end of the run, as its own tasks and steps tell; None: they do not

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


Progress = Callable[[Moment], None]


def ignore(moment: Moment) -> None:
    """Nobody wants to know."""
