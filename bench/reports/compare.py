"""Two methods against each other, pair by pair: over runs with equal seeds, and over the test images of their last models.

Runs meet only under the same conditions (protocol version, backbone, weights, templates, exemplars, image limits) and
with the same class order and seed. What the pairs cannot support is said in words, never printed as a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError, unknown_name
from bench.reports import statistics
from bench.reports.formats import Cell, Table, write
from bench.results import groups, run_facts
from bench.results.groups import Results
from bench.results.metrics import DEFAULTS, METRICS, TASK_INCREMENTAL, find
from bench.results.run_table import SEEDS, SHARED, heading, points, repeated_run, values
from bench.system import method_source, registry
from bench.system.method_source import Source

PERCENT = round(100 * statistics.CONFIDENCE)
DIGESTS = {"weights_digest": "weights", "images_digest": "images"}  # of a manifest: they can differ under equal conditions


def render(a: str, b: str, paths: Sequence[Path], metrics: Sequence[str] | None = None, format: str = "plain") -> str:
    """The comparison of A and B as text. Each is a method as the tables print it, found at or below the paths, or a
    folder of runs."""
    return write(compare(a, b, paths, metrics), format)


def compare(a: str, b: str, paths: Sequence[Path], metrics: Sequence[str] | None = None) -> list[Table]:
    """For every protocol on which both were run: a table over paired runs, and one over paired test images."""
    for name in metrics or ():
        find(name)
    sides = [_side(name, paths, metrics) for name in (a, b)]
    tables = []
    opponents, alone = _opponents(*sides)
    for one, other in opponents:
        shared = one.runs[SHARED].drop_duplicates().merge(other.runs[SHARED].drop_duplicates()).to_dict("records")
        if not shared:
            raise BenchError(_mismatch(one, other))
        for conditions in shared:
            pairs = _pairs(one, other, conditions)
            tables.append(_over_runs(one, other, pairs, conditions, metrics or DEFAULTS[conditions["scenario"]]))
            tables.append(_over_images(one, other, pairs, conditions))
        for side, partner in ((one, other), (other, one)):
            tables[-1].notes += _on_one_side(side, partner, shared)
    tables[-1].notes += alone
    return tables


# -- who meets whom ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    name: str  # as a caption prints it
    runs: pd.DataFrame  # bench.results.run_table.values of its runs
    results: Results  # where they come from
    folder: bool

    def only(self, label: str) -> "Side":
        name = f"{label} in {self.name}" if self.folder else label
        return Side(name, self.runs[self.runs["label"] == label], self.results, self.folder)


def _side(name: str, paths: Sequence[Path], metrics: Sequence[str] | None) -> Side:
    # the package of a method being written lies in a folder of its name; ./NAME is the folder in any case
    folder = Path(name).exists() and name not in registry.names("method")
    results = groups.load([Path(name)] if folder else paths)
    side = Side(name, values(results.table, metrics, results.samples_of), results, folder)
    if folder:
        return side
    if name not in set(side.runs["label"]):
        raise unknown_name("method or folder", name, set(side.runs["label"]))
    return side.only(name)


def _opponents(a: Side, b: Side) -> tuple[list[tuple[Side, Side]], list[str]]:
    """One method against one other; of two folders with several methods, each method against itself, and a note on each
    that the other folder does not hold."""
    labels = [sorted(set(side.runs["label"])) for side in (a, b)]
    if len(labels[0]) == len(labels[1]) == 1:
        return [(a.only(labels[0][0]), b.only(labels[1][0]))], []
    common = sorted(set(labels[0]) & set(labels[1]))
    if not (a.folder and b.folder):
        several = a if a.folder else b
        raise BenchError(f"{several.name} holds several methods ({', '.join(labels[several is b])}); name a folder with one")
    if not common:
        raise BenchError(f"no method in common: {a.name} holds {', '.join(labels[0])}; {b.name} holds {', '.join(labels[1])}")
    alone = []
    for side, own, others in ((a, labels[0], labels[1]), (b, labels[1], labels[0])):
        for label in own:
            if label not in others:
                close = [other for other in others if other.split(" (")[0] == label.split(" (")[0]]
                instead = f"; the other folder has {', '.join(close)}" if close else ""
                alone.append(f"only in {side.name}, not compared: {label}{instead}")
    return [(a.only(label), b.only(label)) for label in common], alone


def _on_one_side(side: Side, partner: Side, shared: Sequence[Mapping[str, str]]) -> list[str]:
    """A note on every set of conditions under which only this side was run, with what differs."""
    notes = []
    theirs = partner.runs[SHARED].drop_duplicates().to_dict("records")
    for conditions in side.runs[SHARED].drop_duplicates().to_dict("records"):
        if conditions in list(shared):
            continue
        same = [other for other in theirs if other["protocol"] == conditions["protocol"]]
        if not same:
            notes.append(f"only {side.name} was run on {conditions['protocol']}")
            continue
        closest = min(same, key=lambda other: sum(other[column] != conditions[column] for column in SHARED))
        how = ", ".join(
            f"{column} {conditions[column] or 'none'} against {closest[column] or 'none'}"
            for column in SHARED
            if conditions[column] != closest[column]
        )
        notes.append(f"only {side.name} was run on {heading(conditions)}: {how} of {partner.name}")
    return notes


def _mismatch(a: Side, b: Side) -> str:
    """Why two sides share no conditions: the first column in which they have nothing in common."""
    for column in SHARED:
        found = [sorted(set(side.runs[column])) for side in (a, b)]
        if not set(found[0]) & set(found[1]):
            said = [", ".join(value or "none" for value in values) for values in found]
            return f"{a.name} and {b.name} cannot be compared: {column} {said[0]} against {said[1]}"
    return f"{a.name} and {b.name} cannot be compared: no run of one has the conditions of a run of the other"


def _pairs(a: Side, b: Side, conditions: dict[str, str]) -> pd.DataFrame:
    """One row for every (order_seed, seed) that both have; columns of A end in _a, those of B in _b."""
    sides = []
    for side in (a, b):
        runs = side.runs[(side.runs[SHARED] == pd.Series(conditions)).all(axis=1)]
        repeated = repeated_run(runs)
        if repeated:
            raise BenchError(f"{repeated}; name the folder of one of them")
        sides.append(runs)
    pairs = sides[0].merge(sides[1], on=SEEDS, suffixes=("_a", "_b")).sort_values(SEEDS, ignore_index=True)
    met = set(zip(pairs["order_seed"], pairs["seed"]))
    alone = [_seeds(runs[[pair not in met for pair in zip(runs["order_seed"], runs["seed"])]]) for runs in sides]
    if not len(pairs):
        one, other = ("; ".join(_seeds(runs)) for runs in sides)
        raise BenchError(f"{a.name} and {b.name} have no seeds in common on {conditions['protocol']}: {one} against {other}")
    refused = {}
    for pair in pairs.itertuples():
        one, other = a.results.manifests.get(pair.run_id_a, {}), b.results.manifests.get(pair.run_id_b, {})
        for key, what in DIGESTS.items():
            if one.get(key) and other.get(key) and one[key] != other[key]:
                ids = f"{pair.run_id_a} and {pair.run_id_b}"
                refused[pair.Index] = f"runs {ids} saw different {what} under the same name; run one of them again"
    if len(refused) == len(pairs):
        raise BenchError(next(iter(refused.values())))
    kept = pairs.drop(index=list(refused)).reset_index(drop=True)
    kept.attrs["notes"] = [
        *(f"left out: {words} of {letter}, without a partner of equal class order and seed"
          for letter, own in zip("AB", alone) for words in own),
        *(f"left out: {why}" for why in refused.values()),
        *_made_otherwise(a, b, kept),
    ]  # fmt: skip
    return kept


def _seeds(runs: pd.DataFrame) -> list[str]:
    return [f"order {order} seed {seed}" for order, seed in sorted(zip(runs["order_seed"], runs["seed"]))]


def _made_otherwise(a: Side, b: Side, pairs: pd.DataFrame) -> list[str]:
    """In what the runs of a pair differ beside what is compared: of one method its settings, of any two the machine."""
    found: dict[str, None] = {}
    for letter, side, ids in (("A", a, pairs["run_id_a"]), ("B", b, pairs["run_id_b"])):
        mixed = run_facts.mixtures([side.results.manifests[run_id] for run_id in ids if run_id in side.results.manifests])
        if mixed:
            found[f"{letter}: averaged over runs that differ in {', '.join(mixed)}"] = None
    for pair in pairs.itertuples():
        one, other = a.results.manifests.get(pair.run_id_a), b.results.manifests.get(pair.run_id_b)
        if not (one and other):
            continue
        facts = [_machine(manifest) for manifest in (one, other)]
        if pair.method_a == pair.method_b:
            facts = [run_facts.settings_and_version(m) | own for m, own in zip((one, other), facts)]
            sources = [Source.from_json(manifest.get("source")) for manifest in (one, other)]
            if all(sources) and (modules := method_source.changed_modules(*sources)):
                found[f"the method's code differs: {', '.join(modules)}"] = None
        for line in run_facts.differing(*facts):
            found[f"A -> B: {line}"] = None
    return list(found)


def _machine(manifest: Mapping) -> dict[str, str]:
    identity = manifest.get("identity", {})
    device = {"device": str(identity.get("device", "")), "precision": str(identity.get("precision", "float32"))}
    return device | run_facts.versions([manifest])


# -- over runs --------------------------------------------------------------------------------------------------


def _over_runs(a: Side, b: Side, pairs: pd.DataFrame, conditions: dict[str, str], metrics: Sequence[str]) -> Table:
    n = len(pairs)
    enough = n >= statistics.MIN_RUNS
    spread = f"{PERCENT}% interval" if enough else "smallest to largest"
    table = Table(
        caption=f"A = {a.name}, B = {b.name}, on {heading(conditions)}",
        reading=f"Percent, mean over {n} pair{'s' * (n > 1)} of runs with equal class order and seed.",
        header=["metric", "A", "B", "A - B", spread, *["better"] * enough],
        rows=[],
        conditions=conditions,
    )
    for name in metrics:
        known = pairs.dropna(subset=[f"{name}_a", f"{name}_b"])
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
    verdict = [better or ("undecided" if sure else "-")] if enough else []
    cells = [METRICS[name].title, points(means[0]), points(means[1]), points(means[2], signed=True), between, *verdict]
    table.rows.append([Cell(cell) for cell in cells])
    table.data.append(
        {"over": "runs", "metric": name, "a": means[0], "b": means[1], "difference": means[2], "smallest": differences.min(),
         "largest": differences.max(), "low": low if sure else None, "high": high if sure else None, "better": better,
         "pairs": len(pairs)}
    )  # fmt: skip


def _notes_on_runs(table: Table, pairs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    shown = [row["metric"] for row in table.data]
    notes = []
    lower = [METRICS[name].title for name in shown if not METRICS[name].higher_is_better]
    if lower:
        notes.append(f"lower is better: {', '.join(lower)}")
    missing = [METRICS[name].title for name in metrics if name not in shown]
    if missing:
        notes.append(f"not available in any pair: {', '.join(missing)}")
    notes += pairs.attrs["notes"]
    n = len(pairs)
    if n < statistics.MIN_RUNS:
        notes.append(
            f"{n} pair{'s' * (n > 1)} of runs: too few to say which is better over seeds (at least {statistics.MIN_RUNS}); "
            "no interval and no test are given"
        )
        return notes
    notes.append("interval: paired bootstrap over runs, each metric by itself")
    if any(cell.text == "all equal" for row in table.rows for cell in row):
        notes.append("all equal: the difference does not depend on the seed, so more seeds say nothing; see the test images")
    if pairs["order_seed"].nunique() == 1:
        notes.append("one class order: the interval covers training seeds, not the order of the classes")
    return notes


# -- over test images -------------------------------------------------------------------------------------------


def _over_images(a: Side, b: Side, pairs: pd.DataFrame, conditions: dict[str, str]) -> Table:
    own = "task" if conditions["scenario"] == TASK_INCREMENTAL else "seen"
    how = "the task's own classes compete" if own == "task" else "all classes compete"
    table = Table(
        caption=f"A = {a.name}, B = {b.name}, test images after the last task of {conditions['protocol']}",
        reading=f"Accuracy in percent, mean over images; {how}.",
        header=["run", "images", "A", "B", "A - B", f"{PERCENT}% interval", "only A right", "only B right", "McNemar p"],
        rows=[],
        conditions=conditions,
    )
    found, missing = [], []
    for pair in pairs.itertuples():
        hits = [_hits(side.results.samples_of(run_id), own, run_id)
                for side, run_id in ((a, pair.run_id_a), (b, pair.run_id_b))]  # fmt: skip
        if None in hits:
            missing.append(pair.run_id_a if hits[0] is None else pair.run_id_b)
            continue
        (labels, right_a), (other_labels, right_b) = hits
        if not np.array_equal(labels, other_labels):
            ids = f"{pair.run_id_a} and {pair.run_id_b}"
            raise BenchError(f"runs {ids} were scored on different test images; run one of them again")
        found.append((pair, right_a, right_b))
    tests = [statistics.mcnemar(int((x & ~y).sum()), int((y & ~x).sum())) for _, x, y in found]
    for (pair, right_a, right_b), p in zip(found, statistics.holm(tests)):
        _add_images(table, pair, right_a, right_b, float(p))
    if found:
        table.notes.append("interval and test are over images: they judge these trained models, not the method over seeds")
    if len(found) > 1:
        table.notes.append(f"McNemar p: exact, Holm's correction for {len(found)} pairs")
    if missing:
        table.notes.append(f"left out, per-image scores were not kept: {', '.join(missing)}")
    return table


def _hits(arrays: Mapping[str, np.ndarray] | None, candidates: str, run_id: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(labels, whether the final model is right) of all test images, task after task; None if nothing was kept."""
    if arrays is None:
        return None
    tasks = sum(name.startswith("labels/") for name in arrays)
    labels = [arrays[f"labels/{task}"] for task in range(tasks)]
    try:
        predictions = [arrays[f"prediction/{tasks - 1}/{task}/{candidates}"] for task in range(tasks)]
    except KeyError as error:
        raise BenchError(f"run {run_id}: its samples.safetensors lacks {error.args[0]}; run it again with --fresh") from error
    labels = np.concatenate(labels)
    return labels, np.concatenate(predictions) == labels


def _add_images(table: Table, pair, right_a: np.ndarray, right_b: np.ndarray, p: float) -> None:
    differences = right_a.astype(int) - right_b.astype(int)
    low, high = statistics.bootstrap_interval(differences)
    only_a, only_b = int((differences == 1).sum()), int((differences == -1).sum())
    said = "<0.0001" if p < 0.0001 else f"{p:.4f}"
    cells = [
        f"order {pair.order_seed} seed {pair.seed}", str(len(right_a)), points(right_a.mean()), points(right_b.mean()),
        points(differences.mean(), True), f"{points(low, True)} to {points(high, True)}", str(only_a), str(only_b), said,
    ]  # fmt: skip
    table.rows.append([Cell(cell) for cell in cells])
    table.data.append(
        {"over": "images", "order_seed": pair.order_seed, "seed": pair.seed, "images": len(right_a),
         "a": right_a.mean(), "b": right_b.mean(), "difference": differences.mean(), "low": low,
         "high": high, "only_a": only_a, "only_b": only_b, "p": p}
    )  # fmt: skip
