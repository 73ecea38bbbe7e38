"""Every method of a table against one of them, pair by pair: what `bench compare` says of two, in a row for each of the others.

As many comparisons are made as there are other methods, so every interval has the confidence 1 - 0.05 / comparisons (Bonferroni),
as in `bench table --significance`, and the tests over images have Holm's correction for all of them. Where the method was chosen
because it is the best, it was chosen by the same numbers, which no correction repairs; a note says so.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.reports import significance, statistics
from bench.reports.compare import image_pairs
from bench.reports.formats import Table, TableCell, points
from bench.reports.pairing import Pairs, Side, paired
from bench.results.groups import Group
from bench.results.loaded import Results
from bench.results.metrics import METRICS
from bench.results.run_data import OWN_CANDIDATES, TASK_INCREMENTAL

SIGNIFICANT = 1 - statistics.CONFIDENCE
BETTER, WORSE, UNDECIDED = "better", "worse", "not told apart"


def final_metric(scenario: str) -> str:
    """The accuracy at the end of the stream: what methods are compared by."""
    return "mtil_last" if scenario == TASK_INCREMENTAL else "last"


@dataclass
class Opponent:
    """One method against the reference."""

    label: str
    pairs: Pairs | None  # None: it cannot be compared
    mean: float = float("nan")
    differences: np.ndarray = field(default_factory=lambda: np.zeros(0))  # its number minus the reference's, pair by pair
    gained: list[tuple[int, int]] = field(
        default_factory=list
    )  # of every pair: images that only it, only the reference has right
    without_scores: int = 0
    why_not: str = ""

    @property
    def difference(self) -> float:
        return float(self.differences.mean()) if len(self.differences) else float("nan")


def best_of(group: Group) -> str | None:
    """The best ranked method of a group in the accuracy at the end; None where no two can be compared."""
    ranked = [own for own in group.methods if not own.joint and not np.isnan(own.last.mean())]
    return max(ranked, key=lambda own: float(own.last.mean())).label if len(ranked) > 1 else None


def against(group: Group, results: Results, runs: pd.DataFrame, reference: str | None = None) -> Table | None:
    """Every other ranked method of the group against the reference (default: the best), a row each; None if there is none.

    runs: bench.results.run_table.values of these runs at least, with the metric of `final_metric`.
    """
    chosen = reference or best_of(group)
    own = runs[runs["run_id"].isin(group.run_ids)]
    if chosen is None or chosen not in set(own["label"]):
        return None
    metric = final_metric(group.conditions["scenario"])
    side = _side(chosen, own, results)
    others = [one for one in group.methods if one.label != chosen and not one.joint]
    opponents = [_opponent(side, _side(one.label, own, results), group, metric) for one in others]
    opponents.sort(key=lambda one: (np.isnan(one.difference), -one.difference, one.label))
    table = _table(chosen, opponents, group, metric, by_its_numbers=reference is None)
    if joint := [one.label for one in group.methods if one.joint and one.label != chosen]:
        table.notes.append(f"left out, learned all tasks at once: {', '.join(joint)}")
    return table


def _side(label: str, runs: pd.DataFrame, results: Results) -> Side:
    return Side(label, runs[runs["label"] == label], results, folder=False)


def _opponent(reference: Side, side: Side, group: Group, metric: str) -> Opponent:
    try:
        pairs = paired(reference, side, side.conditions.to_dict("records")[0])
        found, missing = image_pairs(reference, side, pairs.table, OWN_CANDIDATES[group.conditions["scenario"]])
    except BenchError as error:
        return Opponent(side.name, None, why_not=str(error))
    known = pairs.table.dropna(subset=[f"{metric}_a", f"{metric}_b"])
    differences = (known[f"{metric}_b"] - known[f"{metric}_a"]).to_numpy()
    gained = [(pair.only_b, pair.only_a) for pair in found]
    mean = float(side.runs[metric].mean())
    return Opponent(side.name, pairs, mean, differences, gained, len(missing))


# -- from numbers to a table ------------------------------------------------------------------------------------


def _table(reference: str, opponents: list[Opponent], group: Group, metric: str, by_its_numbers: bool) -> Table:
    compared = [one for one in opponents if len(one.differences)]
    confidence = 1 - SIGNIFICANT / max(1, len(compared))
    needed = significance.fewest_pairs(confidence)
    enough = any(len(one.differences) >= needed for one in compared)
    title = METRICS[metric].title
    verdicts = _over_images([one for one in compared if one.gained])
    table = Table(
        caption=f"every method against {reference} on {group.heading}",
        reading=f"Percent; difference: the method's {title} minus that of {reference}, mean over pairs of runs with equal class "
        "order and seed.",
        header=["method", title, "difference", "interval" if enough else "smallest to largest", "over runs", "pairs",
                f"over {group.scored} images"],
        rows=[],
        conditions=group.conditions,
    )  # fmt: skip
    for one in compared:
        row, data = _row(one, confidence, needed, enough, verdicts.get(one.label, "-"))
        table.rows.append([TableCell(text) for text in row])
        table.data.append(data)
    table.notes = _notes(reference, opponents, title, confidence, needed, enough, by_its_numbers)
    return _without_empty_columns(table)


def _without_empty_columns(table: Table) -> Table:
    """Where every method has one run, there is nothing to say of runs."""
    if not table.rows:
        return table
    kept = [i for i in range(len(table.header)) if any(row[i].text != "-" for row in table.rows)]
    table.header = [table.header[i] for i in kept]
    table.rows = [[row[i] for i in kept] for row in table.rows]
    return table


def _row(one: Opponent, confidence: float, needed: int, enough: bool, images: str) -> tuple[list[str], dict[str, Any]]:
    differences = one.differences
    alike = bool(np.ptp(differences) < 1e-12)
    sure = len(differences) >= needed and not alike
    low, high = float(differences.min()), float(differences.max())
    if sure:
        low, high = statistics.bootstrap_interval(differences, significance.resamples(len(differences), confidence), confidence)
    over_runs = (BETTER if low > 0 else WORSE if high < 0 else UNDECIDED) if sure else "-"
    between = f"{points(low, True)} to {points(high, True)}"
    if alike and len(differences) > 1:
        between = "all equal"
    elif len(differences) == 1 or (enough and not sure):
        between = "-"
    cells = [one.label, points(one.mean), points(one.difference, True), between, over_runs, str(len(differences)), images]
    data = {"method": one.label, "mean": one.mean, "difference": one.difference, "low": low, "high": high,
            "over_runs": over_runs, "pairs": len(differences), "over_images": images}  # fmt: skip
    return cells, data


def _over_images(opponents: list[Opponent]) -> dict[str, str]:
    """Label -> what McNemar's test says of the trained models, all comparisons corrected together."""
    tests = [(one, mine, theirs) for one in opponents for mine, theirs in one.gained]
    p_values = statistics.holm([statistics.mcnemar(mine, theirs) for _, mine, theirs in tests])
    found: dict[str, list[str]] = {}
    for (one, mine, theirs), p in zip(tests, p_values):
        said = UNDECIDED if p >= SIGNIFICANT or mine == theirs else BETTER if mine > theirs else WORSE
        found.setdefault(one.label, []).append(said)
    return {label: said_of_all(said) for label, said in found.items()}


def said_of_all(verdicts: list[str]) -> str:
    """The verdicts of a method's models in few words.

    >>> said_of_all(["worse"]), said_of_all(["worse"] * 3), said_of_all(["worse", "not told apart", "worse"])
    ('worse', 'worse in all 3', 'worse in 2 of 3, not told apart in 1')
    """
    if len(verdicts) == 1:
        return verdicts[0]
    counts = {verdict: verdicts.count(verdict) for verdict in (BETTER, WORSE, UNDECIDED) if verdict in verdicts}
    if len(counts) == 1:
        return f"{verdicts[0]} in all {len(verdicts)}"
    (first, number), *others = counts.items()
    return ", ".join([f"{first} in {number} of {len(verdicts)}", *(f"{verdict} in {n}" for verdict, n in others)])


def _notes(
    reference: str, opponents: list[Opponent], title: str, confidence: float, needed: int, enough: bool, by_its_numbers: bool
) -> list[str]:
    compared = [one for one in opponents if len(one.differences)]
    notes = []
    if by_its_numbers:
        notes.append(
            f"{reference} is the best by {title}, chosen by these same numbers, which makes it look a little better than it is"
        )
    correction = f"Bonferroni's correction for {len(compared)} comparisons"
    if enough:
        notes.append(f"interval: paired bootstrap over runs, 95%, {correction}; too few pairs for it below {needed}")
    elif compared:
        notes.append(
            f"too few pairs of runs to say which is better over seeds (at least {needed}, {correction}); no interval is given"
        )
    if any(one.gained for one in compared):
        test = "McNemar's exact test, 5%, Holm's correction for all of them"
        notes.append(f"over images: {test}; it judges these trained models, not the method over seeds")
    if without := [one.label for one in compared if one.without_scores]:
        notes.append(f"per-image scores were not kept of some runs: {', '.join(without)}")
    return [*notes, *_left_out(opponents)]


def _left_out(opponents: list[Opponent]) -> list[str]:
    """What was not compared, and in what partners differ beside the method; A is the reference, B the method."""
    notes = [f"{one.label}: not compared, {one.why_not}" for one in opponents if one.why_not]
    shared: dict[str, list[str]] = {}  # a note -> the methods that it is about
    for one in opponents:
        for note in one.pairs.notes if one.pairs else ():
            about = "some runs have no partner of equal class order and seed" if note.startswith("left out: order") else note
            if one.label not in shared.setdefault(about, []):
                shared[about].append(one.label)
    return notes + [f"{about} (A: the reference, B: {', '.join(labels)})" for about, labels in shared.items()]
