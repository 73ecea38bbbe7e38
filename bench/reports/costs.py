"""What methods cost: seconds, memory, parameters and stored data, from the manifests of finished runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.reports.formats import Table, TableCell, write
from bench.reports.layout import Layout, laid_out
from bench.results import loaded
from bench.results.groups import Group, arranged
from bench.results.loaded import Results

AS_EVER = Layout()
COSTS: dict[str, Callable[[dict[str, Any]], float]] = {  # heading -> a number of the manifest's "cost", in the heading's unit
    "Preparing (s)": lambda cost: cost["seconds_prepare"],
    "Learning (s)": lambda cost: sum(task["learn"] for task in cost["seconds_per_task"]),
    "Evaluation (s)": lambda cost: sum(task["evaluate"] for task in cost["seconds_per_task"]),
    "Encoder passes": lambda cost: cost["image_passes"],
    "Trainable parameters": lambda cost: cost["trainable_parameters"],
    "Total parameters": lambda cost: cost["total_parameters"],
    "Peak memory (MB)": lambda cost: cost["peak_memory_bytes"] / 1e6,
    "Exemplars (kB)": lambda cost: cost["exemplar_bytes"] / 1e3,
    "Kept state (MB)": lambda cost: cost["state_bytes"] / 1e6,
}


def render(paths: Iterable[Path], format: str = "plain", layout: Layout = AS_EVER) -> str:
    """The cost tables of the runs at or below the paths, one for each set of comparable runs."""
    return write(laid_out(build(paths, layout), layout, format), format)


def build(paths: Iterable[Path], layout: Layout = AS_EVER) -> list[Table]:
    """As render, before a format is chosen."""
    results = loaded.load(paths)
    groups = arranged(results)
    layout.refuse_unknown(name for group in groups for own in group.methods for name in (own.label, own.method))
    chosen = [replace(group, methods=layout.chosen(group.methods, ordered=False)) for group in groups]
    tables = [table for group in chosen if (table := cost_table(group, results))]
    if not tables:
        raise BenchError("these records came without their manifest.json, which holds the costs")
    return tables


def cost_table(group: Group, results: Results) -> Table | None:
    """What each method costs, mean over its runs; None if no manifest says so."""
    rows, data = [], []
    for own in group.methods:
        costs = [results.manifests[run_id]["cost"] for run_id in own.run_ids if "cost" in results.manifests.get(run_id, {})]
        if not costs:
            continue
        means = {heading: _mean(number, costs) for heading, number in COSTS.items()}
        cells = [own.label, *[_number(value) for value in means.values()], str(len(costs))]
        rows.append([TableCell(text) for text in cells])
        data.append({"method": own.label, **{h: None if np.isnan(value) else value for h, value in means.items()}})
    if not rows:
        return None
    notes = [
        "encoder passes: images through an image tower; those that the feature store spared are not counted",
        "peak memory is the process's, which may have held other runs before",
        "kept state: all but exemplars that goes from one task to the next, such as trained weights and statistics",
    ]
    return Table(f"{group.heading}: cost", "Mean over runs.", ["method", *COSTS, "runs"], rows, notes, group.conditions, data)


def _mean(number: Callable[[dict[str, Any]], float], costs: Sequence[dict[str, Any]]) -> float:
    """NaN where a manifest does not have the number."""
    try:
        return float(np.mean([number(cost) for cost in costs]))
    except (KeyError, TypeError):
        return float("nan")


def _number(value: float) -> str:
    """Three digits of a small number, all digits of a large one, without separators so that it sorts and copies.

    >>> _number(0.01234), _number(12.34), _number(4096.0), _number(0.0), _number(float("nan"))
    ('0.0123', '12.3', '4096', '0', '-')
    """
    if np.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
