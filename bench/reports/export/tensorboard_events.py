"""Runs as event files of TensorBoard, a folder a run: tensorboard --logdir FOLDER."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.reports.export.content import RunContent
from bench.reports.export.ledger import Ledger


def write(runs: Sequence[RunContent], folder: Path) -> int:
    """Write what is new or has changed; how many runs that are."""
    from torch.utils.tensorboard import SummaryWriter

    ledger, written = Ledger(folder, "tensorboard"), 0
    for run in runs:
        place = folder / run.protocol / run.method / run.run_id
        if ledger.holds(run) and place.is_dir():
            continue
        unfinished = folder / f".{run.run_id}.unfinished"  # TensorBoard reads what it finds: there is a whole run or none
        shutil.rmtree(unfinished, ignore_errors=True)
        with SummaryWriter(str(unfinished)) as writer:
            writer.add_text("run", run.name)
            writer.add_hparams(run.parameters, run.metrics, run_name=".")  # beside the curves, not in a run of its own
            for name, curve in run.curves.items():
                for step, value in curve:
                    writer.add_scalar(name, value, step)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(place)
        ledger.note(run)
        written += 1
    return written
