"""Searches carried out: round after round, all searches of a command together, so that no worker waits for one method's end.

A round proposes the next trials of every search and hands their runs to a launcher. What a search has found is written as soon
as its last trial is scored. Killed at any moment and repeated, the same rounds follow: trials that were proposed are kept, and
runs that were finished are not made again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.runs import failures, launch, reuse
from bench.runs.facts import Facts
from bench.runs.launch import Launcher, Outcome, Place, Report
from bench.runs.run import Run
from bench.runs.tuning import result
from bench.runs.tuning.proposals import ROUND
from bench.runs.tuning.result import Result
from bench.runs.tuning.search import Search
from bench.runs.tuning.trials import Trial

Told = Callable[[Search, Trial], None]  # of a trial that is over


@dataclass(frozen=True)
class How:
    """How the runs of trials are carried out."""

    folders: Folders
    threads: int | None
    launcher: Launcher
    retry_failed: bool = False
    rerun_changed: bool = False
    longest: float | None = None  # seconds that a run may take, for its trial to be chosen


@dataclass
class _Round:
    """The trials of one search that are under way together."""

    search: Search
    trials: list[Trial]
    runs: dict[int, list[Run]]  # number of a trial -> its runs
    last: bool
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)

    @property
    def all_runs(self) -> list[Run]:
        return [run for trial in self.trials for run in self.runs[trial.number]]


def carry_out(
    searches: Sequence[Search], limit: int, how: How, facts: Facts, tell: Told, notes: Callable[[str], None]
) -> list[Result]:
    """All searches with `limit` trials each; how those have ended that came to an end."""
    results: dict[int, Result] = {}
    for number in range((limit + ROUND - 1) // ROUND):
        last = (number + 1) * ROUND >= limit
        rounds = []
        for search in searches:
            if search.stopped:
                continue
            trials = search.propose(number, limit)
            search.keep()
            runs = {trial.number: search.runs_of(trial, facts) for trial in trials}
            rounds.append(_Round(search, trials, runs, last))
        _carry_out(rounds, how, facts, tell, notes, results)
    return [results[id(search)] for search in searches if id(search) in results]


def _carry_out(
    rounds: Sequence[_Round], how: How, facts: Facts, tell: Told, notes: Callable[[str], None], results: dict[int, Result]
) -> None:
    owner = {run.run_id: one for one in rounds for run in one.all_runs}
    runs = [run for one in rounds for run in one.all_runs]
    _look_at_what_is_there(runs, how, facts, notes)

    def settled(outcome: Outcome) -> None:
        one = owner[outcome.run.run_id]
        one.outcomes[outcome.run.run_id] = outcome
        _settle(one, how, tell, results)

    def watched(waiting: Sequence[Run], place: Place, report: Report) -> Iterator[Outcome]:
        for outcome in how.launcher(waiting, place, report):
            settled(outcome)
            yield outcome

    for outcome in _waiting_for_nobody(runs, how.retry_failed):
        settled(outcome)
    for one in rounds:
        _settle(one, how, tell, results)  # all of its trials may have been refused before they had a run
    waiting = [run for run in runs if run.run_id not in owner[run.run_id].outcomes]
    if waiting:
        try:
            launch.launch(waiting, how.folders, how.threads, watched, how.retry_failed)
        except BenchError:
            found = [owner[run.run_id].outcomes.get(run.run_id) for run in waiting]
            if not all(outcome and outcome.scope == "method" for outcome in found):
                raise
            # else: no run of this round could begin, which is a fact about these trials


def _look_at_what_is_there(runs: Sequence[Run], how: How, facts: Facts, notes: Callable[[str], None]) -> None:
    """Finished runs are taken for what would be made now only if they are."""
    found = reuse.examine(runs, facts)
    for remark in reuse.remarks(runs, found, how.rerun_changed):
        notes(remark)
    if how.rerun_changed:
        changed = [run for run in runs if found[run.run_id].state == "finished" and found[run.run_id].differs]
        launch.forget(changed, "--rerun-changed")
    elif other := [run for run in runs if found[run.run_id].state == "finished" and not found[run.run_id].shown]:
        raise BenchError(f"{other[0].label}: finished on other data; --rerun-changed runs it again, another --out keeps both")


def _waiting_for_nobody(runs: Sequence[Run], retry_failed: bool) -> Iterator[Outcome]:
    """The runs that are over before anything is launched."""
    for run in runs:
        if run.finished:
            yield Outcome(run, "already finished")
        elif not retry_failed and (failure := failures.lasting(run)):
            yield Outcome(run, "failed", failure.reason)


def _settle(one: _Round, how: How, tell: Told, results: dict[int, Result]) -> None:
    """Score the trials whose runs are all over; after the last one of the last round, write what was found."""
    search = one.search
    for trial in one.trials:
        runs = one.runs[trial.number]
        if trial.number in one.told or not all(run.run_id in one.outcomes for run in runs):
            continue
        one.told.add(trial.number)
        if runs:
            _end(search, trial, runs, one.outcomes)
        if not search.stopped:
            tell(search, trial)
    if len(one.told) == len(one.trials) and id(search) not in results and not search.stopped:
        search.keep()
        if one.last:
            results[id(search)] = result.of(search, how.longest)
            result.write(results[id(search)], how.longest)


def _end(search: Search, trial: Trial, runs: Sequence[Run], outcomes: Mapping[str, Outcome]) -> None:
    """A trial has failed where its own code has; where the machine has, the search stops, and a repeated command goes on."""
    for run in runs:
        outcome = outcomes[run.run_id]
        if run.finished:
            continue
        if outcome.status == "failed" and (outcome.scope == "method" or failures.lasting(run)):
            return trial.failed(outcome.reason)
        search.stopped = f"{outcome.status}: {outcome.reason}"
        return None
    return trial.scored(runs, search.metric)
