"""How far a metric may get worse before the gate fails."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bench.errors import BenchError
from bench.results.metrics import find

FLOOR = 0.01  # one point: what another processor or library version may move without anything being wrong
WIDTH = 3  # standard deviations


@dataclass(frozen=True)
class Tolerance:
    """Points, or a share of the baseline, where given; else from the spread of the baseline's own runs."""

    given: Mapping[str, tuple[float, bool]] = field(default_factory=dict)  # metric, or "" for all -> (fraction, a share?)

    def allowed(self, metric: str, mean: float, std: float, n: int, runs: int) -> float:
        """As a fraction. mean, std (NaN for one run) and n are the baseline's, `runs` is the number of fresh runs.

        By default max(FLOOR, WIDTH * std * sqrt(1/n + 1/runs)), the last factor times std being the standard error of
        the difference of the two means; FLOOR for a baseline of one run. 3 * 0.02 * sqrt(1/4 + 1/4), then 5% of 0.6:

        >>> round(Tolerance().allowed("last", mean=0.6, std=0.02, n=4, runs=4), 4)
        0.0424
        >>> Tolerance().allowed("last", mean=0.6, std=float("nan"), n=1, runs=4)
        0.01
        >>> Tolerance.parse("5%,avg:2").allowed("last", mean=0.6, std=0.02, n=4, runs=4)
        0.03
        """
        if metric in self.given or "" in self.given:
            amount, share = self.given.get(metric) or self.given[""]
            return amount * abs(mean) if share else amount
        return FLOOR if np.isnan(std) else max(FLOOR, WIDTH * std * float(np.sqrt(1 / n + 1 / runs)))

    @classmethod
    def parse(cls, text: str | None) -> "Tolerance":
        """From what --tolerance says: parts joined by commas.

        "last:1.0" is one point, "ci_transfer:5%" a share of the baseline's value; a part without a name holds for
        every metric that has no part of its own.

        >>> Tolerance.parse("1.0,ci_transfer:5%").given
        {'': (0.01, False), 'ci_transfer': (0.05, True)}
        """
        given: dict[str, tuple[float, bool]] = {}
        for part in text.split(",") if text is not None else []:
            name, colon, amount = part.strip().rpartition(":")
            if colon:
                find(name)
            number = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(%?)", amount)
            if not number:
                wanted = "METRIC:POINTS, METRIC:SHARE% or a number (last:1.0,avg:5%)"
                raise BenchError(f"--tolerance {text}: {part.strip()!r} is not {wanted}")
            if name in given:
                raise BenchError(f"--tolerance {text}: two values for {name or 'all metrics'}")
            given[name] = float(number[1]) / 100, bool(number[2])
        return cls(given)
