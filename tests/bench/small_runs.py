"""Runs of any registered method on a stream of the mini world that is learned in a second or two: 3 tasks of 3 classes."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from bench.clip import backbone as backbones
from bench.images.dataset import Folders
from bench.runs import assignments, runner
from bench.runs.run import LoadedRun, Run
from bench.streams.protocol import Protocol, TaskPlan
from bench.system import registry

TASKS, CLASSES_PER_TASK = 3, 3
NAME = "small"
LIKE = "mini60-6x10"  # whose recipe the method is run with


def small_run(name: str, out: Path, **changes) -> Run:
    """The method's shortest training (`quick`) on 4 training and 2 test images of every class, in batches of 8."""
    method = registry.load("method", name)
    fields = {field.name for field in dataclasses.fields(method.Settings)}
    smaller = {"batch_size": 8} if "batch_size" in fields else {}  # distillation takes as many reference images
    return Run(
        protocol=NAME,
        protocol_version="1",
        method=name,
        method_version=method.version,
        settings=assignments.identifying(method.settings_for(LIKE, {**method.quick, **smaller, **changes})),
        overrides="",
        backbone="mini",
        pretrained=None,
        weights=backbones.identity("mini", None),
        device="cpu",
        order_seed=0,
        seed=0,
        limit_train=4,
        limit_test=2,
        out=out,
    )


def _protocol(kind) -> Protocol:
    """Classes of several domains; a few exemplars are allowed, so that a memory is part of the state."""

    def tasks(order_seed: int) -> list[TaskPlan]:
        labels = np.arange(60)[::3][: TASKS * CLASSES_PER_TASK].reshape(TASKS, CLASSES_PER_TASK).tolist()
        return [TaskPlan(f"task {t}", "mini60", tuple(row)) for t, row in enumerate(labels)]

    return Protocol(NAME, "1", kind, "the stream of these tests", tasks, fixed_order=True, exemplars_per_class=2)


def loaded(run: Run, kind: str | None = None) -> LoadedRun:
    """What `run.loaded()` would be if the protocol were registered; kind: of the stream [the first one of the method]."""
    method = registry.load("method", run.method)
    return LoadedRun(run, _protocol(kind or method.scenarios[0]), method, assignments.restored(method.Settings, run.settings))


def execute(run: Run, cache: Path, kind: str | None = None) -> None:
    """As `bench run` does it, with the backbone of this process."""
    backbone = backbones.load("mini", None, "cpu")
    runner.execute(loaded(run, kind), backbone, Folders(data=cache / "no-data", cache=cache))


def manifest(run: Run) -> dict:
    return json.loads((run.folder / "manifest.json").read_text())
