"""The memory that a run needs is known before it starts: sums against measured peaks, and warnings for what cannot fit."""

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench.clip import backbone as backbones
from bench.clip import mini
from bench.clip.tower_sizes import tower_sizes
from bench.commands.main import main
from bench.images.dataset import Dataset, DatasetInfo
from bench.runs import memory_needs, memory_sums, run_sizes
from bench.runs.memory_needs import Machine
from bench.runs.memory_terms import Scale
from bench.streams import names
from bench.streams.protocol import Protocol, TaskPlan
from bench.system import registry
from tests.bench.launched import runs_of

MEASURED = Path(__file__).parents[2] / "benchmarks" / "measured" / "pixel_methods_cpu.csv"
GB = 10**9


def scale(method: str, backbone: str = "ViT-B-16", protocol: str = "cifar100-10x10", **changes) -> Scale:
    settings = registry.load("method", method).settings_for(protocol)
    facts = dict(
        classes=20, tasks=2, train=4, largest=2, largest_classes=10, test=0, exemplars=40, towers=tower_sizes(backbone),
        settings=dataclasses.asdict(settings),
    )  # fmt: skip
    return Scale(**facts | changes)


def measured() -> dict[str, float]:
    """Method -> bytes that training of two images at a time has added to those of the process with CLIP in it."""
    with open(MEASURED, newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["method"]: 1e6 * (float(row["peak memory (MB)"]) - float(row["before training (MB)"])) for row in rows}


@pytest.mark.parametrize("method", measured())
def test_sums_are_what_was_measured(method):
    """Within a third, but for what they leave out: prompts, heads, and what libraries hold, some 200 MB."""
    at_two = scale(method)
    at_two = dataclasses.replace(at_two, settings={**at_two.settings, "batch_size": 2, "accumulate": 1})
    wanted = sum(term.bytes for term in memory_sums.terms_of(method, at_two) if term.what != "CLIP's weights")
    assert measured()[method] * 0.67 - 2e8 < wanted < measured()[method] * 1.34 + 2e8, (wanted / 1e6, measured()[method] / 1e6)


def test_every_built_in_method_has_a_sum_and_names_settings_that_exist():
    methods, broken = registry.load_all("method")
    assert not broken and memory_sums.SUMS.keys() == methods.keys()
    named = set(re.findall(r'(?:setting|_ridge)\("(\w+)"', Path(memory_sums.__file__).read_text()))
    known = {field.name for method in methods.values() for field in dataclasses.fields(method.Settings)}
    assert len(named) > 8 and named <= known


@pytest.mark.parametrize("backbone", ["mini", "ViT-B-32"])
def test_towers_have_the_parameters_that_are_counted(backbone):
    assert tower_sizes("mini").width == mini.CONFIG["embed_dim"]
    clip = backbones.load(backbone, None if backbone == "mini" else "none", "cpu").clip
    image = sum(weights.numel() for weights in clip.visual.parameters())
    whole = sum(weights.numel() for weights in clip.parameters())
    sizes = tower_sizes(backbone)
    assert sizes.parameters == pytest.approx(whole, rel=0.01) and sizes.image_parameters == pytest.approx(image, rel=0.1)


def huge(monkeypatch, classes: int = 20_000, images: int | None = 10**8) -> None:
    """A stream of 100 tasks whose data set says that it is huge. It has no image: opening one would fail."""

    def no_images(split, folders):
        raise AssertionError("an image was asked for")

    info = DatasetInfo(
        "huge", "1", tuple(f"class {k}" for k in range(classes)), ("a photo of a {}.",), "nothing", "nowhere",
        train_images=images, test_images=classes * 50,
    )  # fmt: skip
    tasks = [TaskPlan(f"task {t}", "huge", tuple(part)) for t, part in enumerate(np.arange(classes).reshape(100, -1).tolist())]
    protocol = Protocol(
        "huge", "1", "class-incremental", "a huge stream", lambda order: tasks, fixed_order=True,
        datasets={"huge": Dataset(info, no_images)},
    )  # fmt: skip
    find = names.find
    monkeypatch.setattr(names, "find", lambda name: protocol if name == "huge" else find(name))


def run_on_huge(method, out, **changes):
    [run] = runs_of([method], out, ["mini60-6x10"], backbone="mini")
    settings = dataclasses.asdict(registry.load("method", method).settings_for("huge"))
    return dataclasses.replace(
        run, protocol="huge", given="huge", backbone="ViT-B-16", settings=settings, limit_train=None, limit_test=None, **changes
    )


@pytest.mark.parametrize(
    ("method", "part", "remedy"),
    [
        ("rail-dual", "the kernel matrix of all training images (n x n)", "--limit-train"),
        ("joint-prompts", "embeddings of all training images", "--limit-train"),
        ("slca", "a covariance of every class", "a smaller backbone"),
    ],
)
def test_a_run_that_cannot_fit_has_one_line(method, part, remedy, tmp_path, monkeypatch):
    huge(monkeypatch)
    run = run_on_huge(method, tmp_path)
    [line] = memory_needs.warnings([run], {run.run_id}, Machine(memory=2 * GB))
    assert line.startswith(f"warning: huge {method} cannot fit: it needs about ") and "and 2.0 GB are free" in line
    assert part in line and remedy in line and "\n" not in line
    assert memory_needs.warnings([run], set(), Machine(memory=2 * GB)) == []  # nothing is to be done


def test_the_largest_part_says_what_to_do(tmp_path, monkeypatch):
    huge(monkeypatch)
    [kernel] = memory_needs.warnings([run := run_on_huge("rail-dual", tmp_path)], {run.run_id}, Machine(memory=256 * GB))
    assert re.search(r"needs about 80\.\d PB of memory", kernel) and "--limit-train keeps fewer images" in kernel
    [gpu] = memory_needs.warnings(
        [run := run_on_huge("slca", tmp_path, device="cuda")], {run.run_id}, Machine(memory=1000 * GB, device=24 * GB)
    )
    assert "of GPU memory" in gpu and "a covariance of every class" in gpu
    assert not memory_needs.warnings([run], {run.run_id}, Machine(memory=1000 * GB, device=80 * GB))


def test_what_is_not_known_is_said(tmp_path, monkeypatch):
    huge(monkeypatch, images=None)
    run_sizes._images.cache_clear()
    run = run_on_huge("rail-dual", tmp_path)
    [line] = memory_needs.warnings([run], {run.run_id}, Machine(memory=2 * GB))
    assert line == "note: whether rail-dual can fit into memory is unknown: huge does not say how many images it has"
    huge(monkeypatch)
    run_sizes._images.cache_clear()
    plug_in = dataclasses.replace(run_on_huge("rail-dual", tmp_path), method="mine", method_from="mine.py:Mine")
    [line] = memory_needs.warnings([plug_in], {plug_in.run_id}, Machine(memory=2 * GB))
    assert "mine can fit into memory is unknown" in line


def test_embeddings_that_the_disk_has_no_room_for(tmp_path, monkeypatch):
    huge(monkeypatch)
    monkeypatch.setattr(memory_needs, "free_space", lambda folder: (folder, 100 * GB))
    [line] = memory_needs.embeddings_on_disk([run_on_huge("simplecil", tmp_path)], tmp_path)
    assert "cannot hold the embeddings of all images: about 206.8 GB are wanted, 100.0 GB are free" in line
    assert memory_needs.embeddings_on_disk([run_on_huge("finetune", tmp_path)], tmp_path) == []


def test_small_runs_are_not_warned_of(tmp_path):
    runs = runs_of(["all"], tmp_path)
    assert len(runs) > 50
    assert memory_needs.warnings(runs, {run.run_id for run in runs}, Machine(memory=4 * GB)) == []


def test_a_dry_run_says_it(tmp_path, monkeypatch):
    assert torch  # here already, so that a plan asks no other process
    monkeypatch.setattr(memory_needs, "available_memory", lambda: 10**6)
    words = ["run", "--protocol", "mini60-6x10", "--methods", "finetune", "--dry-run", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*words, "--cache-dir", str(tmp_path / "cache")])
    assert done.exit_code == 0
    assert "warning: mini60-6x10 finetune cannot fit: it needs about" in done.output
