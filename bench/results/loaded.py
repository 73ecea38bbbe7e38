"""Everything that finished runs have left: their records in one table, their manifests, and a way to their per-image arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.results import records, samples
from bench.results.samples import SamplesOf


@dataclass(frozen=True)
class Results:
    """Finished runs at or below some paths."""

    table: pd.DataFrame  # their records
    manifests: dict[str, dict[str, Any]]  # run id -> manifest.json; not there for records that came without one
    samples_of: SamplesOf


def load(paths: Iterable[Path]) -> Results:
    """The finished runs at or below the paths."""
    paths = [Path(path) for path in paths]
    table = records.load(paths)
    manifests = records.manifests(file for path in paths for file in records.find(path))
    return Results(table, manifests, samples.of_runs(paths))


def nothing() -> Results:
    """No runs at all."""
    return Results(records.nothing(), {}, lambda run_id: None)
