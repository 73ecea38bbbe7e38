"""Finished runs on disk whose ids, digests and numbers hold together, and rows of measured results that were forged with care."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from bench.results.measured import files
from bench.results.measured.schema import MeasuredRun
from bench.results.records import CONDITIONS
from bench.results.run_folder import run_id_of
from bench.system.files import sha256

REAL = Path(__file__).with_suffix(".csv")  # six runs that were really made; what ships may grow beyond them

IMAGES = {  # digests of the images of mini60, as manifests have them
    "train": "705e29d1d643bd7fa57db6e142ad4f416a06430f5435673b2639c69ff10a0c7d",
    "test": "6bc34c1b0eec1792dbc9c1a18ac96d7fc09848987054b275f3e24553a3ecfb54",
}


def shipped_run(method: str = "simplecil", seed: int = 0) -> MeasuredRun:
    """One of the real runs."""
    return next(run for run in files.read(REAL) if run["method"] == method and run.seeds == (0, seed))


def changed(run: MeasuredRun, identity: dict[str, Any] | None = None, **cells: str) -> MeasuredRun:
    """The same row with other cells, every digest and metric computed anew: as a careful forger would do it."""
    asked = run.identity | (identity or {})
    names = {*CONDITIONS, "order_seed", "seed"} & set(identity or {})
    known = dict(run.cells) | {name: str(asked[name]) for name in names} | cells
    known |= {"identity": json.dumps(asked, sort_keys=True), "run_id": run_id_of(asked)}
    row = MeasuredRun(known, {})
    row = replace(row, cells={**row.cells, "records_sha256": row.digest_of_records()})
    return MeasuredRun({**row.cells, "row_sha256": row.digest_of_row()}, row.metrics_from_cells())


def write_back(run: MeasuredRun, out: Path, **manifest: Any) -> Path:
    """The folder of a run that would be published as this row; `manifest`: what it says otherwise."""
    folder = out / run["protocol"].replace(":", "_") / run["method"] / run["run_id"]
    folder.mkdir(parents=True)
    table = run.records_text().encode()
    samples: dict[str, np.ndarray] = {}
    for task, n in enumerate(run.test_images):
        samples[f"labels/{task}"] = np.full(n, task, dtype=np.int32)
    for after, evaluated, candidates, right in run.correct:
        n = run.test_images[evaluated]
        samples[f"prediction/{after}/{evaluated}/{candidates}"] = np.where(np.arange(n) < right, evaluated, -1).astype(np.int32)
    arrays = save(samples)
    (folder / "records.csv").write_bytes(table)
    (folder / "samples.safetensors").write_bytes(arrays)
    facts = {
        "run_id": run["run_id"],
        "status": "finished",
        "identity": run.identity,
        "weights_digest": run["weights_digest"],
        "images": {"mini60": IMAGES},
        "source": {"target": "methods.x:X", "text": {"methods.x": "0" * 16}, "syntax": {}, "python": "3.11"},
        "tasks": [{"name": name, "test_images": n} for name, n in zip(run.tasks, run.test_images)],
        "cost": {"seconds_prepare": 0.5, "seconds_per_task": [{"learn": 1.0, "evaluate": 2.0}], "image_passes": 7},
        "environment": {"bench": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "open_clip_torch": "3.3.0", "numpy": "2.4.6",
                        "cuda": "none", "device": "cpu x86_64", "threads": 1},
        "checksums": {"records.csv": sha256(table), "samples.safetensors": sha256(arrays)},
        **manifest,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder
