"""What is seen of runs while they are carried out: bars in a terminal, lines elsewhere; on stderr, since stdout has the table.

A pipe, a file or the log of a CI job gets a line for every finished task and, so that nobody takes a long task for one that
hangs, a line for every run of which there was none for a minute. Whatever happens to stderr, no run fails for it.
"""

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.runs.estimate import duration
from bench.runs.moments import Moment
from bench.runs.run import Run
from bench.system.progress import line_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SHOWN_SINGLY = 8  # with more runs at a time than these, one line tells of all

Report = Callable[[Run, Moment], None]  # what a run is doing now


@contextlib.contextmanager
def shown(runs: Sequence[Run], quiet: bool = False) -> Iterator[Report]:
    """Show these runs until the context ends."""
    if quiet:
        yield lambda run, moment: None
    elif sys.stderr.isatty():
        with _bars(runs) as report:
            yield report
    else:
        lines = _Lines(len(runs), line_seconds())
        with lines.watched():
            yield lines.report


# -- lines ------------------------------------------------------------------------------------------------------


@dataclass
class _Seen:
    """A run that is being carried out, as it was seen last."""

    run: Run
    began: float
    moment: Moment
    at: float  # when that moment was
    said: float  # when the last line was


class _Lines:
    def __init__(self, runs: int, every: float):
        self.runs, self.every = runs, every
        self.over = 0
        self._began = time.monotonic()
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def report(self, run: Run, moment: Moment) -> None:
        now = time.monotonic()
        with self._lock:
            if not moment.what:
                self._ends(run, moment, now)
                return
            seen = self._seen.setdefault(run.run_id, _Seen(run, now, moment, now, now))
            seen.moment, seen.at = moment, now
            if moment.ended:
                seen.said = now
                _print(f"{self._head(seen)}: task {moment.done}{_of(run)} ({moment.ended}) done; {_times(seen, now)}")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, runs of which nothing is said for too long are spoken of."""
        end = threading.Event()

        def look() -> None:
            while not end.wait(self.every / 10):
                with self._lock:
                    self._remind(time.monotonic())

        thread = threading.Thread(target=look, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _remind(self, now: float) -> None:
        due = [seen for seen in self._seen.values() if now - seen.said >= 0.85 * self.every]  # never later than it should be
        for seen in due:
            seen.said = now
        if len(due) > SHOWN_SINGLY:
            counts = Counter(seen.moment.what.split()[0] for seen in self._seen.values())
            said = ", ".join(f"{count} {what}" for what, count in counts.most_common())
            _print(f"{self.over} of {self.runs} runs are over; {said}; {duration(now - self._began)} so far")
            return
        for seen in due:
            _print(f"{self._head(seen)}: {_doing(seen.run, seen.moment)}; {_times(seen, now)}")

    def _ends(self, run: Run, moment: Moment, now: float) -> None:
        self.over += 1
        seen = self._seen.pop(run.run_id, None)
        if seen and self.runs > 1:
            left = self.runs - self.over
            remaining = _about((now - self._began) * left / self.over) if left else ""
            ended = f"{run.label}: {moment.ended} after {duration(now - seen.began)}"
            _print(f"{ended}; {self.over} of {self.runs} runs over{remaining}")

    def _head(self, seen: _Seen) -> str:
        place = f"[{self.over + 1} of {self.runs}] " if self.runs > 1 and len(self._seen) == 1 else ""
        return place + seen.run.label


def _of(run: Run) -> str:
    return f" of {run.tasks}" if run.tasks else ""


def _doing(run: Run, moment: Moment) -> str:
    place = f" (task {moment.done + 1}{_of(run)})" if moment.what.startswith("learning") else ""
    return f"{moment.what}{place}{_inside(moment)}"


def _inside(moment: Moment) -> str:
    """How far a task is, as far as it tells.

    >>> _inside(Moment(0, "learning", "balanced", step=120, steps=400, epoch=3, epochs=10))
    ', balanced, epoch 3 of 10, step 120 of 400'
    """
    parts = [moment.phase] if moment.phase else []
    for name, count, whole in (("epoch", moment.epoch, moment.epochs), ("step", moment.step, moment.steps)):
        if count or whole:
            parts.append(f"{name} {count or 0}" + (f" of {whole}" if whole else ""))
    return "".join(f", {part}" for part in parts)


def _times(seen: _Seen, now: float) -> str:
    """Elapsed, remaining, last loss."""
    left = seen.moment.left
    remaining = "" if left is None else _about(max(0.0, left - (now - seen.at)))
    if left is None:
        remaining = ", to go: not known yet"
    loss = "" if seen.moment.loss is None else f", loss {seen.moment.loss:.4g}"
    return f"{duration(now - seen.began)} so far{remaining}{loss}"


def _about(seconds: float) -> str:
    return f", about {duration(seconds)} to go" if seconds >= 0.5 else ", almost over"


def _print(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads any more, a closed file
        print(line, file=sys.stderr, flush=True)


# -- bars -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _bars(runs: Sequence[Run]) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False), TextColumn("{task.fields[inside]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars, len(runs)).report


class _Bars:
    def __init__(self, bars: "Progress", runs: int):
        self.bars, self.runs = bars, runs
        self.overall = bars.add_task("all runs", total=runs, left="", inside="")
        self.current: dict[str, TaskID] = {}
        self.over, self.began = 0, time.monotonic()

    def report(self, run: Run, moment: Moment) -> None:
        if not moment.what:
            self._ends(run)
            return
        if run.run_id not in self.current:
            self.current[run.run_id] = self.bars.add_task(run.label, total=run.tasks or None, left="", inside="")
        left = f"{duration(moment.left)} left" if moment.left and moment.left >= 0.5 else ""
        loss = "" if moment.loss is None else f", loss {moment.loss:.4g}"
        inside = f"{_inside(moment)}{loss}".removeprefix(", ")
        description = f"{run.label}: {moment.what}"
        self.bars.update(
            self.current[run.run_id], completed=moment.done, description=description, left=left, inside=inside
        )

    def _ends(self, run: Run) -> None:
        if run.run_id in self.current:
            self.bars.remove_task(self.current.pop(run.run_id))
        self.over += 1
        left = (time.monotonic() - self.began) * (self.runs - self.over) / self.over
        self.bars.update(self.overall, advance=1, left=f"about {duration(left)} left" if left >= 1 else "")
