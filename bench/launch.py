"""Many runs, one after another on this machine; one failure stops none of the others."""

import contextlib
import errno
import json
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from filelock import FileLock, Timeout

from bench.dataset import Folders
from bench.errors import BenchError, RunFailure, UnfitMethod
from bench.files import write_atomically
from bench.plan import Run

NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # would stop every other run too


@dataclass(frozen=True)
class Outcome:
    """How one run ended: "finished", "already finished", "running elsewhere" or "failed", and why."""

    run: Run
    status: str
    reason: str = ""


def forget(runs: Sequence[Run]) -> None:
    """Delete what finished and unfinished runs of a plan have written."""
    for run in runs:
        if run.folder.exists():
            shutil.rmtree(run.folder)


def launch(runs: Sequence[Run], folders: Folders, threads: int | None) -> list[Outcome]:
    """Carry out the runs in order."""
    import torch
    from threadpoolctl import threadpool_limits

    from bench import backbone as backbones

    outcomes = []
    if threads:
        torch.set_num_threads(threads)
    with threadpool_limits(threads), _progress_bars(runs) as report:  # numpy's and scikit-learn's threads as well
        for run in runs:
            if run.finished:
                outcomes.append(Outcome(run, "already finished"))
                continue
            backbone = backbones.load(run.backbone, run.pretrained, run.device, run.precision)
            try:
                outcomes.append(_one(run, backbone, folders, report))
            except UnfitMethod as error:
                if all(other.method_name == run.method_name for other in runs):
                    raise
                outcomes.append(Outcome(run, "failed", str(error)))
    return outcomes


def _one(run: Run, backbone, folders: Folders, report) -> Outcome:
    from bench.runner import execute

    failure = run.folder / "failure.json"
    try:
        claim = _claim(run)
    except Timeout:
        return Outcome(run, "running elsewhere", "another process has it")
    try:
        status = execute(run, backbone, folders, lambda done, what: report(run, done, what))
        failure.unlink(missing_ok=True)
        return Outcome(run, status)
    except BenchError:
        raise  # missing data, for instance: what the user has to mend before any run can go on
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_DISK:
            raise
        reason = str(error) if isinstance(error, RunFailure) else f"{type(error).__name__}: {error}"
        facts = {"run_id": run.run_id, "label": run.label, "reason": reason, "traceback": traceback.format_exc()}
        write_atomically(failure, json.dumps(facts, indent=1))
        return Outcome(run, "failed", reason)
    finally:
        claim.release()


def _claim(run: Run) -> FileLock:
    """Nobody else carries out this run at the same time. The lock dies with the process that holds it."""
    locks = run.out / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{run.run_id}.lock", timeout=0)
    lock.acquire()
    return lock


@contextlib.contextmanager
def _progress_bars(runs: Sequence[Run]) -> Iterator:
    """Progress bars on stderr; nothing where that is not a terminal."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bars:
            overall = bars.add_task("all runs", total=len(runs))
            current: dict[str, int] = {}

            def report(run: Run, done: int, what: str) -> None:
                total = len(run.protocol.tasks(run.order_seed))
                if run.run_id not in current:
                    current[run.run_id] = bars.add_task(run.label, total=total)
                bars.update(current[run.run_id], completed=done, description=f"{run.label}: {what}")
                if what == "writing":
                    bars.remove_task(current[run.run_id])
                    bars.advance(overall)

            yield report
    else:
        yield lambda run, done, what: None
