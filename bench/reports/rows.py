"""Records -> the rows of comparison tables, before anything is printed: methods, their runs, the columns' functions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean, stdev

import numpy as np
import pandas as pd

from bench.results import accuracy, comparable
from bench.results.metrics import METRICS, find
from bench.results.run_data import TASK_INCREMENTAL, RunData
from bench.results.run_table import ZERO_SHOT, label

SamplesOf = Callable[[str], Mapping[str, np.ndarray] | None]  # from a run id to its per-sample scores


@dataclass(frozen=True)
class Column:
    """One number of a run, and how a table heads it."""

    key: str
    title: str
    function: Callable[[RunData], float]
    higher_is_better: bool = True


@dataclass
class Row:
    """A method with its hyper-parameters: all of its runs under the same conditions."""

    method: str
    overrides: str
    runs: list[RunData]
    seeds: list[tuple[int, int]]  # (order seed, seed) of each run
    run_ids: list[str]
    values: dict[str, list[float]] = field(default_factory=dict)  # column key -> value of every run, NaN = not available

    @property
    def label(self) -> str:
        return label(self.method, self.overrides)

    @property
    def joint(self) -> bool:
        return self.runs[0].joint

    def fill(self, columns: list[Column]) -> None:
        for column in columns:
            if column.key not in self.values:
                self.values[column.key] = [column.function(run) for run in self.runs]

    def known(self, key: str) -> list[float]:
        return [value for value in self.values[key] if not np.isnan(value)]

    def mean(self, key: str) -> float | None:
        values = self.known(key)
        return fmean(values) if values else None

    def std(self, key: str) -> float | None:
        values = self.known(key)
        return stdev(values) if len(values) > 1 else None


def metric_column(name: str) -> Column:
    metric = find(name)
    return Column(name, metric.title, metric.function, metric.higher_is_better)


def groups(records: pd.DataFrame, samples_of: SamplesOf | None) -> Iterator[tuple[dict, list[Row], list[str]]]:
    """(conditions, rows, task names) of every set of comparable runs."""
    for found in comparable.sets(records):
        rows = []
        for (method, overrides), own in found.methods.items():
            data = [found.data[run_id] for run_id in own["run_id"]]
            if samples_of:
                data = [replace(run, samples=samples_of(run_id) or {}) for run, run_id in zip(data, own["run_id"])]
            seeds = list(zip(own["order_seed"].astype(int), own["seed"].astype(int)))
            rows.append(Row(method, overrides, data, seeds, list(own["run_id"])))
        yield found.conditions, rows, found.tasks


def zero_shot_row(rows: list[Row]) -> Row | None:
    own = sorted((row for row in rows if row.method == ZERO_SHOT), key=lambda row: row.overrides)
    return own[0] if own else None


def add_baselines(rows: list[Row]) -> None:
    """Give every run the zero-shot accuracies of its class order, for forward transfer."""
    zero_shot = zero_shot_row(rows)
    if zero_shot is None:
        return
    of_order: dict[int, list[np.ndarray]] = {}
    for run, (order, _) in zip(zero_shot.runs, zero_shot.seeds):
        of_order.setdefault(order, []).append(run.before_learning)
    for row in rows:
        for i, (order, _) in enumerate(row.seeds):
            if order in of_order:
                row.runs[i] = replace(row.runs[i], baseline=np.mean(of_order[order], axis=0))


def order(row: Row, key: str) -> tuple:
    """Zero-shot first, then from best to worst, methods without the metric last."""
    mean = row.mean(key)
    sign = -1 if METRICS[key].higher_is_better else 1
    return row.method != ZERO_SHOT, mean is None, sign * (mean or 0), row.label


def _entry(function: Callable[[RunData], np.ndarray], i: int, run: RunData) -> float:
    return float(function(run)[i])


def task_blocks(scenario: str, names: list[str]) -> list[tuple[str, list[Column]]]:
    """The columns of the per-task view: (what they show, columns)."""

    def columns(key: str, heads: list[str], function: Callable[[RunData], np.ndarray]) -> list[Column]:
        return [Column(f"{key}/{head}", head, partial(_entry, function, i)) for i, head in enumerate(heads)]

    if scenario == TASK_INCREMENTAL:
        return [
            ("Transfer of each task", columns("mtil_transfer", names, lambda run: accuracy.transfer_per_task(run.learned))[1:]),
            ("Avg of each task", columns("mtil_avg", names, lambda run: accuracy.avg_per_task(run.learned))),
            ("Last of each task", columns("mtil_last", names, lambda run: run.learned[-1])),
        ]
    moments = [f"after {name}" for name in names]
    return [
        ("accuracy on the tasks learned so far", columns("step", moments, lambda run: accuracy.after_each_task(run.learned))),
        ("accuracy on each task at the end", columns("last", names, lambda run: run.learned[-1])),
    ]
