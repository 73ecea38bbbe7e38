"""One run that several processes of this machine carry out together (bench/system/processes.py), each on a GPU of its own or on
the CPU.

This process starts them (bench/runs/member.py), hears what they say and ends them all when one is gone: a process that waits for
another cannot know that it waits for nobody. Whatever happens to one of them, the run ends with one line that says so, and goes
on from its last finished task when it is asked for again. The caller holds the claim to the run.
"""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.images.folders import as_text
from bench.runs import failures
from bench.runs.failures import Failure, Scope, Status
from bench.runs.moments import Moment, Progress
from bench.runs.run import Run
from bench.system.hardware import environment_with, visible_gpus

SECONDS_OF_AN_UPDATE = 1800.0  # a process that is waited for so long inside training counts as lost
PATIENCE = 30.0  # seconds for one to write its last finished task
SECONDS_TO_TELL = 5.0  # so long after one has lost the others it may take to learn which of them ended, and how


@dataclass(frozen=True)
class Ending:
    """How the run ended, why, and what went wrong after it had begun."""

    status: Status
    reason: str = ""
    scope: Scope = "run"
    failure: Failure | None = None


@dataclass
class _Member:
    """One of the processes, and what it has said at its end."""

    place: int
    process: subprocess.Popen[str]
    ending: dict[str, Any] | None = None
    gone: bool = False


def carry_out(run: Run, folders: Folders, progress: Progress) -> Ending:
    """Start the processes, and say how the run ended. What stops every run is raised: a full disk."""
    import torch

    gpus = _gpus_for(run)
    threads = max(1, torch.get_num_threads() // run.processes)
    events: queue.SimpleQueue[tuple[_Member, dict[str, Any] | None]] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        told = {
            "run": replace(run, device=run.device.split(":")[0]).to_json(),
            "data": as_text(folders.data), "cache": as_text(folders.cache), "threads": threads,
            "store": str(Path(folder) / "store"), "seconds": SECONDS_OF_AN_UPDATE,
        }  # fmt: skip
        members: list[_Member] = []
        try:
            for place, gpu in enumerate(gpus):
                members.append(_begin(place, told, environment_with(gpu, threads), events))
            return _followed(members, events, progress)
        finally:
            _end(members)


def _gpus_for(run: Run) -> Sequence[str | None]:
    """The GPU of each process; BenchError if there are too few."""
    kind, _, number = run.device.partition(":")
    if kind != "cuda":
        return [None] * run.processes
    if number:
        raise BenchError(
            f"--processes {run.processes} with --device {run.device}: every process wants a GPU of its own; --device cuda"
        )
    gpus = visible_gpus()
    if len(gpus) < run.processes:
        raise BenchError(f"--processes {run.processes}: every process wants a GPU of its own, and there are {len(gpus)}")
    return gpus[: run.processes]


def _begin(place: int, told: dict[str, Any], environment: dict[str, str], events: "queue.SimpleQueue[Any]") -> _Member:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.runs.member"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C goes to this process, which lets them end in order
    )
    member = _Member(place, process)
    threading.Thread(target=_listen, args=(member, events), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # it is gone already: that is heard in a moment
        print(json.dumps(told | {"place": place}), file=_pipe(process.stdin), flush=True)
    return member


def _listen(member: _Member, events: "queue.SimpleQueue[Any]") -> None:
    """What a process says, and None when it is gone."""
    for line in _pipe(member.process.stdout):
        events.put((member, json.loads(line)))
    member.process.wait()
    events.put((member, None))


def _followed(members: Sequence[_Member], events: "queue.SimpleQueue[Any]", progress: Progress) -> Ending:
    """Until all have finished, or the first has failed."""
    deadline: float | None = None  # once one has lost the others
    while True:
        try:
            member, message = events.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return _lost(_all_said(members))
        if message is None:
            member.gone = True
            if member.ending is None:
                return _lost(_how_it_ended(member, len(members)))
        elif "moment" in message:
            progress(Moment(**message["moment"]))
        elif "errno" in message:
            raise OSError(message["errno"], message["reason"], message["file"])
        else:
            member.ending = message
            if message["status"] == "lost":
                deadline = deadline or time.monotonic() + SECONDS_TO_TELL
            elif message["status"] == "failed":
                failure = Failure(**message["failure"]) if message["failure"] else None
                return Ending("failed", message["reason"], message["scope"], failure)
        if all(member.gone and member.ending and member.ending["status"] != "lost" for member in members):
            return Ending("finished")


def _lost(how: str) -> Ending:
    failure = failures.of_machine(how)
    return Ending("failed", failure.reason, failure=failure)


def _how_it_ended(member: _Member, count: int) -> str:
    """Of a process that has gone without a word."""
    code = member.process.returncode
    killer = signal.Signals(-code).name if code < 0 else ""
    how = f"was killed by {killer}" if killer else f"ended with exit code {code}"
    return f"process {member.place + 1} of its {count} {how}" + ("; was the memory enough?" if killer == "SIGKILL" else "")


def _all_said(members: Sequence[_Member]) -> str:
    """Where none is gone, but they do not hear each other."""
    place, ending = next((member.place, member.ending) for member in members if member.ending)
    return f"process {place + 1} of its {len(members)}: {ending['reason']}"


def _end(members: Sequence[_Member]) -> None:
    """End what still goes on: the first one after the write in progress, the others at once."""
    for member in members:
        with contextlib.suppress(BrokenPipeError):
            _pipe(member.process.stdin).close()  # at which it ends as after Ctrl-C
    end = time.monotonic() + PATIENCE
    for member in members:
        with contextlib.suppress(subprocess.TimeoutExpired):
            member.process.wait(max(0.0, end - time.monotonic()) if member.place == 0 else 0.2)
        member.process.kill()
        member.process.wait()


def _pipe(end: IO[str] | None) -> IO[str]:
    """Of a process that was begun with pipes, so it is there."""
    assert end is not None
    return end
