"""Two methods against each other, pair by pair: over runs with equal seeds, and over the test images of their last models.

Which runs meet is decided in bench.reports.pairing. What the pairs cannot support is said in words, never printed as a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.reports import statistics
from bench.reports.formats import Table, TableCell, counted, points, write
from bench.reports.pairing import Pairs, Side, on_one_side, opponents, paired, shared_conditions, sides
from bench.results.conditions import heading
from bench.results.metrics import DEFAULTS, METRICS, find
from bench.results.records import validation_part
from bench.results.run_data import OWN_CANDIDATES, TASK_INCREMENTAL

PERCENT = round(100 * statistics.CONFIDENCE)


def render(a: str, b: str, paths: Sequence[Path], metrics: Sequence[str] | None = None, format: str = "plain") -> str:
    """The comparison of A and B as text. Each is a method as the tables print it, found at or below the paths, or a
    folder of runs."""
    return write(compare(a, b, paths, metrics), format)


def compare(a: str, b: str, paths: Sequence[Path], metrics: Sequence[str] | None = None) -> list[Table]:
    """For every protocol on which both were run: a table over paired runs, and one over paired test images."""
    for name in metrics or ():
        find(name)
    tables: list[Table] = []
    matches, alone = opponents(*sides(a, b, paths, metrics))
    for side_a, side_b in matches:
        shared = shared_conditions(side_a, side_b)
        for conditions in shared:
            pairs = paired(side_a, side_b, conditions)
            tables.append(_over_runs(side_a, side_b, pairs, conditions, metrics or DEFAULTS[conditions["scenario"]]))
            tables.append(_over_images(side_a, side_b, pairs, conditions))
        tables[-1].notes += on_one_side(side_a, side_b, shared) + on_one_side(side_b, side_a, shared)
    tables[-1].notes += alone
    return tables


# -- over runs --------------------------------------------------------------------------------------------------


def _over_runs(a: Side, b: Side, pairs: Pairs, conditions: dict[str, str], metrics: Sequence[str]) -> Table:
    n = len(pairs.table)
    enough = n >= statistics.MIN_RUNS
    header = ["metric", "A", "B", "A - B", f"{PERCENT}% interval" if enough else "smallest to largest"]
    table = Table(
        caption=f"A = {a.name}, B = {b.name}, on {heading(conditions)}",
        reading=f"Percent, mean over {counted(n, 'pair')} of runs with equal class order and seed.",
        header=[*header, "better"] if enough else header,
        rows=[],
        conditions=conditions,
    )
    for name in metrics:
        known = pairs.table.dropna(subset=[f"{name}_a", f"{name}_b"])
        if len(known):
            _add_metric(table, name, known, enough)
    table.notes = _notes_on_runs(table, pairs, metrics)
    return table


def _add_metric(table: Table, name: str, pairs: pd.DataFrame, enough: bool) -> None:
    a, b = pairs[f"{name}_a"].to_numpy(), pairs[f"{name}_b"].to_numpy()
    differences = a - b
    means = a.mean(), b.mean(), differences.mean()
    alike = bool(np.ptp(differences) < 1e-12)
    sure = enough and len(pairs) >= statistics.MIN_RUNS and not alike
    low, high = statistics.bootstrap_interval(differences) if sure else (differences.min(), differences.max())
    better = ""
    if sure and (low > 0 or high < 0):
        better = "A" if (low > 0) == METRICS[name].higher_is_better else "B"
    between = "all equal" if alike and len(pairs) > 1 else f"{points(low, True)} to {points(high, True)}"
    cells = [METRICS[name].title, points(means[0]), points(means[1]), points(means[2], signed=True), between]
    if enough:
        cells.append(better or ("undecided" if sure else "-"))
    table.rows.append([TableCell(cell) for cell in cells])
    table.data.append(
        {"over": "runs", "metric": name, "a": means[0], "b": means[1], "difference": means[2], "smallest": differences.min(),
         "largest": differences.max(), "low": low if sure else None, "high": high if sure else None, "better": better,
         "pairs": len(pairs)}
    )  # fmt: skip


def _notes_on_runs(table: Table, pairs: Pairs, metrics: Sequence[str]) -> list[str]:
    shown = [row["metric"] for row in table.data]
    notes = []
    lower = [METRICS[name].title for name in shown if not METRICS[name].higher_is_better]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}")
    missing = [METRICS[name].title for name in metrics if name not in shown]
    if missing:
        notes.append(f"not available in any pair: {', '.join(missing)}")
    notes += pairs.notes
    n = len(pairs.table)
    if n < statistics.MIN_RUNS:
        notes.append(
            f"{counted(n, 'pair')} of runs: too few to say which is better over seeds (at least {statistics.MIN_RUNS}); "
            "no interval and no test are given"
        )
        return notes
    notes.append("interval: paired bootstrap over runs, each metric by itself")
    if any(cell.text == "all equal" for row in table.rows for cell in row):
        notes.append("all equal: the difference does not depend on the seed, so more seeds say nothing; see the test images")
    if pairs.table["order_seed"].nunique() == 1:
        notes.append("one class order: the interval covers training seeds, not the order of the classes")
    return notes


# -- over test images -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImagePair:
    """The final models of a pair of runs on the same test images."""

    seeds: tuple[int, int]  # order seed, seed
    right_a: np.ndarray  # (images,) whether A is right
    right_b: np.ndarray

    @property
    def only_a(self) -> int:
        return int((self.right_a & ~self.right_b).sum())

    @property
    def only_b(self) -> int:
        return int((self.right_b & ~self.right_a).sum())


def _over_images(a: Side, b: Side, pairs: Pairs, conditions: dict[str, str]) -> Table:
    own = OWN_CANDIDATES[conditions["scenario"]]
    how = "the task's own classes compete" if conditions["scenario"] == TASK_INCREMENTAL else "all classes compete"
    held_out = validation_part(str(conditions["limits"]))
    images = "validation images (held out of the training images)" if held_out else "test images"
    table = Table(
        caption=f"A = {a.name}, B = {b.name}, {images} after the last task of {conditions['protocol']}",
        reading=f"Accuracy in percent, mean over images; {how}.",
        header=["run", "images", "A", "B", "A - B", f"{PERCENT}% interval", "only A right", "only B right", "McNemar p"],
        rows=[],
        conditions=conditions,
    )
    found, missing = image_pairs(a, b, pairs.table, own)
    p_values = statistics.holm([statistics.mcnemar(pair.only_a, pair.only_b) for pair in found])
    for pair, p in zip(found, p_values):
        _add_images(table, pair, float(p))
    if found:
        table.notes.append("interval and test are over images: they judge these trained models, not the method over seeds")
    if len(found) > 1:
        table.notes.append(f"McNemar p: exact, Holm's correction for {len(found)} pairs")
    if missing:
        table.notes.append(f"left out, per-image scores were not kept: {', '.join(missing)}")
    return table


def image_pairs(a: Side, b: Side, pairs: pd.DataFrame, candidates: Sequence[str]) -> tuple[list[ImagePair], list[str]]:
    """(the pairs whose scores were kept, a run that lacks them for each of the others). candidates: the scores among the first
    of these that a run has are its own."""
    found, missing = [], []
    for pair in pairs.itertuples():
        hits_a = _hits(a.results.samples_of(pair.run_id_a), candidates, pair.run_id_a)
        hits_b = _hits(b.results.samples_of(pair.run_id_b), candidates, pair.run_id_b)
        if hits_a is None or hits_b is None:
            missing.append(pair.run_id_a if hits_a is None else pair.run_id_b)
            continue
        (labels_a, right_a), (labels_b, right_b) = hits_a, hits_b
        if not np.array_equal(labels_a, labels_b):
            ids = f"{pair.run_id_a} and {pair.run_id_b}"
            raise BenchError(f"runs {ids} were scored on different test images; run one of them again")
        found.append(ImagePair((pair.order_seed, pair.seed), right_a, right_b))
    return found, missing


def _hits(
    arrays: Mapping[str, np.ndarray] | None, candidates: Sequence[str], run_id: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """(labels, whether the final model is right) of all test images, task after task; None if nothing was kept.

    candidates: the scores among the first of these that the run has are its own.
    """
    if arrays is None:
        return None
    tasks = sum(name.startswith("labels/") for name in arrays)
    labels = np.concatenate([arrays[f"labels/{task}"] for task in range(tasks)])
    own = next((name for name in candidates if f"prediction/{tasks - 1}/0/{name}" in arrays), candidates[0])
    try:
        predictions = [arrays[f"prediction/{tasks - 1}/{task}/{own}"] for task in range(tasks)]
    except KeyError as error:
        raise BenchError(f"run {run_id}: its samples.safetensors lacks {error.args[0]}; run it again with --fresh") from error
    return labels, np.concatenate(predictions) == labels


def _add_images(table: Table, pair: ImagePair, p: float) -> None:
    differences = pair.right_a.astype(int) - pair.right_b.astype(int)
    low, high = statistics.bootstrap_interval(differences)
    order_seed, seed = pair.seeds
    mean_a, mean_b, mean = pair.right_a.mean(), pair.right_b.mean(), differences.mean()
    said = "<0.0001" if p < 0.0001 else f"{p:.4f}"
    cells = [
        f"order {order_seed} seed {seed}", str(len(differences)), points(mean_a), points(mean_b), points(mean, signed=True),
        f"{points(low, True)} to {points(high, True)}", str(pair.only_a), str(pair.only_b), said,
    ]  # fmt: skip
    table.rows.append([TableCell(cell) for cell in cells])
    table.data.append(
        {"over": "images", "order_seed": order_seed, "seed": seed, "images": len(differences), "a": mean_a, "b": mean_b,
         "difference": mean, "low": low, "high": high, "only_a": pair.only_a, "only_b": pair.only_b, "p": p}
    )  # fmt: skip
