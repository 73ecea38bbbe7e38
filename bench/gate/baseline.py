"""The stored side of the regression gate: a tidy CSV with a row per method and metric, and how results become one."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from io import StringIO
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

import numpy as np
import pandas as pd

from bench.errors import NO_CSV, BenchError, reading, unknown_name
from bench.results import run_facts
from bench.results.metrics import METRICS
from bench.results.records import CONDITIONS

COLUMNS = {
    **dict.fromkeys(CONDITIONS, "as in records.csv"),
    "metric": "name of the metric (bench list metrics)",
    "mean": "over the runs, as a fraction",
    "std": "sample standard deviation over the runs, as a fraction; empty for one run",
    "n": "number of runs in which the metric is available",
    "runs": "all runs of the method: order seed/seed, separated by spaces; may be left out",
    "weights": "of the backbone: first 8 hex digits of the file's digest, or architecture and tag; may be left out",
    "images": "first 8 hex digits of a digest of the stream's images; may be left out",
    "settings": "method version and all hyper-parameters, name=value joined by ';'; may be left out",
    "code": "first 8 hex digits of a digest of the method's source; may be left out",
    "versions": "of Python and libraries, name=version joined by ';'; may be left out",
}
OPTIONAL = ("runs", "weights", "images", "settings", "code", "versions")


class Row(Protocol):
    """A row of a baseline as itertuples gives it: one metric of one method, and what COLUMNS says of it."""

    protocol: str
    method: str
    overrides: str
    metric: str
    mean: float
    std: float
    n: int
    runs: str
    images: str
    settings: str
    code: str


def summarise(
    runs: pd.DataFrame, metrics_of: Callable[[Mapping[str, str]], Sequence[str]], manifests: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Rows of bench.results.run_table.values as a baseline: what is not available has no row.

    metrics_of: from the conditions of a method's runs to the metrics wanted of it. manifests: by run id.
    """
    rows = []
    for found, own in runs.groupby(CONDITIONS):
        conditions = dict(zip(CONDITIONS, found))
        seeds = " ".join(f"{order}/{seed}" for order, seed in sorted(zip(own["order_seed"], own["seed"])))
        own_manifests = [manifests[run_id] for run_id in own["run_id"] if run_id in manifests]
        facts = {
            "runs": seeds,
            "weights": " ".join(sorted({run_facts.weights(manifest) for manifest in own_manifests})),
            "images": " ".join(sorted({found for manifest in own_manifests if (found := run_facts.images(manifest))})),
            "settings": joined(run_facts.settings_and_version(own_manifests[0]) if own_manifests else {}),
            "code": " ".join(sorted({found for manifest in own_manifests if (found := run_facts.code(manifest))})),
            "versions": joined(run_facts.versions(own_manifests)),
        }
        for metric in metrics_of(conditions):
            known = own[metric].dropna().tolist()
            if known:
                std = stdev(known) if len(known) > 1 else np.nan
                numbers = {"metric": metric, "mean": fmean(known), "std": std, "n": len(known)}
                rows.append({**conditions, **numbers, **facts})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def joined(facts: Mapping[str, str]) -> str:
    """Facts as a cell holds them; a value may hold neither line ends nor semicolons there.

    >>> joined({"epochs": "3", "words": "a;b"}), separated("epochs=3;words=a,b")
    ('epochs=3;words=a,b', {'epochs': '3', 'words': 'a,b'})
    """
    return ";".join(f"{name}={' '.join(value.split()).replace(';', ',')}" for name, value in facts.items())


def separated(cell: str) -> dict[str, str]:
    """The facts of a cell."""
    pairs = (part.partition("=") for part in cell.split(";") if part)
    return {name: value for name, _, value in pairs}


def to_csv(baseline: pd.DataFrame) -> str:
    return baseline.to_csv(index=False, lineterminator="\n")


def locate(name: Path) -> Path:
    """The file of that name, or the baseline of that name that ships with the package.

    >>> locate(Path("mini60-6x10-small")).name
    'mini60-6x10-small.csv'
    """
    shipped = Path(str(files("bench.shipped"))) / "baselines" / f"{name}.csv"
    return shipped if not name.exists() and name.parent == Path() and shipped.exists() else name


def read(path: Path) -> pd.DataFrame:
    """A stored baseline, validated."""
    with reading(path):
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BenchError(f"{path}: no such baseline; bench gate with --update writes one") from None
    with reading(path, NO_CSV, (ValueError,)):
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    table = table.assign(**{column: "" for column in OPTIONAL if column not in table.columns})
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise BenchError(f"{path}: not a baseline, column {missing[0]!r} is missing (bench gate with --update writes one)")
    if not len(table):
        raise BenchError(f"{path}: holds no rows; bench gate with --update writes them")
    for metric in table["metric"]:
        if metric not in METRICS:
            raise BenchError(f"{path}: {unknown_name('metric', metric, METRICS)}")
    for column in ("mean", "std", "n"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = table[column][~np.isfinite(numbers) & ~((column == "std") & (table[column] == ""))]
        if len(bad):
            raise BenchError(f"{path}: column {column!r} holds {bad.iloc[0]!r}, which is not a number")
        table[column] = numbers
    if (table["n"] < 1).any() or (table["std"] < 0).any():
        raise BenchError(f"{path}: column 'n' must be 1 or larger, column 'std' not negative")
    repeated = table[table.duplicated([*CONDITIONS, "metric"])]
    if len(repeated):
        raise BenchError(f"{path}: {repeated.iloc[0]['method']} has two rows for {repeated.iloc[0]['metric']}; keep one")
    return table
