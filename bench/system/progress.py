"""Marks in what takes long, for whoever shows how far it is: steps of training with their losses, and pieces of other work.

A loop says what it does and knows nobody who listens; the log of a run, a terminal and the line a minute in a pipe hear it from
here. Without a listener a mark costs a fraction of a microsecond. Only the thread that listens is heard: a thread that prepares
the next batches is ahead of the training that its marks would seem to belong to.
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from bench.errors import BenchError

Item = TypeVar("Item")

LINE_SECONDS = "BENCH_PROGRESS_SECONDS"

_of_thread = threading.local()


class Listener:
    """Hears what a thread does. What it has no use for passes by."""

    def trains(self, phase: str, steps: int | None, of_an_epoch: int | None) -> None:
        """A phase of training begins: so many steps, so many of them an epoch; None: not known, or without epochs."""

    def step(self, loss: Any) -> None:
        """A step down this loss was made: a number, or a tensor of one number, which nobody has waited for yet. None: a step
        of the loop that trained nothing."""

    def works(self, what: str, done: int, total: int | None) -> None:
        """Of some other work so many pieces are done. It may lie inside training, or inside other work."""

    def rests(self) -> None:
        """The work that began last is over."""


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """The listener hears what this thread does inside; one that listens already hears nothing meanwhile."""
    before = _listener()
    _of_thread.listener = listener
    try:
        yield
    finally:
        _of_thread.listener = before


def _listener() -> Listener | None:
    return getattr(_of_thread, "listener", None)


def line_seconds() -> float:
    """Outside a terminal, after so long without a word what still goes on gets a line: a minute, or what LINE_SECONDS says."""
    text = os.environ.get(LINE_SECONDS) or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise BenchError(f"{LINE_SECONDS}={text}: a number of seconds from 0.1 to 86400 is wanted")
    return seconds


def trains(phase: str, steps: int | None = None, of_an_epoch: int | None = None) -> None:
    """Say that a phase of training begins. Steps that follow belong to it."""
    if listener := _listener():
        listener.trains(phase, steps, of_an_epoch)


def step(loss: Any) -> None:
    """Say that a step was made down this loss. Nothing is read from a GPU for it."""
    if listener := _listener():
        listener.step(loss)


def followed(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items one after the other; each counts as done when the next one is asked for."""
    listener = _listener()
    if listener is None:
        yield from items
        return
    listener.works(what, 0, total)
    try:
        for done, item in enumerate(items, start=1):
            yield item
            listener.works(what, done, total)
    finally:
        listener.rests()
