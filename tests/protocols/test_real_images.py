"""Whole runs on real photographs and digits: read from disk, learned through the mini CLIP, scored, written.

The mini CLIP was pretrained on drawings, so zero-shot accuracy means little here; what is learned must show all the same.
"""

from pathlib import Path

import numpy as np
import pytest

from bench.clip import backbone as backbones
from bench.images.dataset import Folders
from bench.results import metrics, records
from bench.runs import assignments, launch, runner
from bench.runs.run import LoadedRun, Run
from bench.streams import names as protocol_names
from bench.streams.protocol import Protocol, TaskPlan, class_incremental
from bench.system import registry
from protocols.datasets.image_folder import image_folder

IMAGES = Path(__file__).parent / "real-images"


@pytest.fixture(scope="module")
def own_folders(tmp_path_factory) -> Folders:
    """The pictures here are the data folder: MNIST lies in it as it would in a user's."""
    return Folders(IMAGES, tmp_path_factory.mktemp("cache"))


def photographs() -> dict:
    return {dataset.info.name: dataset for dataset in map(image_folder, (IMAGES / "caltech101", IMAGES / "clothing"))}


def cdcl() -> Protocol:
    """Objects in two tasks, then clothes in two tasks, all twelve classes jointly."""
    datasets = photographs()

    def tasks(order_seed: int) -> list[TaskPlan]:
        return [plan for name in datasets for plan in class_incremental(name, [3, 3])(order_seed)]

    return Protocol("real-cdcl", "1", "class-incremental", "objects, then clothes", tasks, datasets=datasets)


def mtil() -> Protocol:
    """Objects, clothes and digits, one task each."""
    datasets = photographs()
    plans = [TaskPlan(name, name, tuple(range(6))) for name in datasets] + [TaskPlan("mnist", "mnist", tuple(range(10)))]
    return Protocol(
        "real-mtil", "1", "task-incremental", "three domains", lambda order_seed: plans, datasets=datasets, fixed_order=True
    )


def run(protocol: Protocol, method_name: str, folders: Folders, out: Path) -> Run:
    """One finished run; hyper-parameters are those for the mini CLIP."""
    method = registry.load("method", method_name)
    settings = method.settings_for("mini60-6x10", {})
    planned = Run(
        protocol=protocol.name,
        protocol_version=protocol.version,
        method=method_name,
        method_version=method.version,
        settings=assignments.identifying(settings),
        overrides="",
        backbone="mini",
        pretrained=None,
        weights=backbones.identity("mini", None),
        device="cpu",
        order_seed=0,
        seed=0,
        limit_train=None,
        limit_test=None,
        out=out,
    )
    with launch.limited_threads(1):
        backbone = backbones.load("mini", None, "cpu")
        assert runner.execute(LoadedRun(planned, protocol, method, settings), backbone, folders) == "finished"
    return planned


def clearly_above_chance(classes: int, images: int) -> float:
    """The accuracy that guessing reaches less than once in a hundred times: chance and 2.5 standard deviations."""
    chance = 1 / classes
    return chance + 2.5 * (chance * (1 - chance) / images) ** 0.5


def cells(table) -> set[tuple[int, int, str]]:
    return set(zip(table["after_task"], table["eval_task"], table["candidates"]))


@pytest.mark.parametrize("method_name", ["zero-shot", pytest.param("cgil", marks=pytest.mark.thorough)])
def test_objects_then_clothes_with_all_classes_jointly(own_folders, tmp_path, method_name):
    finished = run(cdcl(), method_name, own_folders, tmp_path)
    table = records.read_csv(finished.folder / "records.csv")
    steps = range(4)
    learned = {(after, task, names) for after in steps for task in range(after + 1) for names in ("seen", "task")}
    unlearned = {(after, task, names) for after in steps for task in range(after + 1, 4) for names in ("all", "future", "task")}
    assert cells(table) == learned | unlearned
    assert (table["n"] == 18).all()
    manifest = records.read_manifest(finished.folder)
    assert [task["train_images"] for task in manifest["tasks"]] == [36] * 4
    if method_name != "zero-shot":
        assert metrics.compute(table, names=["last"])["last"] > clearly_above_chance(12, 72)


@pytest.mark.parametrize("method_name", ["zero-shot", "coop"])
def test_objects_clothes_and_digits_one_task_each(own_folders, tmp_path, method_name):
    finished = run(mtil(), method_name, own_folders, tmp_path)
    table = records.read_csv(finished.folder / "records.csv")
    assert cells(table) == {(after, task, "task") for after in range(3) for task in range(3)}
    assert table.groupby("eval_task")["n"].unique().map(list).to_dict() == {0: [36], 1: [36], 2: [60]}
    manifest = records.read_manifest(finished.folder)
    assert manifest["tasks"][2]["classes"][:2] == ["0 - zero", "1 - one"]
    assert [task["train_images"] for task in manifest["tasks"]] == [72, 72, 120]
    if method_name != "zero-shot":
        own = table[table["after_task"] == 2].set_index("eval_task")["value"]
        for task, (classes, images) in enumerate([(6, 36), (6, 36), (10, 60)]):
            assert own[task] > clearly_above_chance(classes, images), task


def test_a_folder_named_on_the_command_line(own_folders, tmp_path):
    protocol = protocol_names.find(f"folder:{IMAGES / 'clothing'}-3x2")
    finished = run(protocol, "linear-probe", own_folders, tmp_path)
    table = records.read_csv(finished.folder / "records.csv")
    assert cells(table) == {(2, task, names) for task in range(3) for names in ("seen", "task")}  # it learns all at once
    names = [name for task in records.read_manifest(finished.folder)["tasks"] for name in task["classes"]]
    assert sorted(names) == ["dress", "hat", "pants", "shoes", "shorts", "t shirt"]
    assert metrics.compute(table, names=["last"])["last"] > clearly_above_chance(6, 36)


def test_two_runs_on_the_same_files_give_the_same_numbers(own_folders, tmp_path):
    files = []
    for place, cache in (("a", own_folders.cache), ("b", tmp_path / "another")):
        finished = run(cdcl(), "coop", Folders(IMAGES, cache), tmp_path / place)
        files.append([(finished.folder / name).read_bytes() for name in ("records.csv", "samples.safetensors")])
    assert files[0] == files[1]


def test_the_pictures_are_small_and_their_licences_are_told():
    files = [path for path in IMAGES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    read_me = (IMAGES / "README.md").read_text()
    for folder in (path.name for path in IMAGES.iterdir() if path.is_dir()):
        assert f"`{folder}/`" in read_me
    assert all(licence in read_me for licence in ("CC BY 4.0", "CC0 1.0", "CC BY-SA 3.0"))


def test_photographs_are_read_as_they_lie_on_disk(own_folders):
    source = image_folder(IMAGES / "caltech101").open_split("train", own_folders)
    shapes = {image.shape for image in source.read(np.arange(len(source)))}
    assert len(shapes) > 5 and all(max(shape[:2]) <= 64 for shape in shapes)
    digits = registry.load("dataset", "mnist").open_split("test", own_folders)
    assert np.bincount(digits.labels).tolist() == [6] * 10
