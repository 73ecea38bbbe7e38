"""Runs as offline runs of Weights & Biases: nothing leaves the machine before `wandb sync FOLDER/wandb/offline-run-*`.

They are written by a process of their own, in which no setting of the user's counts that would send something or write elsewhere:
wandb reads its environment when it is imported.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line
from bench.reports.export.content import RunContent
from bench.reports.export.ledger import Ledger

OWN_PLACES = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")


def write(runs: Sequence[RunContent], folder: Path) -> int:
    """Write what is new or has changed; how many runs that are."""
    import wandb  # noqa: F401  (that it is missing is said here; the other process uses it)

    folder = folder.absolute()
    ledger = Ledger(folder, "wandb-offline")
    waiting = [run for run in runs if not (ledger.holds(run) and _folders(folder, run.run_id))]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".wandb-") as scratch:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environment |= dict.fromkeys(OWN_PLACES, scratch)
        environment |= {"WANDB_DIR": str(folder), "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
        for run in waiting:
            for old in _folders(folder, run.run_id):
                shutil.rmtree(old)
            done = subprocess.run(
                [sys.executable, "-m", "bench.reports.export.wandb_offline", str(folder)],
                input=json.dumps(asdict(run)), env=environment, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                said = done.stderr.strip().splitlines()
                raise BenchError(f"wandb could not write {run.name}: {one_line(said[-1] if said else 'it ended')}")
            ledger.note(run)
    return len(waiting)


def _folders(folder: Path, run_id: str) -> list[Path]:
    return sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))


def _write_here(run: RunContent, folder: str) -> None:
    """In the process of its own. Every row of a curve goes with the step that it belongs to, under an axis of its own."""
    import wandb

    settings = wandb.Settings(console="off", disable_git=True, disable_code=True, save_code=False, x_disable_stats=True)
    made: Any = wandb.init(
        mode="offline", dir=folder, project=_project(run.protocol), id=run.run_id, name=run.name, group=run.method,
        config=run.parameters, settings=settings,
    )  # fmt: skip
    for axis in ("accuracy", "loss"):
        made.define_metric(f"step/{axis}")
        made.define_metric(f"{axis}/*", step_metric=f"step/{axis}")
    for axis in ("accuracy", "loss"):
        rows: dict[int, dict[str, float]] = {}
        for name, curve in run.curves.items():
            for step, value in curve if name.startswith(f"{axis}/") else ():
                rows.setdefault(step, {f"step/{axis}": step})[name] = value
        for step in sorted(rows):
            made.log(rows[step])
    made.summary.update(run.metrics)
    made.finish()


def _project(protocol: str) -> str:
    """Names of projects may not hold these signs."""
    return "".join("-" if letter in '/\\#?%:"' else letter for letter in protocol)[:128]


if __name__ == "__main__":
    _write_here(RunContent(**json.load(sys.stdin)), sys.argv[1])
