"""What runs have cost, and what others will by them: from the same kind of run to a table that ships with the package.

A run is judged by finished ones of its method in its results folder, those that have most in common with it first, and what they
cost is scaled by images, updates and tasks. Where there is none, by the table of relative costs (bench/runs/method_costs.py):
finished runs of other methods there tell how long its unit takes, or, for the mini CLIP on the CPU, a moment's measurement.
Never by another backbone, device, precision or acceleration: the first change the time by orders of magnitude.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from bench.results.run_folder import RunFolder, finished_runs
from bench.runs import method_costs, run_sizes
from bench.runs.checkpoint import finished_tasks
from bench.runs.method_costs import Row
from bench.runs.run import Run
from bench.runs.run_sizes import Size

# what a finished run must have in common with a planned one, from the best guide to the poorest, and how that is called
LIKENESS = {
    "finished runs": ("protocol", "method", "limits", "settings"),
    "other settings": ("protocol", "method", "limits"),
    "other limits": ("protocol", "method"),
    "other protocol": ("method",),
}
METHODS, TABLE = "other methods", "table"
SURE = {  # by what a run was judged -> how far off it may be
    "finished runs": "by finished runs like them",
    "other settings": "by runs with other settings, within a factor of about 2",
    "other limits": "by runs with other limits, scaled by images, within a factor of about 2",
    "other protocol": "by runs on another protocol, scaled by images, within a factor of about 3",
    METHODS: "by a table of relative costs and finished runs of other methods, within a factor of about 4",
    TABLE: "by a table of relative costs and a moment's measurement of this machine, within a factor of about 4",
}
ALWAYS = ("backbone", "device", "precision", "accelerate", "processes")
BYTES_OF_A_SCORE, BYTES_OF_A_RUN = 40, 20_000  # of the files of a run: with each scored image, and with none


@dataclass(frozen=True)
class Cost:
    """Of one run, or of several."""

    seconds: float
    bytes: float
    judged_by: str = "finished runs"  # a key of SURE


@dataclass(frozen=True)
class _Past:
    """A finished run."""

    method: str
    learning: float  # seconds, those of preparing with it
    scoring: float
    bytes: float
    size: Size | None

    def scaled(self, size: Size | None, judged_by: str) -> Cost:
        learning = scoring = 1.0
        if size and self.size:
            learning, scoring = size.learning(self.size), size.scoring(self.size)
        return Cost(self.learning * learning + self.scoring * scoring, self.bytes * scoring, judged_by)


class PastCosts:
    """Of the finished runs in some results folders. speed: loops a second of this machine; asked only where it is needed."""

    def __init__(self, folders: Iterable[Path], speed: Callable[[], float]):
        self._speed = speed
        self._table = method_costs.read()
        self._runs: dict[tuple[Any, ...], list[_Past]] = {}
        self._seconds: dict[tuple[Any, ...], float | None] = {}  # of a loop, by what runs always have in common
        for folder in folders:
            for own in finished_runs(folder):
                self._note(own)

    def _note(self, own: RunFolder) -> None:
        try:
            manifest = json.loads(own.manifest.read_text())
            cost, identity = manifest["cost"], manifest["identity"]
            learning = cost["seconds_prepare"] + sum(task["learn"] for task in cost["seconds_per_task"])
            scoring = sum(task["evaluate"] for task in cost["seconds_per_task"])
            size = sum(one.stat().st_size for one in own.path.iterdir())
            past = _Past(identity["method"], learning, scoring, size, run_sizes.of_manifest(manifest))
            keys = [_key(identity, names) for names in [*LIKENESS.values(), ()]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # damaged, or of another version: no guide
        for key in keys:
            self._runs.setdefault(key, []).append(past)

    def of(self, run: Run) -> Cost | None:
        """What it costs from where it is now; None where nothing tells."""
        size, identity = run_sizes.of_run(run), run.identity
        found = self._by_likeness(identity, size) or self._by_table(run, identity, size)
        if found is None:
            return None
        left = 1 - finished_tasks(run.checkpoint) / run.tasks if run.tasks else 1.0
        return Cost(found.seconds * left, found.bytes, found.judged_by)

    def _by_likeness(self, identity: Mapping[str, Any], size: Size | None) -> Cost | None:
        for judged_by, names in LIKENESS.items() if self._runs else ():
            if past := self._runs.get(_key(identity, names)):
                costs = [one.scaled(size, judged_by) for one in past]
                return Cost(mean(cost.seconds for cost in costs), mean(cost.bytes for cost in costs), judged_by)
        return None

    def _by_table(self, run: Run, identity: Mapping[str, Any], size: Size | None) -> Cost | None:
        row = self._table.get(run.method)
        if row is None or size is None:
            return None
        key = _key(identity, ())
        if key not in self._seconds:
            self._seconds[key] = self._seconds_of_a_loop(self._runs.get(key, ()))
        seconds, judged_by = self._seconds[key], METHODS
        if seconds is None and run.backbone == "mini" and run.device == "cpu":
            seconds, judged_by = 1 / self._speed(), TABLE
        if seconds is None:
            return None
        scored = size.tasks * size.test
        return Cost(_loops(row, size) * seconds, BYTES_OF_A_RUN + BYTES_OF_A_SCORE * scored, judged_by)

    def _seconds_of_a_loop(self, past: Sequence[_Past]) -> float | None:
        found = [
            (one.learning + one.scoring) / _loops(self._table[one.method], one.size)
            for one in past
            if one.size and one.method in self._table
        ]
        return median(found) if found else None


def _loops(row: Row, size: Size) -> float:
    then = Size(method_costs.TASKS, method_costs.IMAGES, method_costs.IMAGES, row.epochs, row.iterations)
    return method_costs.FIXED + row.training * size.learning(then) + row.scoring * size.scoring(then)


def _key(identity: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return (names, *(json.dumps(identity.get(name), sort_keys=True) for name in (*names, *ALWAYS)))
