"""A plan carried out: runs -> launcher -> results folder. One failure stops none of the other runs.

A launcher is a function that gets the runs that wait and carries them out in its own way: one after another in this process
(`in_process`), by workers on this machine (bench/runs/local_pool.py), as jobs of a cluster (bench/runs/slurm.py). All of them end
in `carry_out`, and all they hand back is in the results folder: a launcher may be killed at any time.
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.errors import BenchError, UnfitMethod
from bench.images.dataset import Folders
from bench.images.folders import refused
from bench.runs import failures, several_processes
from bench.runs.display import Report, shown
from bench.runs.failures import Failure, Scope, Status
from bench.runs.moments import Moment
from bench.runs.run import Run
from bench.system.claims import Claim, Held
from bench.system.phases import phase

if TYPE_CHECKING:
    from bench.clip.backbone import Backbone
    from bench.runs.run import LoadedRun
    from bench.system.processes import Processes

NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # would stop every other run too


@dataclass(frozen=True)
class Outcome:
    """How one run ended, and why."""

    run: Run
    status: Status
    reason: str = ""
    scope: Scope = "run"
    failure: Failure | None = field(default=None, compare=False)  # what went wrong after it had begun


@dataclass(frozen=True)
class Place:
    """What all runs of a plan get from the machine."""

    folders: Folders
    threads: int | None = None  # CPU threads of a run; None: what the launcher thinks fit


Launcher = Callable[[Sequence[Run], Place, Report], Iterable[Outcome]]


def forget(runs: Sequence[Run], option: str) -> None:
    """Delete what finished and unfinished runs have written, as `option` asks; none if another process is at one of them."""
    with contextlib.ExitStack() as claims:
        for run in runs:
            if run.folder.exists():
                try:
                    claims.enter_context(claim(run))
                except Held as holder:
                    raise BenchError(f"{option}: {run.label} is being carried out by {holder}; stop it or wait") from holder
        for run in runs:
            if run.folder.exists():
                shutil.rmtree(run.folder)


def claim(run: Run) -> Claim:
    """Nobody else carries out this run meanwhile; Held if somebody does."""
    return Claim(run.files.lock)


def launch(
    runs: Sequence[Run], folders: Folders, threads: int | None, launcher: Launcher | None = None, retry_failed: bool = False,
    quiet: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Carry out what is not finished, and say how each run ended, in the order of the plan; BenchError if none could begin.

    quiet: nothing is shown meanwhile.
    """
    found = outcomes_of(runs, folders, threads, launcher, retry_failed, quiet)
    if found and all(outcome.scope != "run" for outcome in found):  # nothing could begin
        raise BenchError(found[0].reason)
    return found


def outcomes_of(
    runs: Sequence[Run], folders: Folders, threads: int | None, launcher: Launcher | None = None, retry_failed: bool = False,
    quiet: bool = False,
) -> list[Outcome]:  # fmt: skip
    """The same, also where none could begin."""
    outcomes: dict[str, Outcome] = {}
    for run in runs:
        if run.finished:
            outcomes[run.run_id] = Outcome(run, "already finished")
        elif not retry_failed and (failure := failures.lasting(run)):
            outcomes[run.run_id] = Outcome(run, "failed", f"{failure.reason} (earlier; --retry-failed tries again)")
    waiting = [run for run in runs if run.run_id not in outcomes]
    if waiting:
        with shown(waiting, quiet) as report:
            for outcome in (launcher or in_process)(waiting, Place(folders, threads), report):
                report(outcome.run, Moment(0, "", ended=outcome.status))
                outcomes[outcome.run.run_id] = outcome
    return [outcomes[run.run_id] for run in runs]


def in_process(runs: Sequence[Run], place: Place, report: Report) -> Iterator[Outcome]:
    """One run after another, here."""
    hopeless = Hopeless()
    with limited_threads(place.threads):
        for run in runs:
            outcome = hopeless.known(run) or carry_out(run, place.folders, report)
            hopeless.note(outcome)
            yield outcome


def carry_out(
    run: Run,
    folders: Folders,
    report: Report = lambda run, moment: None,
    foreign: Callable[[BaseException], bool] = lambda _: False,
) -> Outcome:
    """One run, here and now. What its code does wrong is recorded; only what stops every run is raised: a full disk, a cache or
    results folder that cannot be written.

    foreign: is this exception one that has reached the run from outside, out of a signal handler? It is raised again.
    """
    return _judged(run, lambda: _here(run, folders, report, foreign) if run.processes == 1 else _by_several(run, folders, report))


def carry_out_part(run: Run, folders: Folders, report: Report, joined: "Callable[[], Processes]") -> Outcome:
    """The part in a run of one of the processes that carry it out together; who has started them claims the run and records."""
    from bench.system.processes import LostProcesses

    def part() -> Outcome:
        loaded, backbone = _loaded(run)
        return _executed(loaded, backbone, folders, report, lambda error: isinstance(error, LostProcesses), joined())

    return _judged(run, part)


def _judged(run: Run, carry: Callable[[], Outcome]) -> Outcome:
    """How it ended; what could not begin, and what that says of other runs."""
    try:
        return carry()
    except Held as holder:
        return Outcome(run, "running elsewhere", str(holder))
    except UnfitMethod as error:
        return Outcome(run, "failed", str(error), "method")
    except BenchError as error:  # missing data, for instance
        return Outcome(run, "failed", str(error), "protocol")


def _here(run: Run, folders: Folders, report: Report, foreign: Callable[[BaseException], bool]) -> Outcome:
    from bench.system.processes import ALONE

    loaded, backbone = _loaded(run)
    with claim(run):
        outcome = _executed(loaded, backbone, folders, report, foreign, ALONE)
        if outcome.failure:
            failures.record(run, outcome.failure)
        return outcome


def _by_several(run: Run, folders: Folders, report: Report) -> Outcome:
    with claim(run):
        ending = several_processes.carry_out(run, folders, lambda moment: report(run, moment))
        if ending.failure:
            failures.record(run, ending.failure)
        return Outcome(run, ending.status, ending.reason, ending.scope, ending.failure)


def _loaded(run: Run) -> "tuple[LoadedRun, Backbone]":
    loaded = run.loaded()
    with phase("load"):
        return loaded, loaded.backbone()


def _executed(
    loaded: "LoadedRun", backbone: "Backbone", folders: Folders, report: Report, foreign: Callable[[BaseException], bool],
    processes: "Processes",
) -> Outcome:  # fmt: skip
    """How the run ended, with what its own code did wrong."""
    from bench.runs.runner import execute

    run = loaded.run
    try:
        return Outcome(run, execute(loaded, backbone, folders, lambda moment: report(run, moment), processes))
    except (Exception, SystemExit) as error:  # a method may end like a script
        if isinstance(error, BenchError) or foreign(error):
            raise
        if isinstance(error, OSError) and (error.errno in NO_DISK or refused(error, folders, run.out)):
            raise
        failure = failures.of_error(run, error)
        return Outcome(run, "failed", failure.reason, failure=failure)


class Hopeless:
    """Runs that would fail as others did, before they could begin: their data set is missing, say."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[Scope, str, str, str], str] = {}

    def note(self, outcome: Outcome) -> None:
        if outcome.scope != "run":
            self._reasons[_concerned(outcome.run, outcome.scope)] = outcome.reason

    def known(self, run: Run) -> Outcome | None:
        scopes: tuple[Scope, ...] = ("protocol", "method")
        for scope in scopes:
            reason = self._reasons.get(_concerned(run, scope))
            if reason is not None:
                return Outcome(run, "failed", reason, scope)
        return None


def _concerned(run: Run, scope: Scope) -> tuple[Scope, str, str, str]:
    """The same for all runs that end alike. A method may be unfit for its settings alone: other ones get their own try."""
    own = (run.method, json.dumps(run.settings, sort_keys=True)) if scope == "method" else ("", "")
    return scope, run.protocol, *own


@contextlib.contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """So many CPU threads for torch, numpy and scikit-learn; None leaves them as they are."""
    import torch
    from threadpoolctl import threadpool_limits

    if threads:
        torch.set_num_threads(threads)
    with threadpool_limits(threads):
        yield
