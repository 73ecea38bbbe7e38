"""Files of measured results: writing one, reading it, and the complaints about one that does not hold together."""

import csv
import datetime
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line, printable
from bench.results import records
from bench.results.measured.of_run import of_conditions, paths_in
from bench.results.measured.schema import (
    COLUMNS,
    DATE,
    DIGEST,
    JSON,
    LENGTHS,
    MAY_BE_EMPTY,
    METRIC_COLUMNS,
    NUMBER,
    SCHEMA,
    WHOLE,
    MeasuredRun,
)
from bench.results.run_data import OWN_CANDIDATES
from bench.results.run_folder import run_id_of
from bench.results.soundness import IDENTIFYING
from bench.system.files import write_atomically
from bench.system.text_files import read_text

AS_RECOMPUTED = 1e-9  # a metric in a file may differ by so much from the one that its row gives: other orders of summation
LONGEST_CELL = 4_000_000  # characters: the accuracy matrices of hundreds of tasks
MOST_TASKS = 1000  # an accuracy matrix has the square of it
WHAT = "not a file of measured results that can be read"
WRITES = "bench publish writes them"


def to_csv(runs: Sequence[MeasuredRun]) -> str:
    """A row a run, sorted, so that two people's changes to a file meet in few places; floats in their shortest exact form."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *METRIC_COLUMNS])
    for run in sorted(runs, key=lambda one: (one["protocol"], one["method"], one["overrides"], *one.seeds, one["run_id"])):
        numbers = [run.metrics.get(name) for name in METRIC_COLUMNS]
        writer.writerow([*(run[name] for name in COLUMNS), *("" if number is None else repr(number) for number in numbers)])
    return text.getvalue()


def write(path: Path, runs: Sequence[MeasuredRun]) -> None:
    """Whole or not at all; an earlier file of measured results is replaced, any other file is not."""
    if path.is_dir():
        raise BenchError(f"{path}: is a folder; -o names the file that is written")
    if path.exists() and not is_measured(path):
        raise BenchError(f"{path}: is there already and holds no measured results; choose another name for -o")
    write_atomically(path, to_csv(runs))


def is_measured(path: Path) -> bool:
    """Does a file begin as those of bench publish do?"""
    with path.open("rb") as file:
        return file.readline(200).decode("utf-8", errors="replace").lstrip("\ufeff").startswith("schema,run_id,who,")


def shipped() -> list[Path]:
    """The files that ship with the package."""
    folder = files("bench.shipped").joinpath("measured")
    return sorted(Path(str(file)) for file in folder.iterdir() if file.name.endswith(".csv")) if folder.is_dir() else []


def read_all(paths: Sequence[Path]) -> list[MeasuredRun]:
    """Every row of several files; a run that one person has measured stands in one of them only."""
    found: dict[tuple[str, str], tuple[MeasuredRun, Path]] = {}
    for path in paths:
        for run in read(path):
            before = found.setdefault((run["who"], run["run_id"]), (run, path))[1]
            if before != path:
                raise BenchError(f"{path}: run {run['run_id']} of {run['who']} stands in {before} as well; keep one of the rows")
    return [run for run, _ in found.values()]


def read(path: Path) -> list[MeasuredRun]:
    """The rows of a file whose form is right; `complaints` says whether their numbers are, too."""
    rows = _rows(path)
    runs = [_run(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
    seen: dict[str, int] = {}
    for number, run in enumerate(runs, 1):
        if run["run_id"] in seen:
            raise BenchError(f"{path}: row {number}: run {run['run_id']} stands in row {seen[run['run_id']]} already; keep one")
        seen[run["run_id"]] = number
    return runs


def _rows(path: Path) -> list[dict[str, str]]:
    text = read_text(path, WHAT)
    csv.field_size_limit(LONGEST_CELL)
    try:
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise BenchError(f"{path}: {WHAT} ({one_line(error)})") from error
    header, body = (lines[0], lines[1:]) if lines else ([], [])
    newest = max((line[0] for line in body if line and header[0] == "schema" and _is_whole(line[0], "")), key=int, default="0")
    if int(newest) > SCHEMA:
        raise BenchError(f"{path}: written by a newer version (schema {newest}, this one reads up to {SCHEMA}); upgrade")
    if missing := [name for name in COLUMNS if name not in header]:
        raise BenchError(f"{path}: not a file of measured results, column {missing[0]!r} is missing ({WRITES})")
    if unknown := [name for name in header if name not in COLUMNS and name not in METRIC_COLUMNS]:
        raise BenchError(f"{path}: unknown column {unknown[0][:40]!r}; docs/measured.md has the columns")
    if twice := [name for name in header if header.count(name) > 1]:
        raise BenchError(f"{path}: column {twice[0]!r} stands there twice")
    if not body:
        raise BenchError(f"{path}: holds no rows; {WRITES}")
    for number, line in enumerate(body, 1):
        if len(line) != len(header):
            raise BenchError(f"{path}: row {number}: has {len(line)} cells, the header {len(header)}")
    return [dict(zip(header, line)) for line in body]


def misfit(run: MeasuredRun) -> str:
    """What `bench publish --check` would say of a row that was just made; empty if it is in order."""
    numbers = {name: "" if value is None else repr(value) for name, value in run.metrics.items()}
    try:
        return next(_contradictions(_run({**run.cells, **numbers}, "its row")), "")
    except BenchError as error:
        return str(error)


def _run(row: Mapping[str, str], where: str) -> MeasuredRun:
    """One row whose cells are of the right kinds."""
    for name, (kind, _) in COLUMNS.items():
        if row[name] == "" and name not in MAY_BE_EMPTY:
            raise BenchError(f"{where}: column {name!r} is empty")
        if row[name] and not KINDS.get(kind, _is_text)(row[name], name):
            raise BenchError(f"{where}: column {name!r} holds {row[name][:30]!r}, which is not {IN_WORDS[kind]}")
    metrics: dict[str, float | None] = {}
    for name in METRIC_COLUMNS:
        if row.get(name) and not _is_number(row[name], name):
            raise BenchError(f"{where}: column {name!r} holds {row[name][:30]!r}, which is not a number")
        metrics[name] = float(row[name]) if row.get(name) else None
    run = MeasuredRun({name: row[name] for name in COLUMNS}, metrics)
    for complaint in _shapes(run):
        raise BenchError(f"{where}: {complaint}")
    return run


def _shapes(run: MeasuredRun) -> Iterator[str]:
    """What keeps the matrices from being read."""
    if run["scenario"] not in OWN_CANDIDATES:
        yield f"unknown scenario {run['scenario'][:30]!r}"
        return
    if not (isinstance(run.identity, dict) and isinstance(run.identity.get("settings"), dict)):
        yield "column 'identity' holds no identity of a run"
        return
    if not (isinstance(run.tasks, list) and run.tasks and all(isinstance(name, str) for name in run.tasks)):
        yield "column 'tasks' is not a list of names"
        return
    if len(run.tasks) > MOST_TASKS:
        yield f"column 'tasks' has {len(run.tasks)} names, more than {MOST_TASKS}"
        return
    if not re.fullmatch(r"[1-9]\d{0,11}( [1-9]\d{0,11})*", run["test_images"]) or len(run.test_images) != len(run.tasks):
        yield "column 'test_images' is not one whole number a task"
        return
    kinds = "|".join(re.escape(name) for name in records.CANDIDATES)
    if not re.fullmatch(rf"(\d{{1,4}}/\d{{1,4}}/({kinds})=\d{{1,12}}( |$))+", run["correct"]):
        yield "column 'correct' is not after task/evaluated task/candidates=number, separated by spaces"
        return
    seen = set()
    for after, evaluated, candidates, right in run.correct:
        place = f"{after}/{evaluated}/{candidates}"
        if max(after, evaluated) >= len(run.tasks):
            yield f"column 'correct' has a cell {place}, but there are {len(run.tasks)} tasks"
        elif right > run.test_images[evaluated]:
            yield f"column 'correct' has {right} right ones in {place} of {run.test_images[evaluated]} images"
        elif place in seen:
            yield f"column 'correct' has the cell {place} twice"
        seen.add(place)


# -- do the numbers hold together? ------------------------------------------------------------------------------


def complaints(runs: Sequence[MeasuredRun]) -> Iterator[str]:
    """What does not follow from what, a line for each row at most."""
    for number, run in enumerate(runs, 1):
        if complaint := next(_contradictions(run), None):
            yield f"row {number} ({run.label}): {complaint}"


def _contradictions(run: MeasuredRun) -> Iterator[str]:
    if run_id_of(run.identity) != run["run_id"]:
        yield "the run id is not the digest of the identity"
    for name in IDENTIFYING:
        if str(run.identity.get(name)) != run[name]:
            yield f"column {name!r} holds {run[name]!r}, the identity {run.identity.get(name)!r}"
    yield from _of_machine(run)
    yield from of_conditions(run["protocol"], run["limits"])
    yield from paths_in(run.identity, run["overrides"])
    if run.digest_of_records() != run["records_sha256"]:
        yield "the cells do not give the records of which it has the digest: something in the row was changed"
    found = run.metrics_from_cells()
    for name, value in run.metrics.items():
        given = found[name]
        if (value is None) != (given is None) or (value is not None and abs(value - (given or 0.0)) > AS_RECOMPUTED):
            yield f"{name} is {value}, its accuracies give {given}"
    if run.digest_of_row() != run["row_sha256"]:
        yield "a cell was changed since bench publish wrote the row: its digest is another one"


def _of_machine(run: MeasuredRun) -> Iterator[str]:
    if run["backbone"].split(records.TOWERS)[0] != run.identity.get("backbone"):
        yield f"column 'backbone' holds {run['backbone']!r}, the identity {run.identity.get('backbone')!r}"
    if run.identity.get("device") not in {part.split(" ")[0] for part in run["device"].split(" and ")}:
        yield f"column 'device' holds {run['device']!r}, the identity {run.identity.get('device')!r}"
    weights = str(run.identity.get("weights"))
    _, at, digest = run["pretrained"].rpartition("@")
    if at and re.fullmatch(r"[0-9a-f]{64}", weights) and digest != weights[:8]:
        yield f"column 'pretrained' holds {run['pretrained']!r}, the identity weights {weights[:8]}"


# -- kinds of cells ---------------------------------------------------------------------------------------------


def _is_text(text: str, name: str) -> bool:
    return printable(text) == text


def _is_whole(text: str, name: str) -> bool:
    return re.fullmatch(r"\d{1,18}", text) is not None


def _is_number(text: str, name: str) -> bool:
    try:
        return text.isascii() and text == text.strip() and "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def _is_cost(text: str, name: str) -> bool:
    return _is_number(text, name) and float(text) >= 0


def _is_date(text: str, name: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_digest(text: str, name: str) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{LENGTHS[name]}}}", text) is not None


def _is_json(text: str, name: str) -> bool:
    try:
        found = json.loads(text, parse_constant=_refuse)
        return _printable(found)
    except (ValueError, RecursionError):
        return False


def _printable(value: Any) -> bool:
    """No text in it would make a terminal do something else than to print."""
    if isinstance(value, dict):
        return all(key.isprintable() and _printable(inner) for key, inner in value.items())
    return all(map(_printable, value)) if isinstance(value, list) else not isinstance(value, str) or value.isprintable()


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity, which JSON does not know


KINDS: dict[str, Callable[[str, str], bool]] = {
    WHOLE: _is_whole, NUMBER: _is_cost, DATE: _is_date, DIGEST: _is_digest, JSON: _is_json,
}  # fmt: skip
IN_WORDS = {
    "text": "text in one line",
    WHOLE: "a whole number, 0 or larger",
    NUMBER: "a number, 0 or larger",
    DATE: "a date (YYYY-MM-DD)",
    DIGEST: "so many hex digits as it should have",
    JSON: "JSON with printable texts",
}
