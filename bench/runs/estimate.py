"""How long a plan will take and how much disk it will fill, and how sure that is."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from bench.runs.machine_speed import loops_per_second
from bench.runs.past_costs import SURE, Cost, PastCosts
from bench.runs.run import Run


def of_plan(
    runs: Sequence[Run], to_do: Collection[str] | None = None, speed: Callable[[], float] = loops_per_second
) -> list[Cost | None]:
    """What each run still costs; None: nothing tells, or nothing to do.

    to_do: ids of the runs that will be carried out (default: those that are not finished). speed: of this machine, measured where
    nothing better tells.
    """
    measured: list[float] = []

    def once() -> float:
        if not measured:
            measured.append(speed())
        return measured[0]

    past, waits = PastCosts({run.out for run in runs}, once), _waiting(runs, to_do)
    return [past.of(run) if run.run_id in waits else None for run in runs]


def _waiting(runs: Sequence[Run], to_do: Collection[str] | None) -> Collection[str]:
    return {run.run_id for run in runs if not run.finished} if to_do is None else to_do


def columns(
    runs: Sequence[Run], costs: Sequence[Cost | None], to_do: Collection[str] | None = None
) -> dict[str, list[str]]:
    """What each run takes, as cells for the table of the plan."""
    found: dict[str, list[str]] = {"time": [], "disk": [], "judged by": []}
    waits = _waiting(runs, to_do)
    for run, cost in zip(runs, costs):
        absent = "unknown" if run.run_id in waits else "-"
        found["time"].append(duration(cost.seconds) if cost else absent)
        found["disk"].append(size(cost.bytes) if cost else absent)
        found["judged by"].append(cost.judged_by if cost else "-")
    return found


def summary(
    runs: Sequence[Run], costs: Sequence[Cost | None], workers: int = 1, to_do: Collection[str] | None = None
) -> str:
    """One line on the whole plan."""
    waits = _waiting(runs, to_do)
    waiting = [cost for run, cost in zip(runs, costs) if run.run_id in waits]
    waiting_runs = [run for run in runs if run.run_id in waits]
    known = [cost for cost in waiting if cost]
    if not waiting:
        if all(run.finished for run in runs):
            return "nothing to do: every run of this plan is finished (--fresh starts over)"
        return "nothing to do: what is not finished has failed"
    if not known:
        return f"time and disk: unknown; {_why_unknown(waiting_runs)}"
    seconds = max(sum(cost.seconds for cost in known) / workers, max(cost.seconds for cost in known))
    shared = f" with {workers} at a time" if workers > 1 else ""
    parts = [f"time and disk: about {duration(seconds)}{shared} and {size(sum(cost.bytes for cost in known))}"]
    counts = Counter(cost.judged_by for cost in known)
    parts += [f"{_runs(counts[how])} judged {words}" for how, words in SURE.items() if counts[how]]
    if unknown := [run for run, cost in zip(waiting_runs, waiting) if cost is None]:
        parts.append(f"{len(unknown)} of {len(waiting)} runs unknown and not counted: {_why_unknown(unknown)}")
    return "; ".join(parts)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count > 1)}"


def _why_unknown(runs: Sequence[Run]) -> str:
    """What would have to be there to judge the first of these runs by; it is so for all with its conditions."""
    conditions = dict.fromkeys(f"{run.backbone} on {run.device} in {run.precision}" for run in runs)
    folders = ", ".join(dict.fromkeys(str(run.out) for run in runs))
    return f"no finished run in {folders} tells what these methods take with {' or '.join(conditions)}"


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
    """In kB, MB, GB, TB or PB.

    >>> size(900), size(12_345), size(4_200_000), size(3.1e9), size(8e16)
    ('0.9 kB', '12.3 kB', '4.2 MB', '3.1 GB', '80.0 PB')
    """
    for name, unit in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"
