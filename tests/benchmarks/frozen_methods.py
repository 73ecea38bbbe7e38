"""How long methods on cached features take with text prompts of ViT-B/16's size: 100 classes with 50 features each.

    python -m tests.benchmarks.frozen_methods --out frozen.md                # estimated from the first steps of every loop
    python -m tests.benchmarks.frozen_methods --whole --methods simplecil    # every step made
    python -m tests.benchmarks.frozen_methods --protocol cifar100-1x100 --tasks 1 --whole    # all 100 classes as one task

The stream is that of a class-incremental protocol (class names, templates, exemplars, each method's own recipe), with random
features around a centre of each class in the place of its images. Towers have random weights, which changes no shape and so
no time. Training loops are cut after `--steps` steps unless `--whole` is given; the column "basis" says which it was.
"""

import argparse
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone
from bench.images.dataset import ImageSource
from bench.learning.evaluation import evaluate
from bench.streams import names
from bench.streams.stream import Split, Stream, Task
from bench.system import registry
from bench.system.randomness import Draws, stable_seed
from tests.benchmarks.measuring import MEASURED, first_steps_only, show_table, write_table

METHODS = ("simplecil", "ranpac", "rail-primal", "rail-dual", "clip-adapter", "clap", "coop", "cgil")
NORM = 10.0  # of CLIP's raw embeddings, about


class CachedFeatures:
    """Stands in for a warm feature store: unit-variance noise around a centre of each class."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self.stored: dict[tuple, np.ndarray] = {}

    def features(self, source: ImageSource, view: str = "plain", layer: str = "projected") -> np.ndarray:
        key = (source.digest, view, layer)
        if key not in self.stored:
            width = self.backbone.embedding_width if layer == "projected" else self.backbone.pooled_width
            centres = np.random.default_rng(stable_seed("centres", layer)).normal(size=(source.labels.max() + 1, width))
            raw = centres[source.labels] + np.random.default_rng(stable_seed(*key)).normal(size=(len(source), width))
            self.stored[key] = (NORM * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
        return self.stored[key]


def cached_stream(backbone: Backbone, protocol_name: str, n_tasks: int, train: int, test: int) -> Stream:
    """The first tasks of a protocol, with so many features of every class and no image."""
    protocol = names.find(protocol_name)
    scenario, store = protocol.scenario(0), CachedFeatures(backbone)
    n = sum(owner < n_tasks for owner in scenario.task_of_class)
    info = protocol.dataset(protocol.tasks(0)[0].dataset).info
    scenario = replace(
        scenario,
        class_names=scenario.class_names[:n],
        templates=scenario.templates[:n],
        task_of_class=scenario.task_of_class[:n],
        # as for a copy of the data set with so few images: generative replay is as short in proportion
        train_fraction=min(1.0, train * len(info.class_names) / info.train_images) if info.train_images else 1.0,
    )

    def split(kind: str, classes: tuple[int, ...], per_class: int) -> Split:
        def no_images(rows: np.ndarray):
            raise AssertionError("a method on cached features has asked for pixels")

        labels = np.repeat(classes, per_class)
        source = ImageSource(labels, no_images, f"{kind} {classes} {per_class}")
        return Split([(source, np.arange(len(labels)))], torch.from_numpy(labels), store)

    tasks = []
    for index, plan in enumerate(protocol.tasks(0)[:n_tasks]):
        classes = tuple(c for c in range(n) if scenario.task_of_class[c] == index)
        tasks.append(Task(index, plan.name, classes, split("train", classes, train), split("test", classes, test)))
    return Stream(scenario, tuple(tasks))


@dataclass(frozen=True)
class Timing:
    """One method over a stream. Seconds of every task; those of steps that were left out are estimated."""

    method: str
    preparing: float
    learning: list[float]
    scoring: list[float]
    steps: int  # of all training loops
    steps_made: int
    wall: float  # of the measurement itself

    @property
    def total(self) -> float:
        return self.preparing + sum(self.learning) + sum(self.scoring)

    def row(self) -> dict[str, str]:
        if self.steps_made == self.steps:
            basis = f"all {self.steps} steps made" if self.steps else "no steps: closed form or means"
        else:
            basis = f"estimated from {self.steps_made} of {self.steps} steps"
        return {
            "method": self.method,
            "total (s)": f"{self.total:.1f}",
            "preparing (s)": f"{self.preparing:.1f}",
            "learning (s)": f"{sum(self.learning):.1f}",
            "scoring (s)": f"{sum(self.scoring):.1f}",
            "learning each task (s)": " ".join(f"{seconds:.3g}" for seconds in self.learning),
            "basis": basis,
            "measured for (s)": f"{self.wall:.1f}",
        }


def measure(
    name: str,
    backbone: Backbone,
    stream: Stream,
    protocol_name: str,
    steps: int | None,
    scored: Collection[int] | None = None,
    changes: dict[str, Any] | None = None,
) -> Timing:
    """Learn every task once, and score after each (or after those of `scored` alone; 0 seconds stand for the others).

    After `steps` steps every training loop ends (None: none is cut short). changes: of the method's recipe.
    """
    method_class = registry.load("method", name)
    began = time.perf_counter()
    method = method_class(
        method_class.settings_for(protocol_name, changes), backbone, stream.scenario, Draws(protocol_name, name, 0)
    ).eval()
    preparing = time.perf_counter() - began
    learning, scoring, total, made = [], [], 0, 0
    passes = backbone.image_passes
    with first_steps_only(steps) as phases:
        for task in [stream.joined()] if method.joint else stream.tasks:
            started, before = time.perf_counter(), len(phases)
            method.train()
            method.grow(task)
            method.learn(task.for_training())  # tests stay sealed, as in a run
            method.eval()
            learned = time.perf_counter()
            if scored is None or task.index in scored:
                for _ in evaluate(method, stream, task.index):
                    pass
            scoring.append(time.perf_counter() - learned)
            new = phases[before:]
            learning.append(learned - started + sum(phase.seconds_missing for phase in new))
            total += sum(phase.total for phase in new)
            made += sum(len(phase.seconds) for phase in new)
    if backbone.image_passes != passes:
        raise AssertionError(f"{name} has used the image encoder")
    return Timing(name, preparing, learning, scoring, total, made, time.perf_counter() - began)


def main(arguments: list[str] | None = None) -> list[Timing]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="names, separated by commas")
    parser.add_argument("--protocol", default="cifar100-10x10")
    parser.add_argument("--tasks", type=int, default=10, help="the protocol's first so many tasks")
    parser.add_argument("--train", type=int, default=50, help="training features of every class")
    parser.add_argument("--test", type=int, default=10, help="test features of every class")
    parser.add_argument("--backbone", default="ViT-B-16", help="an open_clip architecture, or mini")
    parser.add_argument("--steps", type=int, default=4, help="steps of every training loop that are made")
    parser.add_argument("--whole", action="store_true", help="make all steps")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, help="file for the table: .csv or .md")
    parser.add_argument("--show", metavar="NAME", help="print a table of tests/benchmarks/measured and measure nothing")
    chosen = parser.parse_args(arguments)
    if chosen.show:
        show_table(MEASURED / f"{chosen.show}.csv")
        return []
    if chosen.steps < 1:
        parser.error("--steps: at least 1 is needed")

    threads_before = torch.get_num_threads()
    torch.set_num_threads(chosen.threads)
    timings = []
    try:
        with threadpool_limits(chosen.threads):
            backbone = backbones.load(chosen.backbone, None if chosen.backbone == "mini" else "none", "cpu")
            stream = cached_stream(backbone, chosen.protocol, chosen.tasks, chosen.train, chosen.test)
            for name in chosen.methods.split(","):
                timings.append(measure(name, backbone, stream, chosen.protocol, None if chosen.whole else chosen.steps))
                print(f"{name}: {timings[-1].total:.1f} s in all, {timings[-1].row()['basis']}", flush=True)
    finally:
        torch.set_num_threads(threads_before)
    classes = len(stream.scenario.class_names)
    heading = (
        f"{chosen.protocol}: {classes} classes x {chosen.train} cached features in {chosen.tasks} tasks, {chosen.test} test "
        f"features a class, {chosen.backbone} with random weights, {chosen.threads} CPU threads"
    )
    write_table([timing.row() for timing in timings], chosen.out, heading)
    return timings


if __name__ == "__main__":
    main()
