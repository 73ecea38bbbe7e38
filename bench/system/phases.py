"""What a run is doing: marks in the runner, the feature store and the reading of images, for whoever measures.

Of two marks inside each other the inner one counts, so every moment belongs to one phase: encoding that training waits for is
"encode", not "train". Without a recording a mark costs a microsecond.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

PHASES = {
    "load": "weights, data sets and stored features; decoding, resizing and scaling of images",
    "encode": "the frozen image encoder, for the feature store",
    "train": "preparing and learning",
    "evaluate": "scoring test images",
    "write": "records, per-sample scores, checkpoints, new entries of the feature store",
    "other": "everything else",
}

_recordings = threading.local()  # of this thread: marks on another run beside the phase that they belong to, and do not count


class Recording:
    """What a meter (seconds, operations, images; never falls) has gained in each phase since the recording began."""

    def __init__(self, meter: Callable[[], float]):
        self.spent = dict.fromkeys(PHASES, 0.0)
        self._meter = meter
        self._open = ["other"]
        self._last = meter()

    def enter(self, name: str) -> None:
        self.settle()
        self._open.append(name)

    def leave(self) -> None:
        self.settle()
        self._open.pop()

    def settle(self) -> None:
        """What has been gained since the last border belongs to the innermost open phase."""
        now = self._meter()
        self.spent[self._open[-1]] += now - self._last
        self._last = now


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """A phase of a run; also a decorator."""
    recordings: tuple[Recording, ...] = getattr(_recordings, "current", ())
    if not recordings:
        yield
        return
    for recording in recordings:
        recording.enter(name)
    try:
        yield
    finally:
        for recording in recordings:
            recording.leave()


@contextlib.contextmanager
def recorded(meter: Callable[[], float]) -> Iterator[Recording]:
    """Record the phases of what this thread does inside; whole once it is left. Recordings inside each other are independent."""
    before = getattr(_recordings, "current", ())
    recording = Recording(meter)
    _recordings.current = (*before, recording)
    try:
        yield recording
    finally:
        _recordings.current = before
        recording.settle()
