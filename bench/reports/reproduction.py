"""A paper's table beside what was measured: a verdict for each of its numbers.

A number is reproduced if the measured mean differs from it by no more than

    1.96 * sqrt(test images + seeds) + rounding

where, in points of percent,

    test images   the binomial variance of the metric: that of a mean of accuracies p_tk, each p (1 - p) / n over the n test
                  images of task k, with the weight w_tk that it has in the metric. The same images are scored after every
                  task, so their errors add up within a task (as if they always erred together: the largest it can be) and
                  are independent between tasks: sum over k of (sum over t of |w_tk| sqrt(p (1 - p) / n))^2. The mean over runs.
    seeds         s^2 / n of the n runs here, plus s^2 / m of the m that the paper averages (its own standard deviation
                  in place of s where it prints one). Of a single run here s is not known: the paper's stands for it, or nothing.
    rounding      half a unit of the last digit that is printed

The weights are the derivatives of the metric, so that every metric of accuracies has its variance without a second formula.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, sqrt
from statistics import fmean, variance

import numpy as np

from bench.reports.formats import Table, TableCell, counted, percent, points
from bench.reports.paper_rows import named, title
from bench.reports.rows import AGNOSTIC, Column, metric_column, task_blocks
from bench.results.metrics import METRICS
from bench.results.paper_tables import UNREAD, Cell, Key, PaperTable
from bench.results.published import as_printed
from bench.results.run_data import TASK_AGNOSTIC, TASK_INCREMENTAL, RunData

MTIL = ("mtil_transfer", "mtil_avg", "mtil_last")
Z = 1.96  # 95 % of a normal distribution
STEP = 1e-4  # of an accuracy, to see its weight in a metric
REPRODUCED, DEVIATES, NONE, NOT_RUN, CANNOT = "reproduced", "deviates", "none", "not run", "cannot be run"
HEADER = ["protocol", "method", "metric", "verdict", "published", "here", "difference", "tolerance", "runs"]
TOLERANCE = (
    "reproduced: within 1.96 * sqrt(binomial variance of the test images + variance of the runs * (1 / runs here + 1 / runs of "
    "the paper)) + half a unit of the last printed digit"
)


@dataclass(frozen=True)
class Measured:
    """The finished runs of one row of the table."""

    scenario: str
    tasks: list[str]
    runs: list[RunData]


@dataclass(frozen=True)
class Verdict:
    """What is said of one number of the paper; fractions."""

    word: str
    why: str = ""
    measured: float | None = None
    tolerance: float | None = None
    runs: int = 0


def judge(
    cell: Cell, table: PaperTable, measured: Mapping[Key, Measured], unfinished: Mapping[Key, str], no_verdict: str
) -> Verdict:
    """The verdict on a cell.

    unfinished: why there are no runs of a row that could have been made. no_verdict: why no verdict on the paper can come of
    these runs, whatever they measure; empty if one can.
    """
    if cell.key is None:
        return Verdict(CANNOT, cell.reason)
    own = measured.get(cell.key)
    if own is None:
        why = unfinished.get(cell.key, cell.reason)
        return Verdict(CANNOT if why == UNREAD else NOT_RUN, why)
    if cell.reason:
        return Verdict(NONE, _beside(cell, own), runs=len(own.runs))
    column = column_of(cell.metrics[0], own)
    runs = [] if column is None else [run for run in own.runs if not isnan(column.function(run))]
    if column is None or not runs:
        return Verdict(NONE, "the method has no such number", runs=len(own.runs))
    values = [column.function(run) for run in runs]
    found = Verdict(NONE, no_verdict, fmean(values), runs=len(runs))
    if no_verdict or cell.value is None:
        return found
    tolerance = tolerance_of(cell, table.runs, runs, column.function)
    difference = fmean(values) - cell.value / 100
    if abs(difference) <= tolerance:
        return replace(found, word=REPRODUCED, tolerance=tolerance)
    return replace(found, word=DEVIATES, why=f"by {points(difference, signed=True)}", tolerance=tolerance)


def _beside(cell: Cell, own: Measured) -> str:
    """Why there is no verdict, and what could be meant."""
    names = cell.metrics or {TASK_INCREMENTAL: MTIL, TASK_AGNOSTIC: AGNOSTIC}.get(own.scenario, ("last", "avg"))
    found = []
    for column in (column_of(name, own) for name in names):
        values = [] if column is None else [value for run in own.runs if not isnan(value := column.function(run))]
        found += [f"{column.title} {percent(fmean(values))}"] if column and values else []
    return "; here ".join([cell.reason, *([", ".join(found)] if found else [])])


def column_of(metric: str, own: Measured) -> Column | None:
    """The column of a metric, over all tasks or of one; None if the runs have none."""
    if metric in METRICS:
        return metric_column(metric)
    blocks = task_blocks(own.scenario, own.tasks)
    return next((column for block in blocks for column in block.columns if column.key == metric), None)


def tolerance_of(cell: Cell, runs_of_paper: int, runs: Sequence[RunData], metric: Callable[[RunData], float]) -> float:
    """How far a measured mean may be from the published number, as a fraction."""
    values = [metric(run) for run in runs]
    images = fmean(image_variance(run, metric) for run in runs)
    printed = None if cell.std is None else (cell.std / 100) ** 2
    here = variance(values) if len(values) > 1 else printed or 0.0
    seeds = here / len(values) + (here if printed is None else printed) / runs_of_paper
    return Z * sqrt(images + seeds) + rounding(cell.value or 0.0)


def image_variance(run: RunData, metric: Callable[[RunData], float]) -> float:
    """The variance of a metric that comes of testing on so many images and no more.

    Two tasks of 100 images each, at 0.5 and 0.9 in the end; Last is their mean, so 0.25 * (0.0025 + 0.0009):

    >>> from bench.results import accuracy
    >>> run = RunData("task-incremental", {"task": np.array([[0.8, 0.3], [0.5, 0.9]])}, np.array([100.0, 100.0]))
    >>> round(image_variance(run, lambda run: accuracy.last(run.learned)), 6)
    0.00085
    """
    before = metric(run)
    errors = np.zeros(len(run.n))  # of each task's images
    for candidates, cells in run.matrices.items():
        for task in range(len(run.n)):
            if metric(_with(run, candidates, (slice(None), task), cells[:, task] + STEP * _UNEVEN[: len(cells)])) == before:
                continue  # plays no part: most kinds of candidates, and all other tasks of a number of one task
            for after in range(len(run.n)):
                p = cells[after, task]
                if not isnan(p):
                    weight = (metric(_with(run, candidates, (after, task), p + STEP)) - before) / STEP
                    errors[task] += abs(weight) * sqrt(max(p * (1 - p), 0.0) / run.n[task])
    return float((errors**2).sum())


_UNEVEN = 1 + np.random.default_rng(0).random(1000)  # differences of accuracies do not cancel


def _with(run: RunData, candidates: str, place: tuple, value: float | np.ndarray) -> RunData:
    """The run with other accuracies in one place."""
    changed = run.matrices[candidates].copy()
    changed[place] = value
    return replace(run, matrices={**run.matrices, candidates: changed})


def rounding(percentage: float) -> float:
    """Half a unit of the last digit that is printed, as a fraction.

    >>> rounding(69.4), rounding(85.19), rounding(71.0)
    (0.0005, 5e-05, 0.0005)
    """
    decimals = len(as_printed(percentage).partition(".")[2])
    return round(0.5 * 10.0 ** -(decimals + 2), 12)


# -- as a table -------------------------------------------------------------------------------------------------


def tabulated(
    table: PaperTable, found: Sequence[tuple[Cell, Verdict]], no_verdict: str, remarks: Sequence[str], per_dataset: bool
) -> Table:
    """The verdicts as bench prints a table.

    remarks: what differs between the paper and these runs, besides what the study file says of it.
    """
    shown = [(cell, verdict) for cell, verdict in found if per_dataset or not cell.of_one_dataset]
    head = f"{table.name}: {table.source}"
    if no_verdict:
        head += f"; NO VERDICT ON THE PAPER ({no_verdict})"
    reading = "Percent; here: the mean over runs (seeds and class orders)."
    out = Table(head, reading, HEADER, [], conditions={"table": table.name, "no_verdict": no_verdict}, left=4)
    reasons: dict[str, int] = {}
    for cell, verdict in shown:
        out.rows.append([TableCell(text) for text in _row(cell, verdict, no_verdict, reasons)])
        out.data.append(_data(cell, verdict))
    hidden = len(found) - len(shown)
    out.notes = [f"[{number}] {reason}" for reason, number in reasons.items()]
    out.notes += [_counts(found)]
    out.notes += [f"not shown, but counted: {counted(hidden, 'number')} of single data sets (--per-dataset)"] if hidden else []
    out.notes += [TOLERANCE] if any(verdict.tolerance is not None for _, verdict in found) else []
    out.notes += [f"in the paper: {what}: {said}" for what, said in table.facts.items()]
    out.notes += [f"differs: {said}" for said in (*remarks, *table.differs)]
    return out


def _row(cell: Cell, verdict: Verdict, no_verdict: str, reasons: dict[str, int]) -> list[str]:
    why = verdict.why
    if no_verdict and why == no_verdict:  # the caption says it
        why = "on the paper"
    if len(why) > 40:  # a long reason stands once, below the table
        why = f"[{reasons.setdefault(why, len(reasons) + 1)}]"
    difference = None if verdict.tolerance is None else (verdict.measured or 0.0) - (cell.value or 0.0) / 100
    value = "-" if cell.value is None else as_printed(cell.value) + (f" ± {as_printed(cell.std)}" if cell.std is not None else "")
    joined = " " if verdict.word == DEVIATES or why == "on the paper" else ": "
    return [
        cell.protocol,
        named(cell),
        title(cell.metric),
        verdict.word + (joined + why if why else ""),
        value,
        points(verdict.measured),
        points(difference, signed=True),
        points(verdict.tolerance),
        str(verdict.runs or "-"),
    ]


def _data(cell: Cell, verdict: Verdict) -> dict[str, object]:
    published = None if cell.value is None else cell.value / 100
    return {
        "protocol": cell.protocol,
        "method": cell.method,
        "metric": cell.metric,
        "verdict": verdict.word,
        "why": verdict.why,
        "published": published,
        "published_std": None if cell.std is None else cell.std / 100,
        "measured": verdict.measured,
        "difference": None if verdict.tolerance is None else (verdict.measured or 0.0) - (published or 0.0),
        "tolerance": verdict.tolerance,
        "runs": verdict.runs,
        "run_protocol": cell.key[0] if cell.key else "",
        "run_method": cell.key[1] if cell.key else "",
        "where": cell.where,
        "certainty": cell.certainty,
        "flag": cell.flag,
    }


def _counts(found: Sequence[tuple[Cell, Verdict]]) -> str:
    """How many numbers got which verdict; every one is counted."""
    words = [verdict.word for _, verdict in found]
    named = {REPRODUCED: REPRODUCED, DEVIATES: "deviate", NONE: "without a verdict", NOT_RUN: NOT_RUN, CANNOT: CANNOT}
    parts = [f"{words.count(word)} {name}" for word, name in named.items() if word in words]
    return f"{counted(len(found), 'cell')}: {', '.join(parts)}"
