"""RESISC45 from class folders with lists, and from parquet."""

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from protocols.datasets.resisc45 import CLASSES
from tests.protocols.datasets.miniatures import check_data_set, encoded, write_parquet, write_picture


def write_resisc45(folder) -> None:
    lines = {"train": [], "val": [], "test": []}
    for label, name in enumerate(CLASSES):
        for number, split in enumerate(("train", "train", "val", "test"), start=1):
            image = f"{name}_{number:03d}.jpg"
            write_picture(folder / "NWPU-RESISC45" / name / image, label, number)
            lines[split].append(image + "\n")
    for split, images in lines.items():
        (folder / f"resisc45-{split}.txt").write_text("".join(reversed(images)))


def test_resisc45_from_folders_and_lists(folders):
    write_resisc45(folders.data / "resisc45")
    check_data_set("resisc45", folders, train=90, test=45)
    source = registry.load("dataset", "resisc45").open_split("test", folders)
    assert source.paths[0] == "NWPU-RESISC45/wetland/wetland_004.jpg" and source.labels[0] == 44


def test_resisc45_from_parquet(folders):
    for number, split in enumerate(("train", "validation", "test")):
        images = [{"bytes": encoded(k, number), "path": None} for k in range(45)]
        columns = {"image": images, "label": list(range(45)), "image_id": list(CLASSES)}
        write_parquet(folders.data / "resisc45" / f"{split}-00000-of-00001.parquet", columns, CLASSES)
    check_data_set("resisc45", folders, train=45, test=45)


def test_a_truncated_parquet_file_and_a_damaged_image_in_it_are_named(folders):
    images = [{"bytes": encoded(k)[: 200 if k == 9 else None], "path": None} for k in range(45)]
    for split in ("train", "test"):
        path = folders.data / "resisc45" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, {"image": images, "label": list(range(45))}, CLASSES)
    source = registry.load("dataset", "resisc45").open_split("test", folders)
    with pytest.raises(BenchError, match="test-00000-of-00001.parquet: image 9: not a whole image"):
        source.read(np.arange(12))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match=f"resisc45: {path}: the file is damaged"):
        registry.load("dataset", "resisc45").open_split("test", folders)


def test_an_unknown_class_in_a_list_is_named(folders):
    write_resisc45(folders.data / "resisc45")
    path = folders.data / "resisc45" / "resisc45-test.txt"
    path.write_text("volcano_001.jpg\n" + path.read_text())
    with pytest.raises(BenchError, match=f"{path}: image volcano_001.jpg is of class 'volcano'"):
        registry.load("dataset", "resisc45").open_split("test", folders)
