"""Food-101 from its JSON lists and from parquet, as torchvision reads it, and damaged copies."""

import json

import numpy as np
import pytest
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import same_as_torchvision, write_food101, write_food101_parquet


def open_split(folders, split="train"):
    return registry.load("dataset", "food101").open_split(split, folders)


def test_from_json_lists(folders):
    write_food101(folders.data)
    check_data_set("food101", folders, train=202, test=101)


def test_from_parquet(folders):
    write_food101_parquet(folders.data)
    check_data_set("food101", folders, train=101, test=101)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_and_names_are_torchvisions(folders, split):
    write_food101(folders.data)
    reference = datasets.Food101(folders.data, split=split)
    same_as_torchvision(open_split(folders, split), reference)
    names = tuple(name.replace("_", " ") for name in reference.classes)
    assert names == registry.load("dataset", "food101").info.class_names


def test_half_a_list_is_named(folders):
    write_food101(folders.data)
    path = folders.data / "food-101" / "meta" / "train.json"
    path.write_text(path.read_text()[:1000])
    with pytest.raises(BenchError, match=f"food101: {path}: the file is damaged"):
        open_split(folders)


def test_a_dish_that_is_none_is_named(folders):
    write_food101(folders.data)
    path = folders.data / "food-101" / "meta" / "test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gruel": ["gruel/1"]}))
    with pytest.raises(BenchError, match="image gruel/1 is of class 'gruel', which is none of the 101 classes"):
        open_split(folders, "test")


def test_a_missing_image_is_named(folders):
    write_food101(folders.data)
    path = folders.data / "food-101" / "images" / "waffles" / "1005649.jpg"
    path.unlink()
    source = open_split(folders)
    with pytest.raises(BenchError, match=f"food101: {path}: the file is missing"):
        source.read(np.flatnonzero(source.labels == 100))


def test_a_part_of_the_parquet_files_that_is_damaged_is_named(folders):
    write_food101_parquet(folders.data)
    path = folders.data / "food-101" / "validation-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match=f"food101: {path}: the file is damaged"):
        open_split(folders, "test")
