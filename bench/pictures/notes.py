"""What stands below the title of a picture: which stream, how many runs, what a hollow marker is."""

from collections.abc import Sequence

from bench.results.groups import Group, MethodRuns
from bench.results.records import restrictions


def averaged(methods: Sequence[MethodRuns], band: str = "") -> str:
    """Over how many runs the numbers are means. band: what shows their spread."""
    counts = sorted({len(own.runs) for own in methods})
    if counts == [1]:
        return "one run each" if len(methods) > 1 else "one run"
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean over {many} runs" + (f", {band}: ± standard deviation" if band else "")


def hollow(methods: Sequence[MethodRuns]) -> list[str]:
    return ["hollow: learned all tasks at once"] if any(own.joint for own in methods) else []


def where(group: Group) -> str:
    """The stream, and what sets these runs apart from others on it."""
    limits = group.conditions["limits"]
    said = ("limits=", "train=", "test=", "data=", "validation=")
    apart = [part for part in group.apart.split(";") if part and not part.startswith(said)]
    return ", ".join([group.protocol, *([restrictions(limits)] if limits else []), *apart])
