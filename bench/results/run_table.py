"""One row a run: its conditions, its seeds, and its metrics. What comparisons, rankings and the gate start from."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from bench.results.metrics import DEFAULTS, METRICS, find, of_run
from bench.results.records import CONDITIONS, restrictions
from bench.results.run_data import RunData, matrices_of_runs

SHARED = [c for c in CONDITIONS if c not in ("method", "overrides")]  # runs that differ in one of these never meet
SEEDS = ["order_seed", "seed"]
ZERO_SHOT = "zero-shot"  # the method that all others are read against: first in tables, grey in pictures


def values(
    records: pd.DataFrame,
    names: Sequence[str] | None = None,
    samples_of: Callable[[str], Mapping[str, np.ndarray] | None] | None = None,
) -> pd.DataFrame:
    """CONDITIONS, SEEDS, run_id, label, joint, and a column for every metric (fractions; NaN = not available).

    names: metrics (default: those that the tables of a run's scenario show). samples_of: from a run id to its per-image
    arrays, asked only if a metric needs them. joint: the run learned all tasks at once.
    """
    with_samples = samples_of is not None and any(find(name).needs == "samples" for name in names or ())
    found = matrices_of_runs(records)
    runs = records.drop_duplicates("run_id")[[*CONDITIONS, *SEEDS, "run_id"]]
    runs = runs[runs["run_id"].isin(found)].to_dict("records")
    data = []
    for run in runs:
        arrays = samples_of(run["run_id"]) if samples_of and with_samples else None
        data.append(RunData(run["scenario"], *found[run["run_id"]], arrays or {}))
    zero_shot = _before_learning(runs, data)
    rows = []
    for run, one in zip(runs, data):
        one = RunData(one.scenario, one.matrices, one.n, one.samples, zero_shot.get(_stream(run)))
        facts = {**run, "label": label(run["method"], run["overrides"]), "joint": one.joint}
        rows.append(facts | of_run(one, names or DEFAULTS[one.scenario]))
    table = pd.DataFrame(rows)
    return table.astype({name: float for name in table.columns if name in METRICS})


def label(method: str, overrides: str) -> str:
    """A method as the tables print it.

    >>> label("coop", ""), label("coop", "epochs=3")
    ('coop', 'coop (epochs=3)')
    """
    return f"{method} ({overrides})" if overrides else method


def heading(conditions: Mapping[str, str], also: Sequence[str] = ()) -> str:
    """What the runs of one table have in common, as its caption says it; `also`: further conditions to be said."""
    backbone, weights = conditions["backbone"], conditions["pretrained"]
    parts = [
        f"{conditions['protocol']} (version {conditions['protocol_version']}, {conditions['scenario']})",
        f"backbone {backbone}" + (f" with weights {weights}" if weights != backbone else ""),
        *[f"{name} {conditions[name]}" for name in also],
    ]
    if conditions["limits"] not in ("", "nan"):
        parts.append(restrictions(conditions["limits"]))
    return ", ".join(parts)


def repeated_run(table: pd.DataFrame) -> str | None:
    """A sentence about two rows that only something outside the records tells apart, such as a method's version."""
    twice = table[table.duplicated([*CONDITIONS, *SEEDS], keep=False)]
    if not len(twice):
        return None
    first = twice.iloc[0]
    seeds = f"order seed {first['order_seed']} and seed {first['seed']}"
    same = (twice[[*CONDITIONS, *SEEDS]] == first[[*CONDITIONS, *SEEDS]]).all(axis=1)
    ids = " and ".join(twice.loc[same, "run_id"].iloc[:2])
    return f"{first['label']} on {first['protocol']} has two runs with {seeds} ({ids})"


def _stream(run: Mapping[str, object]) -> tuple:
    """What two runs must share to have met the same tasks."""
    return tuple(run[column] for column in [*SHARED, "order_seed"])


def _before_learning(runs: list[dict], data: list[RunData]) -> dict[tuple, np.ndarray]:
    """Stream -> (T,) zero-shot accuracy on each task just before it is learned; the first one has none."""
    found: dict[tuple, list[np.ndarray]] = {}
    for run, one in zip(runs, data):
        if run["method"] == ZERO_SHOT:
            found.setdefault(_stream(run), []).append(one.before_learning)
    return {stream: np.mean(accuracies, axis=0) for stream, accuracies in found.items()}
