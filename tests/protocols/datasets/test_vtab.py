"""The 50-class VTAB copy: numbered folders in their order, and damaged copies."""

import shutil

import numpy as np
import pytest
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import same_as_torchvision, write_vtab


def open_split(folders, split="train"):
    return registry.load("dataset", "vtab50").open_split(split, folders)


def test_from_class_folders(folders):
    write_vtab(folders.data)
    check_data_set("vtab50", folders, train=100, test=50)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_labels_are_those_of_an_image_folder(folders, split):
    write_vtab(folders.data)
    (folders.data / "vtab" / split / "__MACOSX").rmdir()  # torchvision would take it for a class
    same_as_torchvision(open_split(folders, split), datasets.ImageFolder(folders.data / "vtab" / split))


def test_the_names_follow_the_five_domains():
    names = registry.load("dataset", "vtab50").info.class_names
    assert [names[k] for k in (0, 10, 20, 30, 40)] == [
        "airplane", "banded texture", "Abyssinian pet", "annual crop land", "mexican petunia flower",
    ]  # fmt: skip


def test_another_number_of_class_folders_is_named(folders):
    write_vtab(folders.data)
    shutil.rmtree(folders.data / "vtab" / "train" / "33")
    with pytest.raises(BenchError, match=r"vtab50: .*vtab/train: it has 49 class folders instead of 50"):
        open_split(folders)


def test_a_class_without_test_images_is_named(folders):
    write_vtab(folders.data)
    shutil.rmtree(folders.data / "vtab" / "test" / "12")
    with pytest.raises(BenchError, match="vtab/test/12: the folder of class 'baseball diamond' is missing"):
        open_split(folders, "test")


def test_a_truncated_image_is_named(folders):
    write_vtab(folders.data)
    path = folders.data / "vtab" / "train" / "10" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match=f"vtab50: {path}: not a whole image"):
        open_split(folders).read(np.arange(4))


def test_it_cannot_be_downloaded_and_one_line_says_what_to_do(folders):
    with pytest.raises(BenchError, match="download the VTAB archive linked in .*RevisitingCIL") as caught:
        open_split(folders)
    assert "\n" not in str(caught.value) and str(folders.data / "vtab") in str(caught.value)
