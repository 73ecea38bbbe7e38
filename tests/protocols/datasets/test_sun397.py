"""SUN397: MTIL's random split over the sorted paths, as torchvision names and labels them, and damaged copies."""

import shutil

import pytest
import torch
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import write_sun397


@pytest.fixture
def sun397():
    return registry.load("dataset", "sun397")


def test_from_nested_class_folders(folders):
    write_sun397(folders.data)
    check_data_set("sun397", folders, train=8257, test=2065)


def test_the_split_is_torchs_random_split_over_sorted_paths(folders, sun397):
    write_sun397(folders.data)
    reference = datasets.SUN397(folders.data)
    whole = sorted(zip(reference._image_files, reference._labels))
    train = int(0.8 * len(whole))
    parts = torch.utils.data.random_split(whole, [train, len(whole) - train], generator=torch.Generator().manual_seed(42))
    for split, part in zip(("train", "test"), parts):
        source = sun397.open_split(split, folders)
        assert [folders.data / "SUN397" / path for path in source.paths] == [path for path, _ in part]
        assert source.labels.tolist() == [label for _, label in part]


def test_names_keep_their_slashes(folders, sun397):
    write_sun397(folders.data, per_class=1)
    names = tuple(name.replace("_", " ") for name in datasets.SUN397(folders.data).classes)
    assert names == sun397.info.class_names
    assert sum("/" in name for name in names) == 126
    assert "apartment building/outdoor" in names and "jail cell" in names and "jail/indoor" in names


def test_whole_the_split_has_mtils_sizes(sun397):
    from protocols.datasets.splits import random_split

    rows = random_split(108_754)
    assert (len(rows["train"]), len(rows["test"])) == (sun397.info.train_images, sun397.info.test_images) == (87_003, 21_751)
    assert rows["train"][:4].tolist() == [57128, 82947, 84286, 54173]  # torch 2.15; the split must not drift with torch


def test_a_missing_class_folder_is_named(folders, sun397):
    write_sun397(folders.data, per_class=2)
    place = folders.data / "SUN397" / "j" / "jail" / "indoor"
    shutil.rmtree(place)
    with pytest.raises(BenchError, match=f"sun397: {place}: the folder of class 'jail/indoor' is missing"):
        sun397.open_split("train", folders)


def test_an_empty_class_folder_is_named(folders, sun397):
    write_sun397(folders.data, per_class=1)
    (folders.data / "SUN397" / "w" / "wave" / f"sun_{'a' * 15}.jpg").unlink()
    with pytest.raises(BenchError, match="the folder of class 'wave' holds no image"):
        sun397.open_split("test", folders)
