"""What a command shows while its user waits: after five seconds of silence a word on stderr that it works, and how far it is.

Every command has this, and every command has --quiet against it. In a terminal the word is a line that is rewritten while
something is counted, and gone when that is done, so that no answer of the command gets between; elsewhere it is a line, and
another one each minute.
`bench run` shows its runs itself (bench/runs/display.py) and stops this meanwhile.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

import click

from bench.system.progress import Listener, line_seconds, listening

PATIENCE = 5.0  # seconds before the first word
REWRITTEN = 0.5  # seconds between two looks of the line in a terminal

_QUIET = "bench.quiet"


class Waiting(Listener):
    """Of one command."""

    def __init__(self, command: str, every: float, patience: float = PATIENCE):
        self.command, self.every, self.patience = command, every, min(patience, every)
        self._work: list[tuple[str, int, int | None]] = []  # the innermost last
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._stopped = False
        self._written = 0  # characters of the line in the terminal
        self._began = time.monotonic()
        self._due = self._began + self.patience

    # -- what the work says -------------------------------------------------------------------------------------

    def works(self, what: str, done: int, total: int | None) -> None:
        if done == 0:
            self._work.append((what, 0, total))
        elif self._work:
            self._work[-1] = (what, done, total)

    def rests(self) -> None:
        with self._lock:
            if self._work:
                self._work.pop()
            if not self._work:
                self._wipe()

    # -- what is shown ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        thread = threading.Thread(target=self._look, name="waiting", daemon=True)
        thread.start()
        try:
            with listening(self):
                yield
        finally:
            self.stop()
            self._over.set()
            thread.join()

    def stop(self) -> None:
        """Nothing more is shown."""
        with self._lock:
            self._stopped = True
            self._wipe()

    def _look(self) -> None:
        while not self._over.wait(min(REWRITTEN, self.patience / 4)):
            with self._lock:
                if self._stopped:
                    return
                if time.monotonic() >= self._due:
                    self._speak()

    def _speak(self) -> None:
        work = self._work[-1] if self._work else None
        if sys.stderr.isatty() and work:
            line = self._line(work)
            _write("\r" + line.ljust(self._written))
            self._written = len(line)
            return
        _write(self._line(work) + "\n")
        self._due = time.monotonic() + self.every

    def _line(self, work: tuple[str, int, int | None] | None) -> str:
        """
        >>> waiting = Waiting("bench report", 60)
        >>> waiting._line(("drawing", 3, 12)), waiting._line(None)
        ('bench report: drawing, 3 of 12; 0 s so far', 'bench report: at work; 0 s so far')
        """
        spent = time.monotonic() - self._began
        if work is None:
            return f"{self.command}: at work; {spent:.0f} s so far"
        what, done, total = work
        return f"{self.command}: {what}, {done}" + (f" of {total}" if total else "") + f"; {spent:.0f} s so far"

    def _wipe(self) -> None:
        if self._written:
            _write("\r" + " " * self._written + "\r")
            self._written = 0


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads any more, a closed file
        sys.stderr.write(text)
        sys.stderr.flush()


_current: Waiting | None = None


@contextlib.contextmanager
def shown(command: str) -> Iterator[None]:
    """Show what the command does inside, until it is over or `stop` is called."""
    global _current
    _current = Waiting(command, line_seconds())
    try:
        with _current.shown():
            yield
    finally:
        _current = None


def names(command: str) -> None:
    """What is carried out is this command."""
    if _current:
        _current.command = command


def stop() -> None:
    """The command shows by itself what it does, or is to be quiet."""
    if _current:
        _current.stop()


def quiet() -> bool:
    """Was --quiet given to the command that is being carried out?"""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(_QUIET))


def _be_quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_QUIET] = True
        stop()


def with_quiet(command: click.Command) -> click.Command:
    """The command, or all commands of a group, with the option --quiet."""
    if isinstance(command, click.Group):
        for one in command.commands.values():
            with_quiet(one)
    elif not any(parameter.name == "quiet" for parameter in command.params):
        command.params.append(
            click.Option(
                ["--quiet"], is_flag=True, expose_value=False, callback=_be_quiet, envvar="BENCH_QUIET",
                help="Show no progress.",
            )
        )  # fmt: skip
    return command
