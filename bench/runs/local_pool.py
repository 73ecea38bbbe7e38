"""Workers on this machine: processes of their own that each carry out one run after another (bench/runs/worker.py).

On a GPU machine each worker sees one GPU; with more workers than GPUs, several share one. The CPU is divided between them.
A worker that is killed loses the task in flight of its run, and nothing of the others: the run is recorded as lost and
given to a new worker, which continues after the last finished task.
"""

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from bench.images.folders import as_text
from bench.runs import failures
from bench.runs.launch import Hopeless, Outcome, Place, Report
from bench.runs.moments import Moment
from bench.runs.run import Run
from bench.system.hardware import environment_with, usable_cores, visible_gpus

PATIENCE = 30  # seconds for a worker to write its last finished task


@dataclass
class _Pool:
    """What the threads that look after the workers share."""

    waiting: deque[Run]
    place: Place
    retries: int
    events: queue.SimpleQueue[tuple[Any, ...]]  # ("progress", run, moment), ("outcome", Outcome), ("stop", error), ("idle",)
    hopeless: Hopeless
    lost: dict[str, int]  # run id -> workers that it has lost
    ending: bool = False


def launch(runs: Sequence[Run], place: Place, report: Report, jobs: int = 2, retries: int = 1) -> Iterator[Outcome]:
    """Carry out the runs with so many workers; a run that loses its worker is tried again `retries` times."""
    pool = _Pool(deque(runs), place, retries, queue.SimpleQueue(), Hopeless(), {})
    jobs = min(jobs, len(runs))
    threads = place.threads or max(1, usable_cores() // jobs)
    device = next((run.device for run in runs if run.device.startswith("cuda")), "cpu")
    workers = [_Worker(pool, _environment(k, device, threads), threads) for k in range(jobs)]
    for worker in workers:
        worker.start()
    busy = len(workers)
    try:
        while busy:
            kind, *facts = pool.events.get()
            if kind == "progress":
                report(*facts)
            elif kind == "outcome":
                pool.hopeless.note(facts[0])
                yield facts[0]
            elif kind == "stop":
                raise facts[0]
            else:
                busy -= 1
    finally:
        pool.ending = True
        for worker in workers:
            worker.close()
        for worker in workers:
            worker.wait()


class _Worker(threading.Thread):
    """Looks after one worker process at a time."""

    def __init__(self, pool: _Pool, environment: dict[str, str], threads: int):
        super().__init__(daemon=True)
        self.pool, self.environment, self.threads = pool, environment, threads
        self.process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        try:
            while not self.pool.ending:
                try:
                    run = self.pool.waiting.popleft()
                except IndexError:
                    break
                outcome = self.pool.hopeless.known(run) or self._carry_out(run)
                if outcome:
                    self.pool.events.put(("outcome", outcome))
        except Exception as error:
            self.pool.events.put(("stop", error))
        finally:
            self.pool.events.put(("idle",))

    def _carry_out(self, run: Run) -> Outcome | None:
        """How the run ended; None if its worker was lost and it waits again."""
        process = self.process or self._begin()
        try:
            # the worker sees one GPU only, whichever that is
            _say(process, {"run": replace(run, device=run.device.split(":")[0]).to_json()})
            for line in _pipe(process.stdout):
                message = json.loads(line)
                if "moment" in message:
                    self.pool.events.put(("progress", run, Moment(**message["moment"])))
                elif "errno" in message:
                    raise OSError(message["errno"], message["reason"], message["file"])
                else:
                    return Outcome(run, message["status"], message["reason"], message["scope"])
        except BrokenPipeError:
            pass
        return self._lost(run, process)

    def _lost(self, run: Run, process: subprocess.Popen[str]) -> Outcome | None:
        code = process.wait()
        self.process = None
        if self.pool.ending:
            return None
        killer = signal.Signals(-code).name if code < 0 else ""  # by name: Windows does not know SIGKILL
        how = f"was killed by {killer}" if killer else f"ended with exit code {code}"
        hint = "; was the memory enough?" if killer == "SIGKILL" else ""
        failure = failures.of_machine(f"its worker {how}{hint}")
        failures.record(run, failure)
        self.pool.lost[run.run_id] = self.pool.lost.get(run.run_id, 0) + 1
        if self.pool.lost[run.run_id] <= self.pool.retries:
            print(f"{run.label}: {failure.reason}; tried again", file=sys.stderr)
            self.pool.waiting.append(run)
            return None
        return Outcome(run, "failed", failure.reason)

    def _begin(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
            start_new_session=True,  # Ctrl-C goes to this process, which lets its workers end in order
        )
        self.process = process
        folders = self.pool.place.folders
        with contextlib.suppress(BrokenPipeError):  # it is gone already: the run that it would get finds that out
            _say(process, {"data": as_text(folders.data), "cache": as_text(folders.cache), "threads": self.threads})
        return process

    def close(self) -> None:
        """Tell the process to end: at once if it waits, after the write in progress if it works."""
        process = self.process
        if process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            if not self.is_alive():
                _say(process, {})
            _pipe(process.stdin).close()

    def wait(self) -> None:
        if self.process:
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.join()


def _say(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    _pipe(process.stdin).write(json.dumps(message) + "\n")
    _pipe(process.stdin).flush()


def _pipe(end: IO[str] | None) -> IO[str]:
    """Of a process that was begun with pipes, so it is there."""
    assert end is not None
    return end


def _environment(worker: int, device: str, threads: int) -> dict[str, str]:
    """The worker's environment variables: its share of the CPU and its GPU."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return environment_with(None, threads)
    gpus = visible_gpus()
    chosen = int(number) if number else worker % len(gpus)
    return environment_with(gpus[chosen] if chosen < len(gpus) else str(chosen), threads)
