"""Accuracy matrices of other programs as rows of comparison tables: marked, never averaged, never ranked.

Nothing is known of such a run but its accuracies: not the weights, not the images, not which classes competed. So it stands
beside own runs for a look at both, and no more. It goes into the table of those runs that learned as many tasks, under the same
scenario where its file says one; if several tables fit, or none, it gets a table of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.reports.formats import Table, TableCell, counted, percent
from bench.reports.rows import Column, metric_block, task_blocks
from bench.results.foreign import accuracy_files
from bench.results.foreign.accuracy_matrix import ALSO_DETERMINED, DETERMINED, AccuracyMatrix
from bench.results.foreign.files import STANDARD_INPUT
from bench.results.metrics import DEFAULTS, METRICS
from bench.results.run_data import CLASS_INCREMENTAL, RunData
from bench.results.run_folder import RECORDS

MARK = "§"
DASH = "a dash: not available"
RECORDS_COLUMNS = ("run_id", "protocol_version")  # one of them is left in a records file that is damaged


@dataclass(frozen=True)
class Foreign:
    """One matrix, and the file that it was read from."""

    file: str
    one: AccuracyMatrix

    @property
    def label(self) -> str:
        return f"{self.one.label} {MARK}"

    @property
    def note(self) -> str:
        given = [task for task in self.one.tasks if not task.startswith(("task ", "experience "))]
        tasks = f" (its tasks: {', '.join(given)})" if given and len(given) <= 20 else ""
        known = "nothing else is known of it, so it is not ranked"
        return f"{MARK} measured by another program, read from {Path(self.file).name}{tasks}; {known}"

    def value(self, column: Column, scenario: str) -> float | None:
        if column.key in ("last_samples", "avg_samples") and self.one.moments is not None:
            return self.one.metrics()[column.key]
        if column.key in METRICS and column.key not in (*DETERMINED, *ALSO_DETERMINED):
            return None  # it tells apart which classes competed, which the file does not
        n = np.full(len(self.one.tasks), np.nan) if self.one.images is None else self.one.images
        same = dict.fromkeys(("seen", "task", "all"), self.one.matrix)
        value = column.function(RunData(scenario, same, n, baseline=self.one.baseline))
        return None if value is None or np.isnan(value) else float(value)


def split(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(own results, files of other programs). A file of records, or whatever is left of one, is an own result."""
    own: list[Path] = []
    files: list[Path] = []
    for path in map(Path, paths):
        foreign = str(path) == STANDARD_INPUT or (path.is_file() and not _is_records(path))
        (files if foreign else own).append(path)
    return own, files


def _is_records(path: Path) -> bool:
    if path.name == RECORDS:
        return True
    try:
        with open(path, "rb") as file:
            head = file.readline(10_000).decode("utf-8", errors="replace").strip().lstrip("\ufeff").split(",")
    except OSError:
        return False
    return any(name.strip('"') in RECORDS_COLUMNS for name in head)


def load(files: Sequence[Path]) -> list[Foreign]:
    """Every matrix in the files."""
    return [
        Foreign("standard input" if str(file) == STANDARD_INPUT else str(file), one)
        for file, one in accuracy_files.read_all(files)
    ]


def place_of(foreign: Foreign, tables: Sequence[tuple[str, int]]) -> int | None:
    """Which of the tables, (scenario, tasks) each, the matrix may stand in; None unless it is exactly one.

    0 tasks: a table that takes none.
    """
    fitting = [i for i, (scenario, tasks) in enumerate(tables)
               if tasks == len(foreign.one.tasks) and foreign.one.scenario in ("", scenario)]  # fmt: skip
    return fitting[0] if len(fitting) == 1 else None


def add_rows(table: Table, found: Sequence[Foreign], columns: Sequence[Column], scenario: str) -> None:
    """A row of its own for each matrix, below those of own runs."""
    for foreign in found:
        values = {column.key: foreign.value(column, scenario) for column in columns}
        table.rows.append([TableCell(foreign.label), *[TableCell(percent(value)) for value in values.values()], TableCell("1")])
        facts = {"method": foreign.one.label, "overrides": "", "source": foreign.file, "foreign": True, "runs": 1}
        table.data.append(facts | values)
    own = table.rows[len(table.rows) - len(found) :]
    if DASH not in table.notes and any(cell.text == "-" for row in own for cell in row):
        table.notes.append(DASH)
    table.notes += dict.fromkeys(foreign.note for foreign in found)


def apart(found: Sequence[Foreign], metrics: Sequence[str] | None, view: str, tables: Sequence[tuple[str, int]]) -> list[Table]:
    """Tables of foreign matrices only, one for each number of tasks; `tables`: those of own runs, (scenario, tasks)."""
    if view == "matrix":
        return [_matrix(foreign) for foreign in found]
    made = []
    shapes = [(foreign.one.scenario or CLASS_INCREMENTAL, len(foreign.one.tasks)) for foreign in found]
    for scenario, tasks in dict.fromkeys(shapes):
        own = [foreign for foreign, shape in zip(found, shapes) if shape == (scenario, tasks)]
        chosen = list(metrics or [name for name in DEFAULTS[scenario] if name in (*DETERMINED, *ALSO_DETERMINED)])
        if view == "tasks":
            names = own[0].one.tasks if len({tuple(f.one.tasks) for f in own}) == 1 else [f"task {k + 1}" for k in range(tasks)]
            blocks = task_blocks(scenario, names)
        else:
            blocks = [metric_block(chosen)]
        for block in blocks:
            caption = f"Measured by other programs; {counted(tasks, 'task')}" + (f"; {block.title}" if block.title else "")
            table = Table(caption, "Percent, one run a row.", ["method", *[c.title for c in block.columns], "runs"], [])
            lower = [column.title for column in block.columns if not column.higher_is_better]
            if lower:
                table.notes.append(f"lower is better: {', '.join(lower)}")
            add_rows(table, own, block.columns, scenario)
            table.notes += _why_apart(own, tables)
            made.append(table)
    return made


def _why_apart(found: Sequence[Foreign], tables: Sequence[tuple[str, int]]) -> list[str]:
    if not tables:
        return []
    tasks = len(found[0].one.tasks)
    fitting = sum(number == tasks and found[0].one.scenario in ("", scenario) for scenario, number in tables)
    if fitting:
        return [f"{fitting} of the tables above would fit; give the folder of one of them to have these rows in it"]
    test_images = " and shows test images" if any(number == 0 for _, number in tables) else ""
    return [f"none of the tables above has as many tasks under this scenario{test_images}"]


def _matrix(foreign: Foreign) -> Table:
    one = foreign.one
    rows = [[TableCell(f"after {name}"), *[TableCell(percent(value)) for value in line]]
            for name, line in zip(one.tasks, one.matrix)]  # fmt: skip
    data = [{"method": one.label, "overrides": "", "source": foreign.file, "foreign": True, "after_task": t,
             **{name: None if np.isnan(value) else float(value) for name, value in zip(one.tasks, line)}}
            for t, line in enumerate(one.matrix)]  # fmt: skip
    caption = f"{foreign.label}: accuracy matrix of {len(one.tasks)} tasks"
    return Table(caption, "Percent.", ["", *one.tasks], rows, notes=[foreign.note], data=data)


def marked(tables: list[Table]) -> list[Table]:
    """The same tables; in their data, rows of own runs say that they are not foreign."""
    for table in tables:
        table.data = [{**row, "foreign": row.get("foreign", False)} for row in table.data]
    return tables
