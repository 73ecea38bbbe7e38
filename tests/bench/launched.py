"""What tests of launchers share: planned runs, their files, and a kill at a known moment."""

import json
import os
import signal
import time
from pathlib import Path

from bench.runs import assignments, plan
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.runs.run import Run


def runs_of(methods, out: Path, protocols=("mini60-6x10",), set=(), **changes) -> list[Run]:
    """The plan of a request; set: METHOD.FIELD=VALUE, as a user writes them."""
    few = dict(device="cpu", precision="float32", limit_train=2, limit_test=1, out=out)
    changed = tuple(assignments.parse(one) for one in set)
    request = Request(protocols=tuple(protocols), methods=tuple(methods), set=changed, **(few | changes))
    with Facts() as facts:
        return plan.build(request, facts)[0]


def results(folder: Path) -> dict[str, bytes]:
    """The files of all runs that do not hold times."""
    names = ("records.csv", "samples.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for name in names for path in sorted(folder.rglob(name))}


def kill_first(out: Path, run: Run, seconds: float = 120) -> None:
    """SIGKILL for the process that has the run, once it has finished a task."""
    end = time.monotonic() + seconds
    while not run.checkpoint.exists():
        assert time.monotonic() < end, "the run has not begun"
        time.sleep(0.02)
    note = out / ".locks" / f"{run.run_id}.holder"
    os.kill(json.loads(note.read_text())["pid"], signal.SIGKILL)
