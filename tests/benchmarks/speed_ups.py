"""Each exact speed-up against what it replaces: the rows of `python -m tests.benchmarks.performance speed-ups`."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.clip import backbone as backbones
from bench.images.dataset import Folders
from bench.learning.evaluation import BATCH, _cell, candidate_sets, evaluate
from bench.runs import launch, plan
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.streams.stream import Stream
from bench.system import registry
from bench.system.randomness import Draws
from methods.closed_form.canonical_correlation import RunningCorrelation
from methods.closed_form.ridge import GramRidge, RecursiveRidge, SampleRidge, one_hot, solve_shifted
from tests.bench.runs import test_exact_speed_ups as ways
from tests.benchmarks import test_prompt_length, test_vaes_together
from tests.benchmarks.frozen_methods import cached_stream
from tests.benchmarks.side_by_side import fastest_of

CPU = torch.device("cpu")
IMAGES = 10  # of every class, for training and for testing, in runs with a speed-up and without
WITHOUT = (
    ("coop", ways.whole_text_tower, "prompts of 77 tokens", "of their own length"),
    ("cgil", ways.generators_one_by_one, "generators one by one", "together"),
    ("zscl", ways.teacher_asked_at_every_step, "teacher asked at every step", "its outputs stored"),
    ("lwf", ways.teacher_asked_at_every_step, "teacher asked at every step", "once about an image"),
    ("finetune", ways.decoded_at_every_step, "images resized at every step", "kept in memory"),
)
Measurement = Callable[[], dict[str, float]]


def measurements(protocol: str, folders: Folders) -> dict[str, Measurement]:
    """What is measured, by its name in the table: each gives seconds before and after, and perhaps more."""
    mini = backbones.load("mini", None, "cpu")
    return {
        "prompts of 60 classes, mini CLIP, forward and backward": lambda: _prompts("mini", None, "mini60"),
        "prompts of 100 classes, ViT-B/16's size, forward and backward": lambda: _prompts("ViT-B-16", "none", "cifar100"),
        "auto-encoders of 20 classes x 500 features x 512, two epochs": lambda: test_vaes_together.measured(CPU, epochs=2),
        "evaluation after 6 of 10 tasks, 100 classes x 100 images": lambda: _evaluation(mini),
        "rail-dual, 200 images more after 3800 of 190 classes": _ridge,
        "ranpac, 100 images more after 900 of 90 classes, 4000 columns": _few_images,
        "rail-primal, 160 images of 10 classes, 6000 columns": _few_of_a_recursion,
        "cca-cl, directions of 160 images of 10 classes, 3000 columns": _few_of_a_correlation,
        f"run of clip-adapter on {protocol}": lambda: _store(protocol, folders),
        **{
            f"run of {method}": lambda method=method, others=others: _run(protocol, folders, method, *others)
            for method, *others in WITHOUT
        },
    }


def row(what: str, found: dict[str, float]) -> list[str]:
    """The first two of what was found are the seconds before and after."""
    (before, slow), (after, fast) = list(found.items())[:2]
    return [what, before, after, f"{slow:.3g}", f"{fast:.3g}", f"{slow / fast:.1f}"]


def _prompts(backbone: str, pretrained: str | None, dataset: str) -> dict[str, float]:
    names = registry.load("dataset", dataset).info.class_names
    rounds = {"at 77 tokens": 1, "at their own length": 2}
    return test_prompt_length.measured(backbones.load(backbone, pretrained, "cpu"), names, rounds)


def _evaluation(backbone: backbones.Backbone) -> dict[str, float]:
    stream = cached_stream(backbone, "cifar100-10x10", 10, 1, 100)
    method_class = registry.load("method", "continual-clip")
    method = method_class(method_class.Settings(), backbone, stream.scenario, Draws("speed", "continual-clip", 0)).eval()
    last = len(stream.tasks) // 2  # half of the tasks are still to come: these have the most candidate sets
    return fastest_of(
        {"each set apart": lambda: _apart(method, stream, last), "one product": lambda: list(evaluate(method, stream, last))}
    )


@torch.inference_mode()
def _apart(method, stream: Stream, last: int) -> None:
    """Every candidate set of every task scored by itself."""
    for task in stream.tasks:
        for name, classes in candidate_sets(stream, last, task.index, method.zero_shot).items():
            logits = torch.cat([method.logits(batch, classes) for batch in task.test.batches(method.inputs, BATCH)])
            _cell(logits.float().cpu(), classes, task.index, name, task.test.labels)


def _ridge() -> dict[str, float]:
    """Kernel ridge regression when ten classes come: all solved anew, and the factor of the earlier ones extended."""
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(4000, 128, generator=generator), dim=-1)
    labels = torch.arange(200).repeat_interleave(20)
    ridge = SampleRidge(128, lambda left, right: torch.exp(-0.1 * torch.cdist(left.double(), right.double()).square()), 1e-3)
    ridge.add(features[:3800], labels[:3800], 190)
    return fastest_of(
        {
            "solved anew": lambda: solve_shifted(ridge.kernel(features, features), ridge.ridge, one_hot(labels, 200)),
            "factor extended": lambda: ridge.add(features[3800:], labels[3800:], 200),
        },
        rounds=1,
    )


def _few_images() -> dict[str, float]:
    """Ridge regression of few samples on many columns when ten classes come: from the sums, and among the samples."""
    generator = torch.Generator().manual_seed(0)
    features, projection = torch.randn(1000, 128, generator=generator), torch.randn(128, 4000, generator=generator)
    labels = torch.arange(100).repeat_interleave(10)

    def expand(x: torch.Tensor) -> torch.Tensor:
        return F.relu(x @ projection)

    earlier = GramRidge(expand)
    earlier.add(features[:900], labels[:900], 90)
    gram, cross = earlier.sums()
    new = expand(features[900:]).double()

    def from_sums() -> None:
        whole, right = gram.addmm(new.T, new), F.pad(cross, (0, 10)).addmm(new.T, one_hot(labels[900:], 100))
        solve_shifted(whole, 100.0, right)

    def among_samples() -> None:
        ridge = copy.deepcopy(earlier)
        ridge.add(features[900:], labels[900:], 100)
        ridge.solve(100.0)

    return fastest_of({"from the sums": from_sums, "among the images": among_samples}, rounds=1)


def _few_of_a_recursion() -> dict[str, float]:
    """The first few samples: the recursion begun with the identity, and their solution among themselves."""
    generator = torch.Generator().manual_seed(0)
    features, projection = torch.randn(160, 128, generator=generator), torch.randn(128, 6000, generator=generator)
    labels = torch.arange(10).repeat_interleave(16)

    def learned(begun: bool) -> None:
        ridge = RecursiveRidge(lambda x: F.relu(x @ projection), 0.1, 1024)
        if begun:
            ridge.inverse = ridge.inverse_so_far(6000)
        ridge.add(features, labels, 10)

    return fastest_of({"from the identity": lambda: learned(True), "among the images": lambda: learned(False)}, rounds=1)


def _few_of_a_correlation() -> dict[str, float]:
    """Canonical directions of few images: from the scatter of all columns, and from the products of the images."""
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(n, 3000, generator=generator, dtype=torch.float64) for n in (160, 10))
    few, whole = RunningCorrelation(3000), RunningCorrelation(3000)
    whole.image_scatter.square = whole.image_scatter.whole()
    for running in (few, whole):
        running.add(images, torch.arange(10).repeat_interleave(16), 10, batch_size=64)

    def solved(running: RunningCorrelation) -> Callable[[], Any]:
        return lambda: running.directions(texts, 1e-4, 1e-6, 0.999, 1e-6, whiten_once=False)

    return fastest_of({"from the scatter": solved(whole), "among the images": solved(few)}, rounds=1)


def _store(protocol: str, folders: Folders) -> dict[str, float]:
    """The same run with nothing in the feature store, and with what that has left there."""
    with tempfile.TemporaryDirectory() as folder:
        apart = Folders(folders.data, folders.cache, Path(folder) / "features")
        _carried_out(protocol, "clip-adapter", folders)()  # images are drawn, modules are imported
        run = _carried_out(protocol, "clip-adapter", apart)
        return fastest_of({"empty store": run, "full store": run}, rounds=1)


def _run(protocol: str, folders: Folders, method: str, change: Callable, before: str, after: str) -> dict[str, float]:
    """A short run without a speed-up and with it, in turn."""
    run = _carried_out(protocol, method, folders, IMAGES)
    run()  # features are stored

    def without() -> None:
        with pytest.MonkeyPatch.context() as patch:
            change(patch, lambda: None)
            run()

    return fastest_of({before: without, after: run}, rounds=2)


def _carried_out(protocol: str, method: str, folders: Folders, limit: int | None = None) -> Callable[[], None]:
    def run() -> None:
        with tempfile.TemporaryDirectory() as out:
            request = Request(
                protocols=(protocol,), methods=(method,), device="cpu", precision="float32",
                limit_train=limit, limit_test=limit, out=Path(out),
            )  # fmt: skip
            with Facts() as facts:
                [one], _ = plan.build(request, facts)
            outcome = launch.carry_out(one, folders)
            if outcome.status != "finished":
                raise AssertionError(outcome.reason)

    return run
