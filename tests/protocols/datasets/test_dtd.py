"""DTD: the official partition 1, as torchvision reads it, and what is said of damaged copies."""

import pytest
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import same_as_torchvision, write_dtd


def open_split(folders, split="train"):
    return registry.load("dataset", "dtd").open_split(split, folders)


@pytest.mark.parametrize("below", ["dtd/dtd", "dtd"])
def test_from_where_torchvision_puts_it_and_from_the_unpacked_archive(folders, below):
    write_dtd(folders.data, below)
    check_data_set("dtd", folders, train=94, test=47)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_are_torchvisions(folders, split):
    write_dtd(folders.data)
    reference = datasets.DTD(folders.data, split=split, partition=1)
    same_as_torchvision(open_split(folders, split), reference)
    assert tuple(reference.classes) == registry.load("dataset", "dtd").info.class_names


def test_a_missing_class_folder_is_named(folders):
    write_dtd(folders.data)
    place = folders.data / "dtd" / "dtd" / "images" / "grid"
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    source = open_split(folders)
    with pytest.raises(BenchError, match=r"dtd: .*images/grid/grid_0001\.jpg: "):
        _ = source.digest
    with pytest.raises(BenchError, match=r"dtd: .*images/grid/grid_0001\.jpg: the file is missing"):
        source.read((source.labels == 16).nonzero()[0])


def test_a_class_that_is_none_is_named(folders):
    write_dtd(folders.data)
    path = folders.data / "dtd" / "dtd" / "labels" / "train1.txt"
    path.write_text(path.read_text().replace("grid/grid_0002.jpg", "grit/grid_0002.jpg"))
    with pytest.raises(
        BenchError, match="train1.txt: image grit/grid_0002.jpg is of class 'grit', which is none of the 47 classes"
    ):
        open_split(folders)


def test_a_list_that_is_no_text_is_named(folders):
    write_dtd(folders.data)
    path = folders.data / "dtd" / "dtd" / "labels" / "test1.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match="test1.txt: the file is damaged"):
        open_split(folders, "test")


def test_without_data_one_line_says_what_to_fetch(folders):
    with pytest.raises(BenchError, match=r"data set dtd is not in .*dtd-r1.0.1.tar.gz") as caught:
        open_split(folders)
    assert "\n" not in str(caught.value)
