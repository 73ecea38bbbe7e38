"""The columns of comparison tables, before anything is printed: each a number of a run, and its mean and spread over runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np

from bench.results import accuracy
from bench.results.metrics import find
from bench.results.run_data import CLASS_INCREMENTAL, TASK_INCREMENTAL, RunData

if TYPE_CHECKING:
    from bench.results.groups import MethodRuns

AGNOSTIC = ("agnostic_transfer", "agnostic_avg", "last")  # Transfer, Average and Last where the task is not given


@dataclass(frozen=True)
class Column:
    """One number of a run, and how a table heads it."""

    key: str
    title: str
    function: Callable[[RunData], float]
    higher_is_better: bool = True

    def known(self, own: "MethodRuns") -> list[float]:
        """The number of every run of a method for which it is available."""
        return [value for value in own.numbers(self.key, self.function) if not np.isnan(value)]

    def mean(self, own: "MethodRuns") -> float | None:
        values = self.known(own)
        return fmean(values) if values else None

    def std(self, own: "MethodRuns") -> float | None:
        values = self.known(own)
        return stdev(values) if len(values) > 1 else None


def metric_column(name: str) -> Column:
    """The column of a metric."""
    metric = find(name)
    return Column(name, metric.title, metric.function, metric.higher_is_better)


@dataclass(frozen=True)
class Block:
    """The columns of one table."""

    title: str  # what they show; empty: metrics
    columns: list[Column]


def metric_block(names: Sequence[str]) -> Block:
    """The columns of the summary: one number a metric."""
    return Block("", [metric_column(name) for name in names])


def task_blocks(scenario: str, names: list[str]) -> list[Block]:
    """The columns of the per-task view: one number a task."""

    def columns(key: str, heads: list[str], function: Callable[[RunData], np.ndarray]) -> list[Column]:
        return [Column(f"{key}/{head}", head, partial(_number_of_task, function, i)) for i, head in enumerate(heads)]

    if scenario != CLASS_INCREMENTAL:  # every cell of one matrix means the same
        keys = ("mtil_transfer", "mtil_avg", "mtil_last") if scenario == TASK_INCREMENTAL else AGNOSTIC
        transfer = columns(keys[0], names, lambda run: accuracy.transfer_per_task(run.learned))
        return [
            Block("Transfer of each task", transfer[1:]),
            Block("Avg of each task", columns(keys[1], names, lambda run: accuracy.avg_per_task(run.learned))),
            Block("Last of each task", columns(keys[2], names, lambda run: run.learned[-1])),
        ]
    moments = [f"after {name}" for name in names]
    after_each = columns("step", moments, lambda run: accuracy.after_each_task(run.learned))
    return [
        Block("accuracy on the tasks learned so far", after_each),
        Block("accuracy on each task at the end", columns("last", names, lambda run: run.learned[-1])),
    ]


def _number_of_task(function: Callable[[RunData], np.ndarray], task: int, run: RunData) -> float:
    return float(function(run)[task])
