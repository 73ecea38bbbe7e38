"""Which methods of a table cannot be told apart from the best one of a column, by the paired comparison of `bench compare`.

Every ranked method is held against the best of the column over the runs with equal class order and seed. The interval is that of
`bench compare`, a paired bootstrap over runs; since a column has as many comparisons as there are other methods, each has the
confidence 1 - 0.05 / comparisons (Bonferroni's correction, which needs no p-values). The best was chosen by the same numbers,
which no correction repairs: read "not told apart" as a warning, and its absence with care.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.reports import statistics
from bench.reports.formats import counted
from bench.reports.rows import Column
from bench.results.groups import MethodRuns

TIE = "≈"
THINNEST_TAIL = 1e-4  # a thinner one would take more resampled means than are worth their time
IN_TAIL = 5  # so many of the resampled means lie outside on each side


@dataclass
class Marks:
    """What the comparisons of one table have given."""

    ties: dict[str, set[str]] = field(default_factory=dict)  # key of a column -> labels of methods that are not told apart
    too_few: dict[str, None] = field(default_factory=dict)  # labels that could not be compared in some column
    alike: dict[str, None] = field(default_factory=dict)  # labels with one and the same difference in every pair
    comparisons: set[int] = field(default_factory=set)  # how many each column has
    needed: int = 0

    def sign(self, column: Column, label: str) -> str:
        return TIE if label in self.ties.get(column.key, ()) else ""

    def notes(self) -> list[str]:
        if not self.comparisons:
            return ["significance: nothing to compare in any column"]
        m = " or ".join(map(str, sorted(self.comparisons)))
        how = "paired bootstrap over runs with equal class order and seed, 95%, Bonferroni's correction for the"
        how += f" {m} {'comparison' if self.comparisons == {1} else 'comparisons'} of a column"
        found = [f"{TIE} not told apart from the best of its column: {how}"]
        if self.too_few:
            found.append(
                f"not compared with the best, fewer than {counted(self.needed, 'pair')} of runs: {', '.join(self.too_few)}"
            )
        if self.alike:
            found.append(f"not compared, the difference to the best is equal in all pairs: {', '.join(self.alike)}")
        return found


def marks(methods: Sequence[MethodRuns], columns: Sequence[Column]) -> Marks:
    """The comparisons of every column of a table."""
    found = Marks()
    for column in columns:
        _compare_column([own for own in methods if not own.joint and column.mean(own) is not None], column, found)
    return found


def _compare_column(ranked: Sequence[MethodRuns], column: Column, found: Marks) -> None:
    if len(ranked) < 2:
        return
    sign = 1 if column.higher_is_better else -1
    best = max(ranked, key=lambda own: sign * (column.mean(own) or 0.0))
    others = [own for own in ranked if own is not best]
    found.comparisons.add(len(others))
    confidence = 1 - (1 - statistics.CONFIDENCE) / len(others)
    needed = fewest_pairs(confidence)
    found.needed = max(found.needed, needed)
    for own in others:
        differences = _paired(best, own, column)
        if len(differences) < needed:
            found.too_few[own.label] = None
        elif np.ptp(differences) < 1e-12:
            found.alike[own.label] = None
        else:
            low, high = statistics.bootstrap_interval(differences, resamples(len(differences), confidence), confidence)
            if low <= 0 <= high:
                found.ties.setdefault(column.key, set()).add(own.label)


def _paired(best: MethodRuns, own: MethodRuns, column: Column) -> np.ndarray:
    """Best minus the other, over the seeds that both have once."""
    of_best, of_own = (_by_seeds(one, column) for one in (best, own))
    common = sorted(of_best.keys() & of_own.keys())
    return np.array([of_best[seeds] - of_own[seeds] for seeds in common])


def _by_seeds(own: MethodRuns, column: Column) -> dict[tuple[int, int], float]:
    values = own.numbers(column.key, column.function)
    return {
        seeds: value
        for seeds, value in zip(own.seeds, values)
        if own.seeds.count(seeds) == 1 and not np.isnan(value)
    }


def resamples(pairs: int, confidence: float) -> int:
    """So many resampled means that some lie outside of an interval of that confidence."""
    return max(statistics.RESAMPLES, math.ceil(IN_TAIL / statistics.tail(pairs, confidence)))


def fewest_pairs(confidence: float) -> int:
    """The smallest number of pairs whose interval of that confidence is no mere smallest and largest difference.

    >>> fewest_pairs(0.95) == statistics.MIN_RUNS
    True
    """
    n = statistics.MIN_RUNS
    while n < 100 and statistics.tail(n, confidence) < max(n ** -float(n), THINNEST_TAIL):
        n += 1
    return n
