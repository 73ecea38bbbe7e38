"""How long a plan will take and how much disk it will fill, from the manifests of finished runs."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bench.results.run_folder import finished_runs
from bench.runs.checkpoint import finished_tasks
from bench.runs.run import Run

# what a finished run must have in common with a planned one, from the best guide to the poorest; never another
# backbone, device or precision, which change the time by orders of magnitude
LIKENESS = [
    ("protocol", "method", "limits", "settings"),
    ("protocol", "method", "limits"),
    ("method", "limits"),
]
ALWAYS = ("backbone", "device", "precision")


@dataclass(frozen=True)
class Cost:
    """Of one run, or of several."""

    seconds: float
    bytes: float
    alike: bool = True  # False: taken from another protocol


def of_plan(runs: Sequence[Run], to_do: Collection[str] | None = None) -> list[Cost | None]:
    """What each run still costs, as far as the results folder tells; None: nothing comparable there, or nothing to do.

    to_do: ids of the runs that will be carried out (default: those that are not finished).
    """
    past, waits = _Past({run.out for run in runs}), _waiting(runs, to_do)
    return [past.cost(run) if run.run_id in waits else None for run in runs]


def _waiting(runs: Sequence[Run], to_do: Collection[str] | None) -> Collection[str]:
    return {run.run_id for run in runs if not run.finished} if to_do is None else to_do


def columns(
    runs: Sequence[Run], costs: Sequence[Cost | None], to_do: Collection[str] | None = None
) -> dict[str, list[str]]:
    """What each run takes, as cells for the table of the plan."""
    found: dict[str, list[str]] = {"time": [], "disk": []}
    waits = _waiting(runs, to_do)
    for run, cost in zip(runs, costs):
        absent = "unknown" if run.run_id in waits else "-"
        found["time"].append(duration(cost.seconds) if cost else absent)
        found["disk"].append(size(cost.bytes) if cost else absent)
    return found


def summary(
    runs: Sequence[Run], costs: Sequence[Cost | None], workers: int = 1, to_do: Collection[str] | None = None
) -> str:
    """One line on the whole plan."""
    waits = _waiting(runs, to_do)
    waiting = [cost for run, cost in zip(runs, costs) if run.run_id in waits]
    known = [cost for cost in waiting if cost]
    if not waiting:
        if all(run.finished for run in runs):
            return "nothing to do: every run of this plan is finished (--fresh starts over)"
        return "nothing to do: what is not finished has failed"
    if not known:
        return "time and disk: unknown, no finished run of these methods lies in the results folder"
    seconds = max(sum(cost.seconds for cost in known) / workers, max(cost.seconds for cost in known))
    shared = f" with {workers} at a time" if workers > 1 else ""
    parts = [f"about {duration(seconds)}{shared} and {size(sum(cost.bytes for cost in known))}"]
    if len(known) < len(waiting):
        parts.append(f"{len(waiting) - len(known)} of {len(waiting)} runs unknown and not counted")
    if others := sum(not cost.alike for cost in known):
        parts.append(f"{others} judged by the same method on another protocol")
    return f"time and disk, from finished runs: {'; '.join(parts)}"


class _Past:
    """Finished runs, by what they have in common with planned ones."""

    def __init__(self, folders: set[Path]):
        self.runs: dict[tuple[Any, ...], list[Cost]] = {}
        for folder in folders:
            for own in finished_runs(folder):
                try:
                    manifest = json.loads(own.manifest.read_text())
                    cost = Cost(_seconds(manifest["cost"]), sum(one.stat().st_size for one in own.path.iterdir()))
                    keys = [_key(manifest["identity"], names) for names in LIKENESS]
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # damaged, or of another version: no guide
                for key in keys:
                    self.runs.setdefault(key, []).append(cost)

    def cost(self, run: Run) -> Cost | None:
        for names in LIKENESS:
            if found := self.runs.get(_key(run.identity, names)):
                left = 1 - finished_tasks(run.checkpoint) / run.tasks if run.tasks else 1.0
                return Cost(mean(c.seconds for c in found) * left, mean(c.bytes for c in found), "protocol" in names)
        return None


def _key(identity: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return (names, *(json.dumps(identity.get(name), sort_keys=True) for name in (*names, *ALWAYS)))


def _seconds(cost: dict[str, Any]) -> float:
    return cost["seconds_prepare"] + sum(task["learn"] + task["evaluate"] for task in cost["seconds_per_task"])


def duration(seconds: float) -> str:
    """In the two largest units, seconds at least.

    >>> duration(0.2), duration(42.3), duration(100), duration(5400), duration(200000)
    ('1 s', '42 s', '1 min 40 s', '1 h 30 min', '2 d 7 h')
    """
    whole = max(1, round(seconds))
    units = [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)]
    largest = next(place for place, (_, length) in enumerate(units) if whole >= length)
    parts = []
    for name, length in units[largest : largest + 2]:
        count, whole = divmod(whole, length)
        parts += [f"{count} {name}"] if count else []
    return " ".join(parts)


def size(count: float) -> str:
    """In kB, MB or GB.

    >>> size(900), size(12_345), size(4_200_000), size(3.1e9)
    ('0.9 kB', '12.3 kB', '4.2 MB', '3.1 GB')
    """
    for name, unit in (("GB", 1e9), ("MB", 1e6)):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"
