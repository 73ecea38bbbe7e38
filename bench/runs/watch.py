"""Listens to one run: its losses go into log.csv, and how far it is to whoever shows that.

A loss stays on the device where it was computed. Sums of epochs are read together, at most once a second and at the end of a
task, so that a GPU is made to wait as seldom as a person looks.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bench.results import training_log
from bench.results.training_log import Row
from bench.runs.moments import Moment, Progress
from bench.system import progress as marks

STEPS_OF_A_ROW, ROWS = 10, 100  # where a phase has no epochs: so many steps at least a row, so many rows at most
READ_SECONDS = 1.0  # between two looks at rows that are complete
PARTIAL_SECONDS = 10.0  # between two looks at the loss of an epoch that goes on
SAY_SECONDS = 0.2  # between two words on how far it is


@dataclass
class _Phase:
    """A phase of training, and what of it is not in a row yet."""

    name: str
    steps: int | None
    of_an_epoch: int | None
    made: int = 0
    total: torch.Tensor | float = 0.0  # of the losses since the last row
    since: int = 0  # so many they are

    @property
    def at_the_end_of_a_row(self) -> bool:
        if self.of_an_epoch:
            return self.made % self.of_an_epoch == 0
        return self.made % max(STEPS_OF_A_ROW, (self.steps or STEPS_OF_A_ROW * ROWS) // ROWS) == 0 or self.made == self.steps

    @property
    def epoch(self) -> int | None:
        """The one that the last step belongs to, from 1."""
        return max(1, -(-self.made // self.of_an_epoch)) if self.of_an_epoch else None


@dataclass
class _Learning:
    """The task that is being learned."""

    index: int
    name: str
    began: float
    phases: dict[str, int] = field(default_factory=dict)  # name -> so many there were of it
    phase: _Phase | None = None


class Watch(marks.Listener):
    """Of one run, in the thread that carries it out.

    log: None keeps none. tasks: so many the run has. learned: seconds that its tasks have taken, those before an interruption
    too.
    """

    def __init__(self, log: Path | None, progress: Progress):
        self.log, self.progress = log, progress
        self.tasks, self.learned = 0, list[float]()
        self.now = Moment(0, "preparing")
        self._learning: _Learning | None = None
        self._work: list[tuple[str, int, int | None]] = []  # the innermost last
        self._waiting: list[tuple[Row, torch.Tensor | float]] = []  # rows without their losses, and these
        self._began_task: float | None = None  # None: between two tasks
        self._said = self._read = time.perf_counter()

    # -- what the runner says -----------------------------------------------------------------------------------

    def say(self, done: int, what: str) -> None:
        """The run begins another part of its work."""
        self.now = Moment(done, what, loss=self.now.loss)
        self._say()

    def begin(self, tasks: int, finished: int, learned: list[float]) -> None:
        """So many tasks there are, so many are finished, and these seconds they took."""
        self.tasks, self.learned = tasks, learned
        if self.log:
            training_log.cut(self.log, finished)

    @contextlib.contextmanager
    def learning(self, index: int, name: str) -> Iterator[None]:
        """Steps made inside belong to this task."""
        self._began_task = time.perf_counter()
        self._learning = _Learning(index, name, time.perf_counter())
        self.say(index, f"learning {name}")
        try:
            yield
        except Exception:
            with contextlib.suppress(Exception):  # a device that has failed answers nothing more
                self._finish()
            raise
        else:
            self._finish()
        finally:
            self._learning = None
            self._waiting.clear()

    def _finish(self) -> None:
        self._end_of_row()
        self._write()

    def finished(self, done: int, name: str, seconds: float) -> None:
        """A task is learned, scored and kept; so long it took."""
        self.learned.append(seconds)
        self._began_task = None
        self.now = Moment(done, "going on", loss=self.now.loss, ended=name)
        self._say()
        self.now = replace(self.now, ended="")  # said once

    # -- what training says -------------------------------------------------------------------------------------

    def trains(self, phase: str, steps: int | None, of_an_epoch: int | None) -> None:
        if not self._learning:
            return
        self._end_of_row()
        count = self._learning.phases[phase] = self._learning.phases.get(phase, 0) + 1
        self._learning.phase = _Phase(f"{phase} {count}".strip() if count > 1 else phase, steps, of_an_epoch)

    def step(self, loss: Any) -> None:
        if not self._learning:
            return
        if self._learning.phase is None:
            self.trains("", None, None)
        phase = self._learning.phase
        assert phase is not None
        phase.made += 1
        if loss is not None:
            phase.since += 1
            phase.total = phase.total + (loss.detach().float() if isinstance(loss, torch.Tensor) else float(loss))
        if phase.at_the_end_of_a_row:
            self._end_of_row()
        self._look(phase)

    def _end_of_row(self) -> None:
        """What was summed up is a row, if it is anything."""
        learning = self._learning
        if not (learning and (phase := learning.phase) and phase.since):
            return
        seconds = round(time.perf_counter() - learning.began, 3)
        row = Row(learning.index, learning.name, phase.name, phase.epoch, phase.made, 0.0, seconds)
        self._waiting.append((row, phase.total / phase.since))
        phase.total, phase.since = 0.0, 0

    def _look(self, phase: _Phase) -> None:
        now = time.perf_counter()
        if self._waiting and now - self._read > READ_SECONDS:
            self._write()
        elif now - self._read > PARTIAL_SECONDS:
            self.now = replace(self.now, loss=float(phase.total / phase.since)) if phase.since else self.now
            self._read = time.perf_counter()
        if now - self._said > SAY_SECONDS:
            self._say()

    def _write(self) -> None:
        """The rows that are complete, into the log."""
        self._read = time.perf_counter()
        if not self._waiting or self.log is None:
            self._waiting.clear()
            return
        losses = _numbers([loss for _, loss in self._waiting])
        rows = [replace(row, loss=loss) for (row, _), loss in zip(self._waiting, losses)]
        self._waiting.clear()
        self.now = replace(self.now, loss=losses[-1])
        training_log.append(self.log, rows)

    # -- what other work says -----------------------------------------------------------------------------------

    def works(self, what: str, done: int, total: int | None) -> None:
        if done == 0:
            self._work.append((what, 0, total))
        elif self._work:
            self._work[-1] = (what, done, total)
        if time.perf_counter() - self._said > SAY_SECONDS:
            self._say()

    def rests(self) -> None:
        if self._work:
            self._work.pop()

    # -- how far it is ------------------------------------------------------------------------------------------

    def _say(self) -> None:
        self._said = time.perf_counter()
        phase = self._learning.phase if self._learning else None
        moment = replace(self.now, left=self._left(phase))
        if self._work:
            what, done, total = self._work[-1]
            moment = replace(moment, phase=what, step=done, steps=total)
        elif phase:
            epochs = -(-phase.steps // phase.of_an_epoch) if phase.steps and phase.of_an_epoch else None
            moment = replace(moment, phase=phase.name, step=phase.made, steps=phase.steps, epoch=phase.epoch, epochs=epochs)
        self.progress(moment)

    def _left(self, phase: _Phase | None) -> float | None:
        """Seconds to the end: finished tasks say how long one takes, before there is one the steps of the first."""
        spent = time.perf_counter() - self._began_task if self._began_task else 0.0
        if self.learned:
            whole = sum(self.learned) / len(self.learned)
        elif phase and phase.steps and phase.made:
            whole = spent * phase.steps / phase.made
        else:
            return None
        after = self.tasks - self.now.done - (1 if self._began_task else 0)
        return (max(0.0, whole - spent) if self._began_task else 0.0) + whole * max(0, after)


def _numbers(losses: list[torch.Tensor | float]) -> list[float]:
    """What the losses are, with one wait for each device."""
    if all(isinstance(loss, torch.Tensor) for loss in losses) and len({loss.device for loss in losses}) == 1:  # type: ignore[union-attr]
        return torch.stack(losses).tolist()  # type: ignore[arg-type]
    return [float(loss) for loss in losses]
