"""Oxford 102 Flowers from Matlab files and from parquet, as torchvision reads it, and damaged copies."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import same_as_torchvision, write_flowers102, write_flowers_parquet


def open_split(folders, split="train"):
    return registry.load("dataset", "flowers102").open_split(split, folders)


def test_from_matlab_files(folders):
    write_flowers102(folders.data)
    check_data_set("flowers102", folders, train=102, test=204)


def test_from_parquet(folders):
    write_flowers_parquet(folders.data)
    check_data_set("flowers102", folders, train=102, test=102)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_and_names_are_torchvisions(folders, split, monkeypatch):
    write_flowers102(folders.data)
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, md5: True)  # of the real files
    reference = datasets.Flowers102(folders.data, split=split)
    same_as_torchvision(open_split(folders, split), reference)
    names = tuple(name.rstrip("?") for name in reference.classes)  # torchvision doubts the pink-yellow dahlia
    assert names == registry.load("dataset", "flowers102").info.class_names


def test_validation_images_are_in_neither_split(folders):
    write_flowers102(folders.data)
    lists = loadmat(folders.data / "flowers-102" / "setid.mat", squeeze_me=True)
    used = {path for split in ("train", "test") for path in open_split(folders, split).paths}
    assert not used & {f"jpg/image_{number:05d}.jpg" for number in lists["valid"]}
    assert len(used) == 3 * 102


def test_a_truncated_matlab_file_is_named(folders):
    write_flowers102(folders.data)
    path = folders.data / "flowers-102" / "imagelabels.mat"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(BenchError, match=f"flowers102: {path}: the file is damaged"):
        open_split(folders)


def test_a_matlab_file_with_other_content_is_named(folders):
    write_flowers102(folders.data)
    savemat(folders.data / "flowers-102" / "setid.mat", {"something": np.arange(3)})
    with pytest.raises(BenchError, match="setid.mat: the file is damaged .*no variable trnid"):
        open_split(folders)


def test_a_label_out_of_range_is_named(folders):
    write_flowers102(folders.data)
    path = folders.data / "flowers-102" / "imagelabels.mat"
    labels = loadmat(path)["labels"]
    first = int(loadmat(folders.data / "flowers-102" / "setid.mat")["trnid"][0, 0])
    labels[0, first - 1] = 103
    savemat(path, {"labels": labels})
    with pytest.raises(BenchError, match=f"label 102 of jpg/image_{first:05d}.jpg is out of range 0..101"):
        open_split(folders)


def test_an_image_without_a_label_is_named(folders):
    write_flowers102(folders.data)
    path = folders.data / "flowers-102" / "setid.mat"
    lists = {name: row for name, row in loadmat(path).items() if not name.startswith("__")}
    lists["tstid"][0, 0] = 5000
    savemat(path, lists)
    with pytest.raises(BenchError, match="image 5000 of tstid has no label, imagelabels.mat has 408"):
        open_split(folders, "test")
