"""Oxford-IIIT Pet from its annotations and from parquet, as torchvision reads it, and damaged copies."""

import numpy as np
import pytest
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import same_as_torchvision, write_oxford_pets, write_pets_parquet


def open_split(folders, split="train"):
    return registry.load("dataset", "oxford-pets").open_split(split, folders)


def annotations(folders, split="trainval"):
    return folders.data / "oxford-iiit-pet" / "annotations" / f"{split}.txt"


def test_from_annotations(folders):
    write_oxford_pets(folders.data)
    check_data_set("oxford-pets", folders, train=74, test=37)


def test_from_parquet(folders):
    write_pets_parquet(folders.data)
    check_data_set("oxford-pets", folders, train=37, test=37)
    assert open_split(folders).labels.tolist() == list(range(37))


@pytest.mark.parametrize(("split", "theirs"), [("train", "trainval"), ("test", "test")])
def test_the_images_and_names_are_torchvisions(folders, split, theirs):
    write_oxford_pets(folders.data)
    reference = datasets.OxfordIIITPet(folders.data, split=theirs)
    same_as_torchvision(open_split(folders, split), reference)
    assert tuple(reference.classes) == registry.load("dataset", "oxford-pets").info.class_names


def test_a_truncated_image_is_named(folders):
    write_oxford_pets(folders.data)
    path = folders.data / "oxford-iiit-pet" / "images" / "Abyssinian_12.jpg"
    path.write_bytes(path.read_bytes()[:-150])
    source = open_split(folders)
    with pytest.raises(BenchError, match=r"oxford-pets: .*Abyssinian_12\.jpg: not a whole image"):
        source.read(np.arange(len(source)))


def test_a_label_out_of_range_is_named(folders):
    write_oxford_pets(folders.data)
    lines = annotations(folders).read_text().splitlines()
    image = lines[3].split()[0]
    lines[3] = f"{image} 38 1 1"
    annotations(folders).write_text("\n".join(lines))
    with pytest.raises(BenchError, match=f"trainval.txt: label 37 of {image} is out of range 0..36"):
        open_split(folders)


def test_a_label_that_contradicts_the_file_name_is_named(folders):
    write_oxford_pets(folders.data)
    annotations(folders).write_text("Abyssinian_1 2 1 1\n")
    with pytest.raises(BenchError, match="image Abyssinian_1 has label 2, which is 'American Bulldog'"):
        open_split(folders)


def test_a_line_without_a_label_is_named(folders):
    write_oxford_pets(folders.data)
    annotations(folders).write_text("Abyssinian_1\n")
    with pytest.raises(BenchError, match="trainval.txt: the file is damaged"):
        open_split(folders)


def test_a_missing_list_is_named(folders):
    write_oxford_pets(folders.data)
    annotations(folders, "test").unlink()
    with pytest.raises(BenchError, match="missing: annotations/test.txt"):
        open_split(folders)
