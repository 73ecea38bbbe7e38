"""What is handed on of a run, whatever the tool: what it was run with, its metrics and costs, and its curves."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.reports.costs import COSTS
from bench.results import accuracy, loaded, training_log
from bench.results.conditions import SEEDS
from bench.results.groups import comparable
from bench.results.metrics import of_run
from bench.results.records import CONDITIONS, find
from bench.results.run_data import RunData
from bench.results.run_folder import LOG
from bench.system.digests import of_plain_data

OF_IDENTITY = ("method_version", "weights", "device", "precision", "accelerate")
LEARNED = "accuracy/learned so far"
Value = str | int | float | bool
Curve = list[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class RunContent:
    """One run. Every value is plain, so that any tool takes it."""

    run_id: str
    protocol: str
    method: str
    name: str  # how a person tells it from its siblings
    parameters: dict[str, Value]  # conditions, seeds, and setting.NAME for every hyper-parameter
    metrics: dict[str, float]  # fractions, and cost/... in the units of the cost table; those that are available
    curves: dict[str, Curve]  # accuracy/...: the step is the task that was learned last; loss/...: rows of the log
    losses: list[dict[str, Value]]  # the rows of the log

    @property
    def digest(self) -> str:
        """Another one as soon as anything that is handed on differs."""
        return of_plain_data(asdict(self))


def collect(paths: Iterable[Path]) -> list[RunContent]:
    """Every finished run at or below the paths, in the order of the records."""
    paths = list(paths)
    results = loaded.load(paths)
    folders = {file.parent.name: file.parent for path in paths for file in find(path)}
    found = []
    for group in comparable(results.table):
        for own in group.with_samples(results.samples_of).with_baselines().methods:
            for facts, run in zip(own.table.to_dict("records"), own.runs):
                manifest = results.manifests.get(facts["run_id"], {})
                losses = _losses(folders[facts["run_id"]] / LOG) if facts["run_id"] in folders else []
                found.append(_content(facts, run, group.tasks, manifest, losses))
    return found


def _content(
    facts: Mapping[Any, Any], run: RunData, tasks: list[str], manifest: Mapping[str, Any], losses: list[dict[str, Value]]
) -> RunContent:
    label = f"{facts['method']} ({facts['overrides']})" if facts["overrides"] else str(facts["method"])
    return RunContent(
        run_id=facts["run_id"],
        protocol=facts["protocol"],
        method=facts["method"],
        name=f"{label} order {facts['order_seed']} seed {facts['seed']}",
        parameters=_parameters(facts, manifest),
        metrics={name: value for name, value in of_run(run).items() if value is not None} | _costs(manifest),
        curves=_accuracies(run, tasks) | _loss_curves(losses),
        losses=losses,
    )


def _parameters(facts: Mapping[Any, Any], manifest: Mapping[str, Any]) -> dict[str, Value]:
    identity = manifest.get("identity", {})
    found: dict[str, Value] = {name: str(facts[name]) for name in CONDITIONS}
    found |= {name: int(facts[name]) for name in SEEDS}
    found |= {name: str(identity[name]) for name in OF_IDENTITY if name in identity}
    for name, value in identity.get("settings", {}).items():
        found[f"setting.{name}"] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def _costs(manifest: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for heading, number in COSTS.items():
        try:
            found[f"cost/{re.sub(r'[^a-z0-9]+', '_', heading.lower()).strip('_')}"] = float(number(manifest["cost"]))
        except (KeyError, TypeError):  # an earlier version, or a plug-in, does not say it
            continue
    return found


def _accuracies(run: RunData, tasks: list[str]) -> dict[str, Curve]:
    """After every task: on the tasks learned so far, and on each task, learned or not, as the scenario scores it."""
    curves = {LEARNED: _known(accuracy.after_each_task(run.learned))}
    matrix = run.learned_and_future
    return curves | {f"accuracy/{place} {name}": _known(matrix[:, place]) for place, name in enumerate(tasks)}


def _known(values: np.ndarray) -> Curve:
    return [(step, float(value)) for step, value in enumerate(values) if not np.isnan(value)]


def _loss_curves(losses: list[dict[str, Value]]) -> dict[str, Curve]:
    """Of every phase over the whole stream, one step a row: epochs and steps of the log begin anew with each task."""
    curves: dict[str, Curve] = {}
    for row in losses:
        own = curves.setdefault(f"loss/{row['phase'] or 'training'}", [])
        own.append((len(own) + 1, float(row["loss"])))
    return curves


def _losses(path: Path) -> list[dict[str, Value]]:
    """The rows of a run's log as plain values: an epoch that there is not is an empty text."""
    return [{name: "" if value is None else value for name, value in asdict(row).items()} for row in training_log.read(path)]
