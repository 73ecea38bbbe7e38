"""MNIST from idx files, packed or not, and from parquet, as torchvision reads it, and damaged copies."""

import numpy as np
import pytest
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import idx, same_as_torchvision, write_mnist, write_mnist_parquet

RAW = "MNIST/raw"


def open_split(folders, split="train"):
    return registry.load("dataset", "mnist").open_split(split, folders)


@pytest.mark.parametrize("below", [RAW, "mnist"])
@pytest.mark.parametrize("packed", [False, True])
def test_from_idx_files(folders, below, packed):
    write_mnist(folders.data, below, packed)
    check_data_set("mnist", folders, train=30, test=20)


def test_from_parquet(folders):
    write_mnist_parquet(folders.data)
    check_data_set("mnist", folders, train=10, test=10)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_and_names_are_torchvisions(folders, split):
    write_mnist(folders.data)
    reference = datasets.MNIST(folders.data, train=split == "train")
    same_as_torchvision(open_split(folders, split), reference)
    assert tuple(reference.classes) == registry.load("dataset", "mnist").info.class_names


def test_packed_and_plain_copies_are_the_same_images(folders):
    write_mnist(folders.data)
    plain = open_split(folders).digest
    for path in (folders.data / RAW).iterdir():
        path.unlink()
    write_mnist(folders.data, packed=True)
    assert open_split(folders).digest == plain


def test_a_truncated_file_is_named(folders):
    write_mnist(folders.data)
    path = folders.data / RAW / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BenchError, match=f"mnist: {path}: the file is damaged .*elements, 30 x 28 x 28 announced"):
        open_split(folders)


def test_a_truncated_packed_file_is_named(folders):
    write_mnist(folders.data, packed=True)
    path = folders.data / RAW / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BenchError, match=f"mnist: {path}: the file is damaged"):
        open_split(folders, "test")


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08", b"<html>404</html>", idx(np.zeros((2, 2)))])
def test_a_file_that_is_something_else_is_named(folders, content):
    write_mnist(folders.data)
    path = folders.data / RAW / "train-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=f"mnist: {path}: the file is damaged"):
        open_split(folders)


def test_a_label_out_of_range_is_named(folders):
    write_mnist(folders.data)
    path = folders.data / RAW / "train-labels-idx1-ubyte"
    labels = np.arange(30) % 10
    labels[17] = 10
    path.write_bytes(idx(labels))
    with pytest.raises(BenchError, match=f"mnist: {path}: label 10 of image 17 is out of range 0..9"):
        open_split(folders)


def test_fewer_labels_than_images_are_named(folders):
    write_mnist(folders.data)
    (folders.data / RAW / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(29)))
    with pytest.raises(BenchError, match="29 labels for the 30 images of train-images-idx3-ubyte"):
        open_split(folders)
