"""One row a run: its conditions, its seeds, and its metrics. What comparisons, rankings and the gate start from."""

from collections.abc import Sequence

import pandas as pd

from bench.results import groups
from bench.results.conditions import SEEDS
from bench.results.metrics import DEFAULTS, METRICS, find, of_run
from bench.results.records import CONDITIONS
from bench.results.run_data import RunData
from bench.results.samples import SamplesOf


def values(records: pd.DataFrame, names: Sequence[str] | None = None, samples_of: SamplesOf | None = None) -> pd.DataFrame:
    """CONDITIONS, SEEDS, run_id, label, joint, and a column for every metric (fractions; NaN = not available).

    names: metrics (default: those that the tables of a run's scenario show). samples_of: asked only if a metric needs it.
    joint: the run learned all tasks at once. The rows come in the order of the records.
    """
    with_samples = any(find(name).needs == "samples" for name in names or ())
    found: dict[str, tuple[str, RunData]] = {}  # run id -> how its method is called, its data
    for group in groups.comparable(records):
        if samples_of and with_samples:
            group = group.with_samples(samples_of)
        for own in group.with_baselines().methods:
            found |= {run_id: (own.label, run) for run_id, run in zip(own.run_ids, own.runs)}
    runs = records.drop_duplicates("run_id")[[*CONDITIONS, *SEEDS, "run_id"]]
    rows = []
    for facts in runs[runs["run_id"].isin(found)].to_dict("records"):
        label, run = found[facts["run_id"]]
        rows.append({**facts, "label": label, "joint": run.joint, **of_run(run, names or DEFAULTS[run.scenario])})
    table = pd.DataFrame(rows)
    return table.astype({name: float for name in table.columns if name in METRICS})


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
