"""CIFAR from pickled batches and from parquet, and what is said of damaged and hostile copies."""

import os
import pickle

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set, encoded, picture, write_parquet


def planes(labels) -> np.ndarray:
    """(n, 3072) uint8: a picture of each label, as CIFAR stores it: all red, then all green, then all blue."""
    images = np.stack([np.array(picture(label, number, size=(32, 32))) for number, label in enumerate(labels)])
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def write_batch(path, content: dict) -> None:
    """Protocol 2, as the official files have it; Python 2's numpy called its functions numpy.core.*"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_cifar100(data, train: int = 2, test: int = 1) -> None:
    for split, per_class in (("train", train), ("test", test)):
        labels = [k for k in range(100) for _ in range(per_class)]
        content = {"data": planes(labels), "fine_labels": labels, "coarse_labels": [k // 5 for k in labels]}
        write_batch(data / "cifar-100-python" / split, content)
    write_batch(data / "cifar-100-python" / "meta", {"fine_label_names": ["x"] * 100})


def write_cifar10(data) -> None:
    for number in range(1, 6):
        labels = list(range(10))
        write_batch(data / "cifar-10-batches-py" / f"data_batch_{number}", {"data": planes(labels), "labels": labels})
    write_batch(data / "cifar-10-batches-py" / "test_batch", {"data": planes(range(10)), "labels": list(range(10))})


@pytest.mark.parametrize("name", ["cifar100", "cifar100-cil"])
def test_cifar100_from_pickled_batches(folders, name, capsys):
    write_cifar100(folders.data)
    check_data_set(name, folders, train=200, test=100)
    assert f"note: {name}: 200 train images" in capsys.readouterr().err


def test_cifar10_from_five_batches(folders):
    write_cifar10(folders.data)
    check_data_set("cifar10", folders, train=50, test=10)


def test_pixels_come_back_as_they_were(folders):
    write_cifar100(folders.data)
    source = registry.load("dataset", "cifar100").open_split("train", folders)
    assert (source.read(np.array([7]))[0] == np.array(picture(3, 7, size=(32, 32)))).all()


def test_cifar100_from_parquet(folders):
    names = ["cra" if name == "crab" else name for name in registry.load("dataset", "cifar100-cil").info.class_names]
    for number, split in enumerate(("train", "test")):
        images = [{"bytes": encoded(k, number, format="PNG", size=(32, 32)), "path": None} for k in range(100)]
        for part in range(2):
            rows = slice(50 * part, 50 * part + 50)
            columns = {"img": images[rows], "fine_label": list(range(100))[rows], "coarse_label": [0] * 50}
            write_parquet(folders.data / "cifar-100-python" / f"{split}-0000{part}-of-00002.parquet", columns, names)
    check_data_set("cifar100", folders, train=100, test=100)
    source = registry.load("dataset", "cifar100").open_split("train", folders)
    assert (source.read(np.array([73]))[0] == np.array(picture(73, size=(32, 32)))).all()
    (folders.data / "cifar-100-python" / "test-00000-of-00002.parquet").unlink()
    with pytest.raises(BenchError, match="part 0 of 2 is missing"):
        registry.load("dataset", "cifar100").open_split("test", folders)


def test_the_two_name_lists_share_images_and_features(folders):
    write_cifar100(folders.data)
    clean, underscores = (registry.load("dataset", name) for name in ("cifar100", "cifar100-cil"))
    assert clean.open_split("test", folders).digest == underscores.open_split("test", folders).digest
    assert clean.info.class_names[1] == "aquarium fish" and underscores.info.class_names[1] == "aquarium_fish"
    assert underscores.info.templates == ("a bad photo of a {}.",)
    assert len(clean.info.templates) == 18


def open_train(folders):
    return registry.load("dataset", "cifar100").open_split("train", folders)


def test_without_data_one_line_says_everything(folders):
    with pytest.raises(BenchError) as caught:
        open_train(folders)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cifar100", str(folders.data / "cifar-100-python"), "https://www.cs.toronto.edu/", "cifar-100-python.tar.gz"):
        assert part in message


def test_a_truncated_batch_is_named(folders):
    write_cifar100(folders.data)
    path = folders.data / "cifar-100-python" / "train"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BenchError, match=f"cifar100: {path}: the file is damaged"):
        open_train(folders)


def test_a_label_out_of_range_is_named(folders):
    write_cifar100(folders.data)
    path = folders.data / "cifar-100-python" / "train"
    write_batch(path, {"data": planes([0, 1]), "fine_labels": [0, 100]})
    with pytest.raises(BenchError, match=f"{path}: label 100 of image 1 is out of range 0..99"):
        open_train(folders)


def test_fewer_labels_than_images_are_named(folders):
    write_cifar100(folders.data)
    path = folders.data / "cifar-100-python" / "train"
    write_batch(path, {"data": planes([0, 1]), "fine_labels": [0]})
    with pytest.raises(BenchError, match="2 images and 1 labels"):
        open_train(folders)


def test_a_missing_batch_is_named(folders):
    write_cifar10(folders.data)
    (folders.data / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(BenchError, match="missing: data_batch_3"):
        registry.load("dataset", "cifar10").open_split("train", folders)


class Hostile:
    """Unpickling this makes a folder: a stand-in for anything else."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_refused_before_anything_of_it_runs(folders, tmp_path):
    write_cifar100(folders.data)
    path = folders.data / "cifar-100-python" / "train"
    write_batch(path, {"data": Hostile(tmp_path / "owned"), "fine_labels": [0]})
    with pytest.raises(BenchError, match="which is not data; it is refused"):
        open_train(folders)
    assert not (tmp_path / "owned").exists()
