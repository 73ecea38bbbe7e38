"""Runs as jobs of a SLURM cluster, through submitit: one array, one job a run (pip install 'continual-clip-bench[slurm]').

What counts is in the results folder, which all machines must share: a job that ends leaves its run finished, or the reason
why not. Three kinds of end are told apart. A time-out or a preemption: the last finished task is on disk already, the job
goes back into the queue and continues from there (time-outs so many times). A job that is lost (killed, its node gone): it
is recorded and submitted again, so many times. A run that fails by itself: it is recorded, and the others go on.

Whoever waits for the jobs may be interrupted: the same command finds the jobs that are still queued and waits for those.
"""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line, unknown_name
from bench.images.dataset import Folders
from bench.runs import failures
from bench.runs.checkpoint import finished_tasks
from bench.runs.launch import Outcome, Place, Report, carry_out, limited_threads
from bench.runs.moments import Moment
from bench.runs.run import Run
from bench.system import claims
from bench.system.files import write_atomically

LARGEST_ARRAY = 500  # jobs; clusters allow 1,000 unless they say otherwise
ASK_SECONDS = 60  # for the answer of a SLURM command


@dataclass(frozen=True)
class Options:
    """What a user may say about the jobs: `--slurm KEY=VALUE`, or [slurm] in a study file."""

    time_min: int = 240  # minutes after which a job goes back into the queue
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    mem_gb: int = 0
    array_parallelism: int = 256  # jobs that run at the same time
    signal_delay_s: int = 90  # so long before the end a job is told
    max_timeouts: int = 20  # so often a job goes back into the queue after a time-out
    retries: int = 1  # so often a lost job is submitted again
    setup: str = ""  # a shell command before each job
    poll_s: int = 15  # seconds between looks at the queue

    def for_submitit(self) -> dict[str, Any]:
        texts = {f"slurm_{name}": getattr(self, name) for name in ("partition", "account", "qos", "constraint", "gres")}
        numbers = {"gpus_per_node": self.gpus_per_node, "mem_gb": self.mem_gb}
        return {
            "timeout_min": self.time_min,
            "cpus_per_task": self.cpus_per_task,
            "slurm_array_parallelism": self.array_parallelism,
            "slurm_signal_delay_s": self.signal_delay_s,
            "slurm_additional_parameters": {"requeue": True},
            **({"slurm_setup": [self.setup]} if self.setup else {}),
            **{name: value for name, value in (texts | numbers).items() if value},
        }


def read_options(table: dict[str, Any], pairs: Sequence[str]) -> Options:
    """Of a study file's [slurm] table, and of KEY=VALUE texts, which go before it."""
    known = {option.name: option.type for option in fields(Options)}
    given = [(f"[slurm] {key}", key, value) for key, value in table.items()]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise BenchError(f"--slurm {pair}: write it as KEY=VALUE, for instance partition=gpu")
        given.append((f"--slurm {pair}", key, value))
    chosen: dict[str, Any] = {}
    for where, key, value in given:
        if key not in known:
            raise BenchError(f"{where}: {unknown_name('key', key, known)}")
        if known[key] is str:
            chosen[key] = str(value)
        elif isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)):
            raise BenchError(f"{where}: a whole number is wanted")
        else:
            chosen[key] = int(value)
    return Options(**chosen)


@dataclass
class _Jobs:
    """The jobs of a launch: where their files lie, and which run is whose."""

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)  # run id -> job id
    lost: dict[str, int] = field(default_factory=dict)  # run id -> jobs that it has lost
    gone: set[str] = field(default_factory=set)  # jobs that had left the queue at the last look

    def note(self, run: Run) -> Path:
        """Holds the id of the run's latest job."""
        return self.folder / f"{run.run_id}.job"

    def outcome(self, run: Run) -> Path:
        """Is written by the job at its end."""
        return self.folder / f"{run.run_id}.json"


class Job:
    """What a job does: one run. submitit sends it to the machine, and calls `checkpoint` on a time-out or a preemption."""

    def __init__(self, place: Place, outcome: str):
        self.place = place
        self.outcome = outcome
        self.leaves = False  # on its way back into the queue

    def __call__(self, facts: dict[str, Any]) -> str:
        from submitit.core.utils import UncompletedJobError

        run = Run.from_json(facts)
        try:
            with limited_threads(self.place.threads):
                outcome = self._patiently(run)
        except UncompletedJobError:  # raised by submitit, wherever the run was
            failure = failures.of_machine(
                "its job has timed out too often; --slurm max_timeouts=N allows more, time_min=N longer jobs"
            )
            failures.record(run, failure)
            outcome = Outcome(run, "failed", failure.reason)
        write_atomically(Path(self.outcome), json.dumps({"status": outcome.status, "reason": outcome.reason}))
        return outcome.status

    def checkpoint(self, facts: dict[str, Any]) -> Any:
        """Go on from the last finished task, which is on disk: in the middle of a step there is nothing worth saving."""
        from submitit.helpers import DelayedSubmission

        self.leaves = True
        return DelayedSubmission(Job(self.place, self.outcome), facts)

    def _of_the_queue(self, error: BaseException) -> bool:
        """Raised by submitit's signal handler, wherever the run is: out of time once more, or on its way back into the queue."""
        from submitit.core.utils import UncompletedJobError

        return isinstance(error, UncompletedJobError) or (self.leaves and isinstance(error, SystemExit))

    def _patiently(self, run: Run) -> Outcome:
        """An earlier job of this run may have been killed on another machine: its claim counts until it is stale."""
        end = time.monotonic() + claims.STALE_SECONDS + 2 * claims.BEAT_SECONDS
        while True:
            outcome = carry_out(run, self.place.folders, foreign=self._of_the_queue)
            if outcome.status != "running elsewhere" or time.monotonic() > end:
                return outcome
            time.sleep(10)


def launch(runs: Sequence[Run], place: Place, report: Report, options: Options) -> Iterator[Outcome]:
    """Submit the runs, and wait for them."""
    place = replace(place, folders=_absolute(place.folders), threads=place.threads or options.cpus_per_task)
    waiting = {run.run_id: replace(run, out=run.out.resolve()) for run in runs}
    planned = {run.run_id: run for run in runs}
    jobs = _Jobs(next(iter(waiting.values())).out / ".slurm")
    jobs.folder.mkdir(parents=True, exist_ok=True)
    queued = _queue()
    for run in waiting.values():
        with contextlib.suppress(FileNotFoundError):
            if (known := jobs.note(run).read_text()) in queued:
                jobs.ids[run.run_id] = known
    _submit([run for run in waiting.values() if run.run_id not in jobs.ids], jobs, place, options)
    arrays = sorted({job.split("_")[0] for job in jobs.ids.values()})
    print(f"{len(jobs.ids)} jobs in the queue: {', '.join(arrays)}; logs in {jobs.folder}", file=sys.stderr)
    try:
        while waiting:
            queued = _queue(queued)  # first: a job that ends in between has written its outcome by then
            for run in list(waiting.values()):
                state = queued.get(jobs.ids[run.run_id])
                outcome = _ended(run, jobs, state)
                if outcome:
                    del waiting[run.run_id]
                    yield replace(outcome, run=planned[run.run_id])
                elif state:
                    report(planned[run.run_id], Moment(finished_tasks(run.checkpoint), state.lower()))
                elif jobs.ids[run.run_id] not in jobs.gone:
                    jobs.gone.add(jobs.ids[run.run_id])  # what it has written may take a moment to be seen from here
                elif _lost(run, jobs, options):
                    _submit([run], jobs, place, options)
                else:
                    del waiting[run.run_id]
                    yield Outcome(planned[run.run_id], "failed", failures.of(run)[-1].reason)
            if waiting:
                time.sleep(options.poll_s)
    except KeyboardInterrupt:
        print(f"\nthe jobs stay in the queue; scancel {' '.join(arrays)} removes them", file=sys.stderr)
        raise


def _submit(runs: Sequence[Run], jobs: _Jobs, place: Place, options: Options) -> None:
    """Put the runs into the queue, as few arrays."""
    try:
        import submitit
    except ImportError:
        raise BenchError("--launcher slurm needs submitit: pip install 'continual-clip-bench[slurm]'") from None
    executor = submitit.AutoExecutor(folder=jobs.folder / "%A", cluster="slurm", slurm_max_num_timeout=options.max_timeouts)
    executor.update_parameters(name="bench", **options.for_submitit())
    for start in range(0, len(runs), LARGEST_ARRAY):
        part = runs[start : start + LARGEST_ARRAY]
        for run in part:
            jobs.outcome(run).unlink(missing_ok=True)
        try:
            with executor.batch():
                submitted = [executor.submit(Job(place, str(jobs.outcome(run))), run.to_json()) for run in part]
        except Exception as error:  # submitit's own errors hold what sbatch has said, the cause in the last line
            said = str(error).strip().splitlines()
            raise BenchError(f"the jobs could not be submitted: {one_line(said[-1] if said else error)}") from error
        for run, job in zip(part, submitted):
            jobs.ids[run.run_id] = job.job_id
            write_atomically(jobs.note(run), job.job_id)


def _ended(run: Run, jobs: _Jobs, state: str | None) -> Outcome | None:
    """How the run's job ended; None while it has not, or has left nothing."""
    try:
        facts = json.loads(jobs.outcome(run).read_text())
    except (OSError, ValueError):
        return Outcome(run, "finished") if run.finished and not state else None
    return Outcome(run, facts["status"], facts["reason"])


def _lost(run: Run, jobs: _Jobs, options: Options) -> bool:
    """Record a job that has left the queue without a word; whether the run is to be submitted again."""
    job = jobs.ids[run.run_id]
    failures.record(run, failures.of_machine(f"job {job} ended before its run: {_why(job)}"))
    jobs.lost[run.run_id] = jobs.lost.get(run.run_id, 0) + 1
    return jobs.lost[run.run_id] <= options.retries


def _why(job: str) -> str:
    """What SLURM says about an end."""
    facts = dict(re.findall(r"\b(JobState|ExitCode|Reason)=(\S+)", _slurm("scontrol", "show", "job", "-o", job) or ""))
    parts = [facts.get("JobState", "no longer known to SLURM")]
    if facts.get("ExitCode", "0:0") != "0:0":
        parts.append(f"exit code {facts['ExitCode']}")
    if facts.get("Reason", "None") != "None":
        parts.append(facts["Reason"])
    return ", ".join(parts)


def _queue(before: dict[str, str] | None = None) -> dict[str, str]:
    """The user's jobs that wait or run, with their states; what was known before where SLURM does not answer."""
    text = _slurm("squeue", "--me", "-h", "-r", "-o", "%i %T")
    if text is None:
        if before is None:
            raise BenchError("squeue does not answer: --launcher slurm is for a machine from which jobs can be submitted")
        return before
    return dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)


def _slurm(*command: str) -> str | None:
    """What a SLURM command says; None if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _absolute(folders: Folders) -> Folders:
    return replace(folders, data=folders.data.resolve(), cache=folders.cache.resolve())
