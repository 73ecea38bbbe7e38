"""EuroSAT under MTIL's random split and CoOp's split file."""

import json

import numpy as np
import pytest
import torch

from bench.errors import BenchError
from bench.system import registry
from protocols.datasets.eurosat import CLASSES, SPLIT_FILE
from protocols.datasets.splits import random_split
from tests.protocols.datasets.miniatures import check_data_set, write_picture

PER_CLASS = 12
COOP_NAMES = registry.load("dataset", "eurosat-coop").info.class_names


def write_tiles(folder) -> None:
    for label, name in enumerate(CLASSES):
        for number in range(1, PER_CLASS + 1):
            write_picture(folder / "2750" / name / f"{name}_{number}.jpg", label, number, size=(16, 16))


def write_split(folder) -> dict:
    """CoOp's file: half, a fifth and the rest of each class, grouped by class."""
    parts = {"train": range(1, 7), "val": range(7, 9), "test": range(9, 13)}
    split = {
        part: [[f"{name}/{name}_{k}.jpg", label, COOP_NAMES[label]] for label, name in enumerate(CLASSES) for k in numbers]
        for part, numbers in parts.items()
    }
    (folder / SPLIT_FILE).write_text(json.dumps(split))
    return split


def test_the_random_split_is_zscls(folders):
    """torch's own random_split over the images in the order of torchvision's ImageFolder."""
    write_tiles(folders.data / "eurosat")
    check_data_set("eurosat", folders, train=96, test=24)
    in_order = [f"2750/{name}/{file}" for name in CLASSES for file in sorted(f"{name}_{k}.jpg" for k in range(1, PER_CLASS + 1))]
    assert in_order[1] == "2750/AnnualCrop/AnnualCrop_10.jpg"
    generator = torch.Generator().manual_seed(42)
    expected = torch.utils.data.random_split(in_order, [96, 24], generator=generator)
    for split, subset in zip(("train", "test"), expected):
        source = registry.load("dataset", "eurosat").open_split(split, folders)
        assert source.paths.tolist() == [in_order[k] for k in subset.indices]


def test_the_random_split_of_all_27000_is_pinned():
    """The first rows as torch 2.15 draws them: a version that drew others would change the split, and be noticed here."""
    rows = random_split(27_000)
    assert (len(rows["train"]), len(rows["test"])) == (21_600, 5_400)
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(27_000))
    assert rows["train"][:6].tolist() == [4542, 1781, 1366, 19963, 16858, 17590]


def test_coops_split_file_decides(folders):
    write_tiles(folders.data / "eurosat")
    split = write_split(folders.data / "eurosat")
    check_data_set("eurosat-coop", folders, train=60, test=40)
    source = registry.load("dataset", "eurosat-coop").open_split("test", folders)
    assert source.paths.tolist() == [f"2750/{path}" for path, _, _ in split["test"]]
    assert COOP_NAMES[0] == "Annual Crop Land" and COOP_NAMES[9] == "Sea or Lake"


def test_the_split_file_alone_is_missing(folders):
    write_tiles(folders.data / "eurosat")
    with pytest.raises(BenchError, match=rf"eurosat-coop is not in .*eurosat \(missing: {SPLIT_FILE}\)"):
        registry.load("dataset", "eurosat-coop").open_split("test", folders)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: split["test"][3].__setitem__(1, 10), "label 10 of AnnualCrop/AnnualCrop_12.jpg is out of range 0..9"),
        (lambda split: split["test"][3].__setitem__(1, 4), "AnnualCrop_12.jpg has label 4, which is that of Industrial"),
        (lambda split: split.pop("test"), "the file is damaged .*test"),
    ],
)
def test_a_wrong_split_file_is_named(folders, change, message):
    write_tiles(folders.data / "eurosat")
    split = write_split(folders.data / "eurosat")
    change(split)
    path = folders.data / "eurosat" / SPLIT_FILE
    path.write_text(json.dumps(split))
    with pytest.raises(BenchError, match=f"eurosat-coop: {path}: .*{message}"):
        registry.load("dataset", "eurosat-coop").open_split("test", folders)


def test_a_missing_class_folder_is_named(folders):
    write_tiles(folders.data / "eurosat")
    (folders.data / "eurosat" / "2750" / "River").rename(folders.data / "eurosat" / "Rivers")
    with pytest.raises(BenchError, match="2750/River: the folder of class 'river' is missing"):
        registry.load("dataset", "eurosat").open_split("train", folders)
