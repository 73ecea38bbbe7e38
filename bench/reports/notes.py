"""Notes below a comparison table on how its rows were made: mixtures of code and machines, ties, seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.results import run_facts
from bench.results.groups import Group, MethodRuns


def on_mixtures(methods: Sequence[MethodRuns], manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on every row that averages over runs which differ in how they were made."""
    notes = []
    for own in methods:
        found = run_facts.mixtures([manifests[run_id] for run_id in own.run_ids if run_id in manifests])
        if found:
            notes.append(f"{own.label}: averaged over runs that differ in {', '.join(found)}")
    return notes


def on_ties(group: Group, methods: Sequence[MethodRuns], manifests: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on the images that only the order of the classes decides, where data sets of a stream share names."""
    last, found = len(group.tasks) - 1, []
    for own in methods:
        ties = [manifests[run_id].get("ties", []) for run_id in own.run_ids if run_id in manifests]
        counts = sorted({sum(cell["images"] for cell in cells if cell["after_task"] == last) for cells in ties})
        if any(counts):
            found.append(f"{own.label} {' to '.join(map(str, dict.fromkeys([counts[0], counts[-1]])))}")
    how = f"{group.scored} images whose best score several classes share, of which the first counts, after the last task"
    return [f"{how}: {', '.join(found)}"] if found else []


def on_seeds(methods: Sequence[MethodRuns]) -> list[str]:
    """What a reader must know of seeds: one that was run twice, class orders that only some methods have met."""
    notes = []
    for own in methods:
        repeated = sorted({pair for pair in own.seeds if own.seeds.count(pair) > 1})
        if repeated:
            order, seed = repeated[0]
            notes.append(f"{own.label}: several runs of order seed {order}, seed {seed}, which differ outside the records")
    orders = {own.label: sorted({order for order, _ in own.seeds}) for own in methods}
    if len({tuple(found) for found in orders.values()}) > 1:
        listed = "; ".join(f"{label}: {', '.join(map(str, found))}" for label, found in orders.items())
        notes.append(f"class orders differ between rows, compare with care ({listed})")
    return notes
