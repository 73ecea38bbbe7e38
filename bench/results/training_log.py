"""log.csv of a run: the losses of its training as they came, one row per epoch.

It is written while the run goes on and is no part of what identifies or makes a result: no checksum covers it, its `seconds`
differ between equal runs, and a run without it is whole. A run that was killed leaves rows of the task in flight, and maybe half
of a line; when it goes on, the log is cut to the tasks that are kept, so that none stands in it twice.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, reading
from bench.system.files import write_atomically

COLUMNS = {
    "task": "0-based: the task that is learned; of a method that learns all tasks at once, the last",
    "name": "its name",
    "phase": "what is trained, where a task has several phases; a second one of the same name has a number behind it",
    "epoch": "of this phase, from 1; a budget may cut the last one short. Empty where a phase has none: a row every few steps",
    "step": "steps of this phase that are made",
    "loss": "mean over the steps since the row before",
    "seconds": "since the task began to be learned",
}


@dataclass(frozen=True)
class Row:
    """The fields are the columns."""

    task: int
    name: str
    phase: str
    epoch: int | None
    step: int
    loss: float
    seconds: float


def read(path: Path) -> list[Row]:
    """The rows of a log; none of a run that has no log. Half a line at its end, of a writer at work or killed, is left out."""
    if not path.exists():
        return []
    with reading(path):
        lines = _whole_lines(path)
    if lines and lines[0] != list(COLUMNS):
        raise BenchError(f"{path}: not the log of a run: its columns are not {', '.join(COLUMNS)}")
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        row = _row(cells)
        if row is None:
            raise BenchError(f"{path}, line {number}: not a row of a log; delete the file, no result depends on it")
        rows.append(row)
    return rows


def cut(path: Path, tasks: int) -> None:
    """Keep what the log says of the first so many tasks. What cannot be read is not kept either: no result depends on it."""
    if not path.exists():
        return
    try:
        kept = [row for row in map(_row, _whole_lines(path)) if row is not None and row.task < tasks]
    except (OSError, UnicodeDecodeError, csv.Error):
        kept = []
    if kept:
        write_atomically(path, _text(list(COLUMNS)) + "".join(map(_line, kept)))
    else:
        path.unlink(missing_ok=True)


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows at the end, where they are seen at once."""
    text = "".join(map(_line, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text if file.tell() else _text(list(COLUMNS)) + text)


def _whole_lines(path: Path) -> list[list[str]]:
    text = path.read_text(encoding="utf-8")
    return list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))


def _row(cells: Sequence[str]) -> Row | None:
    """None for what is no row."""
    try:
        task, name, phase, epoch, step, loss, seconds = cells
        return Row(int(task), name, phase, int(epoch) if epoch else None, int(step), float(loss), float(seconds))
    except ValueError:
        return None


def _line(row: Row) -> str:
    return _text(["" if value is None else value for value in dataclasses.astuple(row)])


def _text(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
