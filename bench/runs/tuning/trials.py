"""The trials of a search, and the file that keeps them.

    <out>/tuned/<protocol>/METHOD.json     the search: what it is about, every trial with its settings, runs and score
    <out>/tuned/<protocol>/METHOD.toml     the recipe that came out of it
    <out>/tuned/<protocol>.toml            all recipes of that folder in one file

A trial is nothing but ordinary runs in the same results folder. Its score is read from their records each time, never from the
file, which holds what was tried: a search goes on with that, whatever version of Optuna is there by then.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError, one_line
from bench.results import metrics, records
from bench.runs.run import Run
from bench.system.digests import of_plain_data
from bench.system.files import write_atomically

FOLDER = "tuned"
State = Literal["proposed", "scored", "failed"]


@dataclass
class Trial:
    """One set of values for the hyper-parameters that are searched; number 0 is what the method does at present."""

    number: int
    values: dict[str, Any]
    runs: list[str] = field(default_factory=list)  # ids
    state: State = "proposed"
    score: float | None = None  # mean of its runs, a fraction
    seconds: float | None = None  # of its longest run
    seconds_in_all: float = 0.0
    reason: str = ""  # why it failed

    def scored(self, runs: Sequence[Run], metric: str) -> None:
        """Take the score from the records of its runs, which are all finished."""
        found = [_score(run, metric) for run in runs]
        seconds = [_seconds(run) for run in runs]
        self.seconds, self.seconds_in_all = round(max(seconds), 3), round(sum(seconds), 3)
        numbers = [one for one in found if one is not None]
        if len(numbers) < len(found):
            self.failed(f"{metric} is not available")
        else:
            # equal accuracies are a draw, however their sum was rounded
            self.state, self.score, self.reason = "scored", round(statistics.fmean(numbers), 12), ""

    def failed(self, reason: str) -> None:
        self.state, self.score, self.reason = "failed", None, reason

    @property
    def canonical(self) -> dict[str, Any]:
        """What is the same on every machine: not how long it took, nor the words of an error."""
        return {"values": self.values, "runs": self.runs, "state": self.state, "score": self.score}


def _score(run: Run, metric: str) -> float | None:
    return metrics.compute(records.read_csv(run.files.records), names=[metric])[metric]


def _seconds(run: Run) -> float:
    """How long a run has prepared, learned and evaluated."""
    try:
        cost = records.read_manifest(run.folder)["cost"]
        return cost["seconds_prepare"] + sum(task["learn"] + task["evaluate"] for task in cost["seconds_per_task"])
    except (KeyError, TypeError) as error:
        raise BenchError(f"{run.files.manifest}: says nothing of its cost; {records.RUN_AGAIN}") from error


def digest(about: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    """Of a search and all of its trials: the same wherever it is carried out."""
    return of_plain_data([about, [trial.canonical for trial in trials]])


def read(path: Path, about: Mapping[str, Any]) -> list[Trial]:
    """The trials that are kept of this search; BenchError for those of another one, which must not be mixed with it."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        trials = [Trial(**{one.name: trial[one.name] for one in fields(Trial)}) for trial in facts["trials"]]
        then = dict(facts["about"])
        if [trial.number for trial in trials] != list(range(len(trials))) or not all(isinstance(t.values, dict) for t in trials):
            raise ValueError("its trials are not whole")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: not a search that can be read ({one_line(error)}); delete it, its runs stay") from error
    now = json.loads(json.dumps(about))
    if differing := [key for key in {**now, **then} if now.get(key) != then.get(key)]:
        what = ", ".join(sorted(differing))
        raise BenchError(f"{path}: the search that it keeps has another {what}; give another --out, or delete the file")
    return trials


def write(path: Path, about: Mapping[str, Any], trials: Sequence[Trial]) -> None:
    facts = {"about": about, "digest": digest(about, trials), "trials": [asdict(trial) for trial in trials]}
    write_atomically(path, json.dumps(facts, indent=1) + "\n")
