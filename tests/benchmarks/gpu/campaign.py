"""The steps of a campaign, one after another, as long as the time lasts; each is kept as soon as it ends.

Whatever ends the campaign, at most the step in flight is lost: the same command goes on. A step that does not end in time is
stopped and noted as failed; one that has failed is tried again after those that never were.
"""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.errors import BenchError
from bench.system.claims import Claim, Held
from tests.benchmarks.gpu import kept, tables
from tests.benchmarks.gpu.kept import Machine, Result
from tests.benchmarks.gpu.steps import Conditions, Step, found_by
from tests.benchmarks.gpu.worker import serve

ALL_STEPS = "tests.benchmarks.gpu.steps:all_steps"
STARTING = 180.0  # seconds that a process may take to start: torch from a cold disk, a driver
# than its estimate, and so many seconds: then a step is stopped, for a GPU may hang; without one only the end of the time counts
TIMES_LONGER, AT_LEAST = 5.0, 60.0
AT_THE_END = 3.0  # seconds for the tables
Answer = tuple[kept.Status, str, list[dict[str, str]], float]


def print_at_once(line: str) -> None:
    """Also into a file, which somebody may look at while the campaign is at work."""
    print(line, flush=True)


class Worker:
    """The process that carries out steps, started when it is needed and again after it was lost."""

    def __init__(self, conditions: Conditions, source: str):
        self.conditions, self.source = conditions, source
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self.machine: Machine | None = None

    def start(self) -> Machine:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, self.conditions, self.source), name="gpu-campaign")
        self._process.start()
        other.close()
        try:
            if not self._connection.poll(STARTING):
                raise EOFError
            self.machine = self._connection.recv()
        except EOFError:
            self.stop()
            raise BenchError(f"--device {self.conditions.device}: the process of the steps did not start") from None
        return self.machine

    def carry_out(self, step: str, seconds: float) -> Answer:
        """How the step ended; after so many seconds it is stopped."""
        if self._process is None:
            self.start()
        assert self._process is not None and self._connection is not None
        started = time.monotonic()
        try:
            self._connection.send(step)
            if self._connection.poll(max(seconds, 1.0)):
                return self._connection.recv()
            reason = f"stopped: not done after {time.monotonic() - started:.0f} s"
        except (EOFError, OSError):
            self._process.join(10)
            reason = f"its process ended with code {self._process.exitcode}"
        self.stop()
        return "failed", reason, [], time.monotonic() - started

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None


def carry_out(
    conditions: Conditions,
    out: Path,
    minutes: float,
    source: str = ALL_STEPS,
    wanted: Callable[[Step], bool] = lambda step: True,
    say: Callable[[str], object] = print_at_once,
) -> int:
    """Go on with the campaign in `out` for so long; how many steps are left."""
    ends = time.monotonic() + 60 * minutes
    try:
        with Claim(out / "campaign.lock"):
            return _carried_out(Worker(conditions, source), out, ends, 60 * minutes, wanted, say)
    except Held as holder:
        raise BenchError(f"{out}: another campaign is at work there ({holder})") from holder


def _carried_out(
    worker: Worker, out: Path, ends: float, whole: float, wanted: Callable[[Step], bool], say: Callable[[str], object]
) -> int:
    steps = [step for step in found_by(worker.source, worker.conditions) if wanted(step)]
    try:
        machine = worker.start()
        folder = out / machine.folder
        say(f"{machine.device}, torch {machine.torch}, {machine.size} sizes: results in {folder}")
        for other, count in kept.other_devices(out, machine):
            say(f"{out} has {count} steps of another device, {other}: they stay as they are, and do not count here")
        results = kept.read(folder)
        if others := sorted({result.machine.torch for result in results.values()} - {machine.torch}):
            say(f"note: earlier steps of this device were measured with torch {', '.join(others)}; each row says with which")
        too_long = []
        for step in order(steps, results):
            before = results.get(step.name)
            estimate = _estimate(step, before)
            left = ends - time.monotonic() - AT_THE_END
            if estimate > whole:
                too_long.append(step)
                continue
            if estimate > left:
                say(f"the time is over: {step.name} takes about {estimate:.0f} s, {max(0, left):.0f} s are left")
                break
            status, reason, rows, seconds = worker.carry_out(step.name, _limit(estimate, left, worker.conditions))
            attempts = before.attempts + 1 if before else 1
            result = Result(step.name, step.group, machine, status, round(seconds, 1), attempts, reason, step.table, rows)
            kept.write(folder, result)
            results[step.name] = result
            say(f"{_place(steps, results)} {step.name}: {status}, {seconds:.1f} s{f'; {reason}' if reason else ''}")
        for step in too_long:
            say(f"{step.name} takes about {_estimate(step, results.get(step.name)):.0f} s: give it a longer --minutes")
        tables.write(folder, list(results.values()))
        return _conclude(steps, results, say)
    finally:
        worker.stop()


def order(steps: Sequence[Step], results: dict[str, Result]) -> list[Step]:
    """What is to do: steps that were never tried, then those that have failed, the least often tried first."""
    to_do = [step for step in steps if step.name not in results or not results[step.name].over]
    return sorted(to_do, key=lambda step: results[step.name].attempts if step.name in results else 0)


def _estimate(step: Step, before: Result | None) -> float:
    """Seconds; one that was stopped will take longer than it was given."""
    return max(step.seconds, 1.5 * before.seconds if before else 0.0)


def _limit(estimate: float, left: float, conditions: Conditions) -> float:
    return min(left, max(TIMES_LONGER * estimate, AT_LEAST)) if conditions.device == "cuda" else left


def _place(steps: Sequence[Step], results: dict[str, Result]) -> str:
    return f"[{sum(step.name in results for step in steps)}/{len(steps)}]"


def _conclude(steps: Sequence[Step], results: dict[str, Result], say: Callable[[str], object]) -> int:
    """Say what is there, and what is not."""
    for group in dict.fromkeys(step.group for step in steps):
        own = [step.name for step in steps if step.group == group]
        count = Counter(results[name].status if name in results else "left" for name in own)
        say(f"{group}: " + ", ".join(f"{count[status]} {status}" for status in ("done", "not applicable", "failed", "left")))
    for status in ("not applicable", "failed"):
        own = (results[step.name] for step in steps if step.name in results)
        for reason, times in Counter(result.reason for result in own if result.status == status).most_common():
            say(f"  {status}, {times}: {reason}")
    to_do = order(steps, results)
    if to_do:
        names = [step.name for step in to_do]
        say(f"still to do: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}")
    say(f"steps left: {len(to_do)}")
    return len(to_do)
