"""Do the mini world's results agree with papers: in how they rank methods, and in the effects that the papers report?

    python docs/ranking_agreement.py FOLDER ... [--effects]

A row for every published table, and metric in it, with at least five methods that were measured below the folders: Spearman's
rank correlation between the published numbers and the measured means. Published numbers are those of results/published/*.csv;
which stream stands for which protocol, which methods keep exemplars, and the effects are data, in ranking_agreement.toml. Limited
runs, those with changed hyper-parameters and those on a validation part are left out, and named.
"""

import argparse
import itertools
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.reports.formats import Table, TableCell, points, write
from bench.results import published, records
from bench.results.conditions import SEEDS, SHARED
from bench.results.metrics import METRICS
from bench.results.run_table import values

FACTS = Path(__file__).with_suffix(".toml")
FEWEST = 5  # methods of a published table with a measured counterpart
EXACT = 8  # up to so many methods every permutation is counted
DRAWN = 100_000  # permutations of more methods
ALL_TABLES = "all of them, mean of each method's numbers"


@dataclass(frozen=True)
class Facts:
    """What the TOML file says."""

    names: Mapping[str, str]
    streams: Mapping[str, Mapping[str, str]]
    memory: frozenset[str]
    effects: Sequence[Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path = FACTS) -> "Facts":
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return cls(found["names"], found["streams"], frozenset(found["memory"]["methods"]), found["effects"])

    def method(self, written: str) -> str:
        """What a source's method is called here, if there is one."""
        return self.names.get(written, written)

    def stream(self, protocol: str, method: str) -> str:
        """The stream that stands for a published protocol, with the memory that the method's paper has."""
        forms = self.streams[protocol]
        return forms.get("with_memory", forms["here"]) if method in self.memory else forms["here"]


class Measured:
    """Every run below some folders that was asked for as its method has it, on all images."""

    def __init__(self, table: pd.DataFrame):
        asked = [str(text) for text in table["overrides"].fillna("")]
        limits = [str(text) for text in table["limits"].fillna("")]
        keep = np.array([not (own or limit) for own, limit in zip(asked, limits)], dtype=bool)
        self.table = table[keep]
        self.left_out = sorted(
            {f"{row.method} on {row.protocol} ({row.overrides or row.limits})" for row in table[~keep].itertuples()}
        )
        for protocol, own in self.table.groupby("protocol"):
            if own.drop_duplicates(SHARED)["run_id"].nunique() > 1:
                raise BenchError(
                    f"{protocol} was run under several conditions (version, backbone, weights, templates or exemplars); give "
                    "folders that hold one of them"
                )

    @cached_property
    def runs(self) -> dict[tuple[str, str], pd.DataFrame]:
        """(protocol, method) -> its runs with all metrics that need no images."""
        names = [name for name, metric in METRICS.items() if metric.needs != "samples"]
        if not len(self.table):
            return {}
        found = values(self.table, names)
        return dict(iter(found.groupby(["protocol", "method"])))

    def numbers(self, stream: str, method: str, metric: str) -> dict[tuple[int, int], float]:
        """(order seed, seed) -> percent; empty if it was not measured."""
        own = self.runs.get((stream, method))
        if own is None or metric not in own:
            return {}
        pairs = zip(own[SEEDS].astype(int).itertuples(index=False, name=None), own[metric])
        return {(order, seed): 100 * float(value) for (order, seed), value in pairs if not math.isnan(value)}


# -- rankings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """A published table and metric beside the measured means of the same methods."""

    protocol: str
    where: str
    metric: str
    rows: dict[str, tuple[float, float, str]]  # method -> published, measured, stream; from the best published one on
    runs: int  # the fewest of a method
    tables: int  # published ones that it draws on

    @cached_property
    def rho(self) -> float:
        reported, found, _ = zip(*self.rows.values())
        return spearman(reported, found)

    @cached_property
    def p(self) -> float:
        reported, found, _ = zip(*self.rows.values())
        return permutation_p(reported, found)


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; equal numbers share the mean of their ranks. NaN where all numbers of a side are equal.

    >>> spearman([1, 2, 3, 4], [10, 20, 40, 30]), spearman([1, 2, 3], [3, 2, 1])
    (0.8, -1.0)
    """
    ranks = [_ranks(side) for side in (one, other)]
    if any(np.ptp(side) == 0 for side in ranks):
        return math.nan
    return round(float(np.corrcoef(*ranks)[0, 1]), 12)


def _ranks(numbers: Sequence[float]) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(np.round(np.asarray(numbers, float), 9))


def permutation_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Two-sided: how often would methods in any order agree, or disagree, as much? Of many orders some are drawn."""
    a, b = (_ranks(side) - (len(side) + 1) / 2 for side in (one, other))
    n = len(a)
    if n <= EXACT:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        random = np.random.default_rng(0)
        drawn = random.permuted(np.tile(np.arange(n), (DRAWN, 1)), axis=1)
        orders = np.vstack([np.arange(n), drawn])  # the observed order is one of them, so that p is never 0
    return float((np.abs(b[orders] @ a) >= abs(a @ b) - 1e-9).mean())


def agreements(reported: pd.DataFrame, measured: Measured, facts: Facts) -> list[Agreement]:
    """One for each published table and metric with enough measured methods, then those over all tables of a protocol."""
    known = reported[reported["protocol"].isin(facts.streams) & ~reported["metric"].str.contains("/")]
    known = known[known["metric"].isin(list(METRICS))]
    found = []
    for protocol in facts.streams:
        own = known[known["protocol"] == protocol]
        tables = [
            agreement(protocol, f"{paper}, {table}", metric, rows, measured, facts)
            for (paper, table, _, metric), rows in own.groupby(["reported_in", "table", "backbone", "metric"], sort=False)
        ]
        of_clip = own[own["backbone"].str.startswith("ViT-")]  # numbers of other backbones make no means with these
        together = [
            agreement(protocol, ALL_TABLES, metric, rows, measured, facts)
            for metric, rows in of_clip.groupby("metric", sort=False)
        ]
        found += [one for one in tables if len(one.rows) >= FEWEST]
        found += [one for one in together if len(one.rows) >= FEWEST and one.tables > 1]
    return found


def agreement(protocol: str, where: str, metric: str, rows: pd.DataFrame, measured: Measured, facts: Facts) -> Agreement:
    found, runs, tables = {}, [], set()
    for method, own in rows.groupby(rows["method"].map(facts.method), sort=False):
        stream = facts.stream(protocol, method)
        numbers = measured.numbers(stream, method, metric)
        if numbers:
            found[method] = (float(own["value"].mean()), fmean(numbers.values()), stream)
            runs.append(len(numbers))
            tables |= set(zip(own["reported_in"], own["table"]))
    ordered = dict(sorted(found.items(), key=lambda item: (-item[1][0], item[0])))
    return Agreement(protocol, where, metric, ordered, min(runs, default=0), len(tables))


def table_of_rankings(found: Sequence[Agreement], measured: Measured) -> Table:
    table = Table(
        caption="Published ranking against the ranking measured on the mini world",
        reading="Spearman's rho over n methods; in brackets published and measured number in percent, measured is the mean over "
        "runs. p: permutation test, two-sided.",
        header=["published protocol", "table", "metric", "n", "rho", "p", "runs", "methods, the best published one first"],
        rows=[],
        left=3,
    )
    for one in found:
        streams = dict.fromkeys(stream for _, _, stream in one.rows.values())
        usual = next(iter(sorted(streams, key=len)))
        names = [
            f"{method}{'*' if stream != usual else ''} ({reported:.1f} {value:.1f})"
            for method, (reported, value, stream) in one.rows.items()
        ]
        rho, p = ("-", "-") if math.isnan(one.rho) else (f"{one.rho:.2f}", f"{one.p:.3f}")
        cells = [f"{one.protocol}, here {usual}", one.where, METRICS[one.metric].title, len(one.rows), rho, p, one.runs]
        table.rows.append([TableCell(str(cell)) for cell in [*cells, ", ".join(names)]])
        if len(streams) > 1:
            note = f"* measured with the memory that its paper has, on {max(streams, key=len)}"
            table.notes += [note] if note not in table.notes else []
    table.notes.append(f"left out: tables with fewer than {FEWEST} methods that were measured here")
    if measured.left_out:
        table.notes.append(f"left out, not the method's own recipe on all test images: {', '.join(measured.left_out)}")
    return table


# -- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """What a paper reports of two methods, and what was measured."""

    facts: Mapping[str, Any]
    streams: tuple[str, str]
    metric: str
    reported: float | None  # difference in points; None: its numbers could not be read
    differences: tuple[float, ...]  # measured, one for each pair of runs with equal seeds
    spread: float | None  # None: a single pair

    @property
    def verdict(self) -> str:
        """Of the sign: a difference that the seeds' spread could have made is none."""
        if not self.differences:
            return "not run"
        mean = fmean(self.differences)
        if abs(mean) <= (self.spread or 0.0):
            return "undecided: within the seeds' spread"
        if (mean > 0) == (self.reported is None or self.reported > 0):
            return "agrees"
        return f"not shown here: {self.facts['reason']}" if self.facts.get("reason") else "not shown here"


def effect(facts: Facts, one: Mapping[str, Any], reported: pd.DataFrame, measured: Measured) -> Effect:
    protocol, metric, *places = one.get("published", (None, one.get("metric")))
    metric = one.get("metric", metric)
    first, second = one["methods"]
    difference = None
    if protocol:
        difference = _number(reported, facts, protocol, one["published"][1], first, places[0])
        difference -= _number(reported, facts, protocol, one["published"][1], second, places[-1])
    streams = [one.get("here") or facts.stream(protocol, method) for method in (first, second)]
    numbers = [measured.numbers(stream, method, metric) for stream, method in zip(streams, (first, second))]
    shared = sorted(numbers[0].keys() & numbers[1].keys())
    differences = tuple(numbers[0][pair] - numbers[1][pair] for pair in shared)
    spread = stdev(differences) if len(differences) > 1 else None
    return Effect(one, (streams[0], streams[1]), metric, difference, differences, spread)


def _number(reported: pd.DataFrame, facts: Facts, protocol: str, metric: str, method: str, where: str) -> float:
    """What a table says; an error if it does not, for then the list of effects is wrong."""
    rows = reported[(reported["protocol"] == protocol) & (reported["metric"] == metric)]
    rows = rows[(rows["reported_in"] + ", " + rows["table"] == where) & (rows["method"].map(facts.method) == method)]
    if len(rows) != 1:
        found = f"{len(rows)} published numbers are {metric} of {method} on {protocol}"
        raise BenchError(f"{FACTS.name}: {found} in {where!r}, not one")
    return float(rows["value"].iloc[0])


def table_of_effects(found: Sequence[Effect]) -> Table:
    table = Table(
        caption="Known effects, published and here",
        reading="Differences in percentage points, the first method minus the second; here: mean over pairs of runs with equal "
        "seeds ± their standard deviation.",
        header=["paper", "effect", "methods", "here on", "metric", "verdict", "published", "here", "pairs"],
        rows=[],
        left=6,
    )
    for one in found:
        streams = one.streams[0] if len(set(one.streams)) == 1 else " against ".join(one.streams)
        here = points(fmean(one.differences) / 100, signed=True) if one.differences else "-"
        here += f" ± {points(one.spread / 100)}" if one.spread is not None else ""
        said = "higher, not read" if one.reported is None else points(one.reported / 100, signed=True)
        cells = [one.facts["paper"], one.facts["effect"], " - ".join(one.facts["methods"]), streams, METRICS[one.metric].title]
        cells += [one.verdict, said, here, str(len(one.differences))]
        table.rows.append([TableCell(cell) for cell in cells])
    counts = {
        word: sum(one.verdict.startswith(word) for one in found) for word in ("agrees", "undecided", "not shown here", "not run")
    }
    table.notes.append("; ".join(f"{word}: {count}" for word, count in counts.items() if count))
    table.notes.append("undecided: the mean difference is not larger than the seeds' spread; of a single pair the sign counts")
    if any(one.reported is None for one in found):
        table.notes.append("higher, not read: the paper says which is higher, and nobody could read its numbers")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="finished runs")
    parser.add_argument("--effects", action="store_true", help="the known effects instead of the rankings")
    chosen = parser.parse_args(arguments)
    try:
        facts, reported, measured = Facts.read(), published.load(), Measured(records.load(chosen.folders))
        if chosen.effects:
            made = table_of_effects([effect(facts, one, reported, measured) for one in facts.effects])
        else:
            made = table_of_rankings(agreements(reported, measured, facts), measured)
    except BenchError as error:
        sys.exit(f"ranking_agreement: {error}")
    print(write([made], "markdown"))


if __name__ == "__main__":
    main()
