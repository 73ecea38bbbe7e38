"""Runs as three tables for a spreadsheet: runs.csv, curves.csv, losses.csv. Runs of earlier exports in the folder stay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError, reading
from bench.reports.export.content import RunContent
from bench.reports.export.ledger import Ledger
from bench.results.training_log import COLUMNS
from bench.system.files import write_atomically

RUNS, CURVES, LOSSES = "runs.csv", "curves.csv", "losses.csv"


def write(runs: Sequence[RunContent], folder: Path) -> int:
    """Write the tables; how many runs are new or have changed."""
    rows = [{"run_id": run.run_id, **run.parameters, **_under("metric", run.metrics)} for run in runs]
    curves = [
        {"run_id": run.run_id, "curve": name, "step": step, "value": value}
        for run in runs
        for name, curve in run.curves.items()
        for step, value in curve
    ]
    losses = [{"run_id": run.run_id, **row} for run in runs for row in run.losses]
    texts = {
        folder / RUNS: _joined(folder / RUNS, rows, ["run_id"], runs),
        folder / CURVES: _joined(folder / CURVES, curves, ["run_id", "curve", "step", "value"], runs),
        folder / LOSSES: _joined(folder / LOSSES, losses, ["run_id", *COLUMNS], runs),
    }
    ledger, there = Ledger(folder, "csv"), (folder / RUNS).exists()
    changed = [run for run in runs if not (there and ledger.holds(run))]
    for path, text in texts.items():
        write_atomically(path, text)
    ledger.note(*changed)
    return len(changed)


def _under(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _joined(path: Path, rows: Sequence[dict[str, Any]], columns: list[str], runs: Sequence[RunContent]) -> str:
    """The table as text: other runs as they stand in the file, these as they are now."""
    own = pd.DataFrame(rows, columns=None if rows else columns)
    before = _read(path)
    if before is not None:
        others = before[~before["run_id"].isin([run.run_id for run in runs])]
        own = pd.concat([others, own.astype(object)], ignore_index=True) if len(others) else own
    return own.to_csv(index=False, lineterminator="\n")


def _read(path: Path) -> pd.DataFrame | None:
    """Every cell as it is written; None where there is no file."""
    if not path.exists():
        return None
    with reading(path, "not a table that bench export has written", (OSError, ValueError), "export into another folder"):
        found = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "run_id" not in found:
        raise BenchError(f"{path}: not a table that bench export has written; export into another folder")
    return found
