"""Results on disk: one folder a run, with a tidy CSV, per-sample arrays and a JSON manifest.

    <out>/<protocol>/<method>/<run id>/
        records.csv           one row per (after_task, eval_task, candidates); columns below
        samples.safetensors   per test image: label, prediction, confidence, entropy, energy
        manifest.json         what was run, with what, on what, how long it took; checksums of the two files

The manifest is written last: a folder without one is an unfinished run. Nothing in the first two files depends on
the clock, so equal runs are equal byte by byte. Accuracies are fractions.
"""

import contextlib
import functools
import json
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import NO_CSV, BenchError, reading
from bench.results import run_facts
from bench.results.run_folder import RECORDS, RunFolder

SCHEMA = 1
TOWERS = " + "  # between the backbone's name and those of other pretrained towers
RUN_AGAIN = "run again with --fresh"  # what mends a file of a run that is damaged
SYNTHETIC = "synthetic"  # `limits` then starts with data=synthetic

COLUMNS = {
    "schema": "version of this table's layout",
    "run_id": "hash of everything that was asked for",
    "protocol": "name of the protocol",
    "protocol_version": "bumped whenever a change of the protocol moves numbers",
    "scenario": "class-incremental, task-incremental or task-agnostic",
    "method": "name of the method",
    "overrides": "hyper-parameters changed by the user, field=value joined by ';' (empty: the method's own)",
    "backbone": "architecture of the CLIP, and of other pretrained towers",
    "pretrained": "its weights: a tag, or a file's name and the start of its digest",
    "templates": "first 8 hex digits of the hash of all prompt templates",
    "exemplars": "memory that the protocol allows: none, N/class or N total",
    "limits": "images per class kept for a quick run, train=5;test=2 (empty: all); before them data=synthetic: stand-in images, "
    "validation=20%: scored on that part of the training images, not on test images",
    "order_seed": "seed of the class order",
    "seed": "seed of everything random in training",
    "after_task": "0-based: the task that was learned last",
    "eval_task": "0-based: the task whose test images are scored",
    "eval_name": "its name",
    "candidates": "classes that compete: seen (learned so far), task (eval_task's own), seen+task, future (not yet learned), all",
    "metric": "accuracy",
    "value": "as a fraction",
    "n": "number of test images",
}
KEY = ["run_id", "after_task", "eval_task", "candidates", "metric"]
# rows that differ in one of these are never averaged together
CONDITIONS = [
    "protocol", "protocol_version", "scenario", "method", "overrides", "backbone", "pretrained", "templates", "exemplars",
    "limits",
]  # fmt: skip
SCENARIOS = ("class-incremental", "task-incremental", "task-agnostic")
METRICS = ("accuracy",)
CANDIDATES = ("seen", "task", "future", "all", "seen+task")
TEXT_COLUMNS = [c for c in COLUMNS if c not in ("schema", "order_seed", "seed", "after_task", "eval_task", "value", "n")]


def to_csv(rows: Iterable[dict[str, Any]]) -> str:
    """Rows (dictionaries with exactly the columns above) as CSV text; floats in their shortest exact form."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    return table.to_csv(index=False, lineterminator="\n")


def read_csv(path: Path) -> pd.DataFrame:
    """One records file, validated."""
    return _parse(_text(path), str(path))


def _text(path: Path) -> str:
    with reading(path):
        return path.read_text(encoding="utf-8")


def _parse(text: str, where: str) -> pd.DataFrame:
    with reading(where, NO_CSV, (ValueError,)):
        # numbers are parsed only after validation has looked at them; empty cells of text columns stay empty text
        table = pd.read_csv(StringIO(text), dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False)
    validate(table, where)
    return table


def validate(table: pd.DataFrame, where: str) -> None:
    """Refuse, in one line, a table that is not what this module writes."""
    if "schema" in table.columns and len(table):
        newest = _numbers(table["schema"]).max()
        if newest > SCHEMA:
            raise BenchError(f"{where}: written by a newer version (schema {newest:.0f}, this one reads up to {SCHEMA}); upgrade")
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing:
        raise BenchError(f"{where}: not a records file, column {missing[0]!r} is missing (bench run writes them)")
    if not len(table):
        raise BenchError(f"{where}: holds no rows; delete the run's folder and run it again")
    for column in ("after_task", "eval_task", "value", "n", "seed", "order_seed"):
        numbers = _numbers(table[column])
        largest = np.inf if table[column].dtype == np.int64 else 2**63  # as a float 2**63 - 1 is 2**63
        wrong = numbers.isna() if column == "value" else ~((numbers >= 0) & (numbers < largest) & (numbers % 1 == 0))
        if wrong.any():
            kind = "number" if column == "value" else "whole number, 0 or larger"
            raise BenchError(
                f"{where}: column {column!r} holds {str(table[column][wrong].iloc[0])[:30]!r}, which is not a {kind}"
            )
    if not _numbers(table["value"]).between(0, 1).all():
        raise BenchError(f"{where}: column 'value' must hold fractions between 0 and 1")
    for column, known in (("candidates", CANDIDATES), ("scenario", SCENARIOS), ("metric", METRICS)):
        if unknown := set(table[column]) - set(known):
            raise BenchError(f"{where}: unknown {column} {sorted(unknown)[0]!r}")
    if (table.drop_duplicates(["run_id", *CONDITIONS])["run_id"].duplicated()).any():
        raise BenchError(f"{where}: rows of one run differ in what was run; delete the run's folder and run it again")
    if table.duplicated(KEY).any():
        raise BenchError(f"{where}: the same cell appears twice; delete the run's folder and run it again")


def _numbers(column: pd.Series) -> pd.Series:
    """As floats; what is not a number, or too large for one, is missing."""
    try:
        return pd.to_numeric(column, errors="coerce").astype(float)
    except OverflowError:  # whole numbers of hundreds of digits
        text = column.astype(str)
        return pd.to_numeric(text.where(text.str.len() < 30), errors="coerce").astype(float)


def nothing() -> pd.DataFrame:
    """The records of no run at all."""
    return pd.DataFrame(columns=list(COLUMNS))


def find(path: Path) -> list[Path]:
    """The records files at or below a path; only finished runs count."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise BenchError(f"{path}: no such file or folder; bench run writes results")
    return sorted(file for file in path.rglob(RECORDS) if RunFolder(file.parent).finished)


def load(paths: Iterable[Path]) -> pd.DataFrame:
    """All records at or below the paths, one table; a run found twice counts once."""
    paths = [Path(path) for path in paths]
    files = [file for path in paths for file in find(path)]
    if not files:
        raise BenchError(f"{', '.join(map(str, paths))}: no finished run there yet; bench run writes them")
    files = list(dict.fromkeys(file.resolve() for file in files))
    table = _parse_together(files)
    _refuse_other_numbers(table, files)
    table = table.drop_duplicates(KEY, ignore_index=True)
    refuse_mixture(table)
    return run_facts.set_apart(table, readable_manifests(files), CONDITIONS)


def _refuse_other_numbers(table: pd.DataFrame, files: Sequence[Path]) -> None:
    """A run that was found twice counts once, if it is the same: from before and after an upgrade it may have other numbers."""
    twice = table[table.duplicated(KEY, keep=False)]
    if not len(twice):
        return
    different = twice.groupby(KEY, sort=False)["value"].nunique() > 1
    if different.any():
        run_id = different[different].index[0][0]
        places = [str(file.parent) for file in files if f",{run_id}," in _text(file)]
        raise BenchError(
            f"run {run_id} lies in several folders with different numbers ({' and '.join(places)}); give these folders apart, "
            "bench compare A B says what differs"
        )


def manifests(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Run id -> manifest, of those records files that have one beside them."""
    found = [read_manifest(file.parent) for file in files if RunFolder(file.parent).finished]
    return {manifest["run_id"]: manifest for manifest in found}


def readable_manifests(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The same without those that are damaged: records can be read without them, and bench doctor names them."""
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        with contextlib.suppress(BenchError):
            found |= manifests([file])
    return found


def is_synthetic(limits: str) -> bool:
    """Do these limits say that the images were stand-ins?"""
    return f"data={SYNTHETIC}" in limits.split(";")


def validation_part(limits: str) -> str:
    """The part of the training images that was held out and scored in the place of the test images; empty if these were.

    >>> validation_part("data=synthetic;validation=20%;train=5"), validation_part("train=5")
    ('20%', '')
    """
    return next((part.removeprefix("validation=") for part in limits.split(";") if part.startswith("validation=")), "")


def restrictions(limits: str) -> str:
    """The limits as a caption says them; empty if there are none.

    >>> restrictions("train=5;test=2"), restrictions("data=synthetic;train=5")
    ('LIMITED to train=5;test=2 images a class', 'SYNTHETIC images: accuracies mean nothing, LIMITED to train=5 images a class')
    >>> restrictions("validation=5-per-class")
    'VALIDATION: scored on training images held out (5-per-class), not on test images'
    """
    counts = ";".join(part for part in limits.split(";") if part and not part.startswith(("data=", "validation=")))
    held_out = validation_part(limits)
    parts = [f"VALIDATION: scored on training images held out ({held_out}), not on test images"] if held_out else []
    parts += [f"{SYNTHETIC.upper()} images: accuracies mean nothing"] if is_synthetic(limits) else []
    return ", ".join([*parts, f"LIMITED to {counts} images a class"] if counts else parts)


def refuse_mixture(table: pd.DataFrame) -> None:
    """Results on stand-in images are never shown together with real ones."""
    runs = table.drop_duplicates("run_id")
    synthetic = runs["limits"].fillna("").map(is_synthetic)
    if synthetic.any() and not synthetic.all():
        one, other = ("/".join(rows.iloc[0][["protocol", "method", "run_id"]]) for rows in (runs[synthetic], runs[~synthetic]))
        raise BenchError(
            f"runs on synthetic images ({synthetic.sum()}, for instance {one}) lie beside runs on real ones "
            f"({(~synthetic).sum()}, {other}): give their folders apart, and keep an --out of its own for --data synthetic"
        )


def _parse_together(files: list[Path]) -> pd.DataFrame:
    """All files as one table. They are parsed in one go, which is many times faster than one by one; only when that
    fails does each get its own turn, so that the complaint names the file."""
    header = ",".join(COLUMNS)
    parts = [_text(file).partition("\n") for file in files]
    if all(first == header for first, _, _ in parts):
        try:
            return _parse(header + "\n" + "".join(body for _, _, body in parts), "records")
        except BenchError:
            pass
    return pd.concat([read_csv(file) for file in files], ignore_index=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run; one that has not changed since is not read again."""
    path = RunFolder(folder).manifest
    with reading(path, advice=RUN_AGAIN):
        facts = path.stat()
    return _manifest(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=4096)
def _manifest(path: Path, changed_ns: int, size: int) -> dict[str, Any]:
    with reading(path, errors=(OSError, ValueError), advice=RUN_AGAIN):
        manifest = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or "run_id" not in manifest:
        raise BenchError(f"{path}: is not a manifest that bench run has written; {RUN_AGAIN}")
    return manifest
