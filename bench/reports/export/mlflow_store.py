"""Runs in an MLflow store, an experiment a protocol: mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db"""

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.reports.export.content import RunContent
from bench.reports.export.ledger import Ledger

RUN_ID, DIGEST = "bench.run_id", "bench.digest"
LARGEST_BATCH = 100  # parameters that MLflow takes at once
LONGEST = 500  # characters of a parameter's value that every version takes
Item = TypeVar("Item")


def write(runs: Sequence[RunContent], folder: Path) -> int:
    """Write what is new or has changed; how many runs that are."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it would tell its makers over the network, which nobody has asked for
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    client = MlflowClient(tracking_uri=f"sqlite:///{(folder / 'mlflow.db').absolute()}")
    ledger, written = Ledger(folder, "mlflow"), 0
    for run in runs:
        experiment = _experiment(client, run.protocol, folder)
        there = client.search_runs([experiment], f"tags.`{RUN_ID}` = '{run.run_id}'")
        if ledger.holds(run) and [one.data.tags.get(DIGEST) for one in there] == [run.digest]:
            continue
        for one in there:  # half of a run, or as it was before it was made again
            client.delete_run(one.info.run_id)
        _write(client, experiment, run)
        ledger.note(run)
        written += 1
    return written


def _experiment(client: Any, name: str, folder: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=(folder / "artifacts").absolute().as_uri())
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _write(client: Any, experiment: str, run: RunContent) -> None:
    from mlflow.entities import Metric, Param

    made = client.create_run(experiment, run_name=run.name, tags={RUN_ID: run.run_id}).info.run_id
    now = int(time.time() * 1000)
    parameters = [Param(name, str(value)[:LONGEST]) for name, value in run.parameters.items()]
    numbers = [Metric(_allowed(name), value, now, 0) for name, value in run.metrics.items()]
    numbers += [Metric(_allowed(name), value, now, step) for name, curve in run.curves.items() for step, value in curve]
    for part in _parts(parameters):
        client.log_batch(made, params=part)
    for batch in _parts(numbers):
        client.log_batch(made, metrics=batch)
    client.set_tag(made, DIGEST, run.digest)
    client.set_terminated(made)


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    yield from (items[start : start + LARGEST_BATCH] for start in range(0, len(items), LARGEST_BATCH))


def _allowed(name: str) -> str:
    """A name with nothing but the signs that MLflow takes.

    >>> _allowed("accuracy/0 sea & sky (day)")
    'accuracy/0 sea _ sky _day_'
    """
    return re.sub(r"[^\w\-. /]", "_", name)
