"""All methods over all protocols: average ranks, Friedman's test, and what a critical-difference diagram shows.

A block is a protocol; the score of a method there is its mean over runs. Or, with `over_runs`, it is a run: a protocol under
one class order and seed. Ranks are taken within a block, so nothing is averaged over different conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.reports import statistics
from bench.reports.formats import Table, TableCell, counted, points, write
from bench.results import records, samples
from bench.results.conditions import SEEDS, SHARED
from bench.results.metrics import METRICS, find
from bench.results.records import validation_part
from bench.results.run_data import TASK_INCREMENTAL
from bench.results.run_table import repeated_run, values
from bench.results.samples import SamplesOf

LEVEL = 0.05


@dataclass(frozen=True)
class Ranking:
    """Methods from best to worst. cd, cliques and p need statistics.MIN_BLOCKS blocks; without them: None, [], None."""

    names: list[str]
    ranks: np.ndarray  # (methods,) mean rank, 1 is best
    blocks: list[str]  # protocols, or runs
    scores: np.ndarray  # (blocks, methods) fractions, mean over runs
    metrics: list[str]  # the metric of each block
    block_ranks: np.ndarray  # (blocks, methods)
    p: float | None  # of Friedman's test that all methods rank alike
    cd: float | None  # Nemenyi's critical difference of mean ranks
    cliques: list[tuple[int, int]]  # (first, last) positions of the groups that cannot be told apart
    notes: list[str] = field(default_factory=list)  # what was left out, and what to mind
    validation: bool = False  # of validation parts, not of test images
    protocols: list[str] = field(default_factory=list)


def render(paths: Sequence[Path], metric: str | None = None, format: str = "plain") -> str:
    """The ranking of all methods at or below the paths as text."""
    return write([to_table(rank(records.load(paths), metric, samples.of_runs(paths)))], format)


def rank(
    table: pd.DataFrame,
    metric: str | None = None,
    samples_of: SamplesOf | None = None,
    over_runs: bool = False,
) -> Ranking:
    """Rank the methods of these records.

    metric: default Last, or MTIL Last where the task is given. A method that lacks a protocol, or its metric there, is
    left out and named; so is one that learned all tasks at once. over_runs: a block is a protocol under one class order and
    seed; methods and blocks are left out until every method has every block.
    """
    final = {kind: metric or ("mtil_last" if kind == TASK_INCREMENTAL else "last") for kind in table["scenario"].unique()}
    runs = values(table, list(dict.fromkeys(final.values())), samples_of)
    runs["score"] = [run[final[run["scenario"]]] for run in runs.to_dict("records")]
    protocols = _protocols(runs)
    runs["block"] = runs.apply(_run_of, axis=1) if over_runs else runs["protocol"]
    scores = runs[~runs["joint"]].pivot_table(index="block", columns="label", values="score", aggfunc="mean", dropna=False)
    if over_runs:
        scores, notes = _complete(scores)
    else:
        scores, notes = _on_all(scores.reindex(protocols), protocols)
    complete, blocks = scores.columns, list(scores.index)
    joint = sorted(set(runs.loc[runs["joint"], "label"]))
    if joint:
        notes.append(f"left out, learned all tasks at once: {', '.join(joint)}")
    held_out = _validation(runs)
    kept = runs[runs["label"].isin(complete) & runs["block"].isin(blocks)]
    notes += _unlike(kept)

    scenarios = kept.drop_duplicates("block").set_index("block")["scenario"]
    metrics = [final[scenario] for scenario in scenarios.loc[blocks]]
    signs = np.array([1 if find(name).higher_is_better else -1 for name in metrics])
    matrix = scores.to_numpy()  # (blocks, methods)
    ranks = statistics.block_ranks(signs[:, None] * matrix.round(12))
    order = np.lexsort((complete, ranks.mean(axis=0)))
    mean_ranks = ranks.mean(axis=0)[order]
    p, cd, cliques = None, None, []
    if len(blocks) >= statistics.MIN_BLOCKS:
        _, p = statistics.friedman(-ranks)
        cd = statistics.critical_difference(len(complete), len(blocks))
        cliques = statistics.cliques(mean_ranks, cd) if p < LEVEL else [(0, len(complete) - 1)]
    return Ranking(
        names=[complete[i] for i in order],
        ranks=mean_ranks,
        blocks=blocks,
        scores=matrix[:, order],
        metrics=metrics,
        block_ranks=ranks[:, order],
        p=p,
        cd=cd,
        cliques=cliques,
        notes=notes,
        validation=held_out,
        protocols=sorted(set(kept["protocol"])),
    )


def _on_all(scores: pd.DataFrame, protocols: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The methods that have a score on each protocol, and a note on every other one."""
    complete = scores.columns[scores.notna().all()]
    gaps = {name: scores.index[scores[name].isna()] for name in scores if name not in complete}
    if len(complete) < 2:
        raise BenchError(f"a ranking needs two methods with a result on each of {', '.join(protocols)}; {len(complete)} found")
    return scores[complete], [f"left out, not available on {', '.join(missing)}: {name}" for name, missing in gaps.items()]


def _complete(scores: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The part of a table in which nothing is missing: whatever lacks the largest share, a method or a run, goes first."""
    given = scores
    while scores.isna().any(axis=None):
        methods, blocks = scores.isna().mean(axis=0), scores.isna().mean(axis=1)
        worst = {"columns": methods.idxmax()} if methods.max() > blocks.max() else {"index": blocks.idxmax()}
        scores = scores.drop(**worst)
    if scores.shape[1] < 2 or not len(scores):
        raise BenchError("a ranking over runs needs two methods that were run with the same class orders and seeds")
    without = [name for name in given if name not in scores]
    notes = [f"left out, not run with all of these class orders and seeds: {', '.join(without)}"] if without else []
    lost = len(given) - len(scores)
    return scores, [*notes, f"{counted(lost, 'class order and seed')} left out that some of the methods lack"] if lost else notes


def _run_of(run: pd.Series) -> str:
    return f"{run['protocol']}, order {run['order_seed']}, seed {run['seed']}"


def _validation(runs: pd.DataFrame) -> bool:
    """Are these runs on validation parts? BenchError if some are and others on test images: they are never ranked together."""
    held_out = runs["limits"].fillna("").map(validation_part) != ""
    if held_out.any() and not held_out.all():
        one, other = (own["protocol"].iloc[0] for own in (runs[held_out], runs[~held_out]))
        raise BenchError(
            f"{one} was scored on a validation part of its training images and {other} on test images: they are not ranked "
            "together; give their folders apart"
        )
    return bool(held_out.all())


def _protocols(runs: pd.DataFrame) -> list[str]:
    """The protocols; each must come under one set of conditions."""
    repeated = repeated_run(runs)
    if repeated:
        raise BenchError(f"{repeated}; rank a folder that holds one of them")
    conditions = runs[SHARED].drop_duplicates()
    for protocol, own in conditions.groupby("protocol"):
        for column in SHARED:
            found = sorted(own[column].unique())
            if len(found) > 1:
                said = " and ".join(value or "none" for value in found)
                raise BenchError(f"{protocol} was run under several conditions ({column} {said}); rank one of them at a time")
    return sorted(conditions["protocol"])


def _unlike(runs: pd.DataFrame) -> list[str]:
    """What is not the same for all ranked runs."""
    notes = []
    for column in ("backbone", "pretrained", "limits"):
        found = sorted(runs[column].unique())
        if len(found) > 1:
            notes.append(f"{column} differs between protocols: {', '.join(value or 'none' for value in found)}")
    for protocol, own in runs.groupby("protocol"):
        seeds = {tuple(map(tuple, method[SEEDS].sort_values(SEEDS).to_numpy().tolist())) for _, method in own.groupby("label")}
        if len(seeds) > 1:
            notes.append(f"methods were not run with the same seeds on {protocol}, compare with care")
    return notes


def to_table(ranking: Ranking) -> Table:
    """A row per method: mean rank, then rank and score on each protocol."""
    n = len(ranking.blocks)
    titles = list(dict.fromkeys(METRICS[name].title for name in ranking.metrics))
    table = Table(
        caption=f"{len(ranking.names)} methods ranked by {' and '.join(titles)} on {counted(n, 'protocol')}"
        + (", VALIDATION: scored on training images held out, not on test images" if ranking.validation else ""),
        reading="Mean rank (1 is best); on each protocol the rank and, in brackets, the mean over runs in percent.",
        header=["method", "mean rank", *ranking.blocks],
        rows=[],
        notes=[*_verdict(ranking), *ranking.notes],
    )
    for i, name in enumerate(ranking.names):
        places = [f"{place:g} ({points(score)})" for place, score in zip(ranking.block_ranks[:, i], ranking.scores[:, i])]
        table.rows.append([TableCell(cell) for cell in (name, f"{ranking.ranks[i]:.2f}", *places)])
        table.data.append(
            {"method": name, "mean_rank": float(ranking.ranks[i])}
            | {f"{block}_rank": float(place) for block, place in zip(ranking.blocks, ranking.block_ranks[:, i])}
            | {block: float(score) for block, score in zip(ranking.blocks, ranking.scores[:, i])}
        )
    return table


def _verdict(ranking: Ranking) -> list[str]:
    n = len(ranking.blocks)
    if ranking.cd is None or ranking.p is None:
        few = f"{counted(n, 'protocol')}: too few for a critical difference (at least {statistics.MIN_BLOCKS})"
        return [f"{few}; the order is only descriptive"]
    p = f"Friedman p {'<' if ranking.p < 0.001 else '='} {max(ranking.p, 0.001):.3f}"
    if ranking.p >= LEVEL:
        return [f"{p}: no evidence that the methods differ"]
    return [
        f"{p}: the methods differ; critical difference of mean ranks at {LEVEL:.0%} (Nemenyi): {ranking.cd:.2f}",
        *[f"cannot be told apart: {', '.join(ranking.names[first : last + 1])}" for first, last in ranking.cliques],
    ]
