"""CUB-200: the official archive, mammoth's arrays and the RevisitingCIL copy."""

import os
import shutil

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set, picture, write_picture

SPECIES = [name.replace(" ", "_") for name in registry.load("dataset", "cub200-clap").info.class_names]
FOLDERS = [f"{label + 1:03d}.{name}" for label, name in enumerate(SPECIES)]


def write_official(folder) -> None:
    """Three images a species, the second of them for the test."""
    lines = {"images.txt": [], "image_class_labels.txt": [], "train_test_split.txt": []}
    number = 0
    for label, name in enumerate(FOLDERS):
        for k in range(3):
            number += 1
            image = f"{name}/{SPECIES[label]}_{k:04d}_{number}.jpg"
            write_picture(folder / "images" / image, label, k)
            lines["images.txt"].append(f"{number} {image}\n")
            lines["image_class_labels.txt"].append(f"{number} {label + 1}\n")
            lines["train_test_split.txt"].append(f"{number} {int(k != 1)}\n")
    for name, text in lines.items():
        (folder / name).write_text("".join(text))


def test_cub200_from_the_official_archive(folders):
    write_official(folders.data / "CUB_200_2011")
    check_data_set("cub200", folders, train=400, test=200)
    source = registry.load("dataset", "cub200").open_split("test", folders)
    assert all("_0001_" in path for path in source.paths)
    assert source.paths[3].startswith("images/004.Groove_billed_Ani/") and source.labels[3] == 3
    assert registry.load("dataset", "cub200").info.class_names[3] == "groove billed ani"


def write_arrays(folder, of_one_size: bool) -> None:
    """mammoth's: data, targets, classes and segmentations; with images of several sizes data is an array of objects."""
    folder.mkdir(parents=True)
    for start, split in enumerate(("train", "test")):
        images = [np.array(picture(k, start, size=(8, 8 if of_one_size else 6 + k % 4))) for k in range(200)]
        data = np.stack(images) if of_one_size else np.empty(200, object)
        if not of_one_size:
            data[:] = images
        np.savez(folder / f"{split}_data.npz", data=data, targets=np.arange(200), classes=np.array(SPECIES), segs=data)


@pytest.mark.parametrize("of_one_size", [True, False])
def test_cub200_from_mammoths_arrays(folders, of_one_size):
    write_arrays(folders.data / "CUB200", of_one_size)
    check_data_set("cub200", folders, train=200, test=200)
    source = registry.load("dataset", "cub200").open_split("test", folders)
    assert (source.read(np.array([5]))[0] == np.array(picture(5, 1, size=(8, 8 if of_one_size else 7)))).all()


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_array_is_refused(folders, tmp_path):
    (folders.data / "CUB200").mkdir(parents=True)
    data = np.empty(1, object)
    data[0] = Hostile(tmp_path / "owned")
    for split in ("train", "test"):
        np.savez(folders.data / "CUB200" / f"{split}_data.npz", data=data, targets=np.arange(1))
    with pytest.raises(BenchError, match="which is not data; it is refused"):
        registry.load("dataset", "cub200").open_split("train", folders)
    assert not (tmp_path / "owned").exists()


def test_cub200_clap_from_the_folder_copy(folders):
    for label, name in enumerate(FOLDERS):
        for number in range(2):
            write_picture(folders.data / "cub" / "train" / name / f"a_{number}.jpg", label, number)
        write_picture(folders.data / "cub" / "test" / name / "b.jpg", label, 7)
    check_data_set("cub200-clap", folders, train=400, test=200)
    info = registry.load("dataset", "cub200-clap").info
    assert info.templates == ("a photo of a {}, a type of bird.", "a photo of the {}, a type of bird.")
    shutil.rmtree(folders.data / "cub" / "train" / FOLDERS[17])
    with pytest.raises(BenchError, match=r"018\.\*: the folder of class 'Spotted Catbird' is missing"):
        registry.load("dataset", "cub200-clap").open_split("train", folders)


def open_test(folders):
    return registry.load("dataset", "cub200").open_split("test", folders)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("image_class_labels.txt", "\n8 3\n", "\n8 201\n", "label 200 of images/003.Sooty_Albatross/.* out of range 0..199"),
        ("image_class_labels.txt", "\n8 3\n", "\n", "it speaks of other images than images.txt"),
        ("image_class_labels.txt", "\n8 3\n", "\n8 three\n", "the file is damaged .*three"),
        ("images.txt", "\n8 ", "\n8", "the file is damaged"),
    ],
)
def test_damaged_lists_are_named(folders, name, old, new, message):
    write_official(folders.data / "CUB_200_2011")
    path = folders.data / "CUB_200_2011" / name
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(BenchError, match=f"cub200: {path}: {message}"):
        open_test(folders)


def test_a_listed_image_that_is_not_there_is_named(folders):
    write_official(folders.data / "CUB_200_2011")
    source = open_test(folders)
    path = folders.data / "CUB_200_2011" / source.paths[4]
    path.unlink()
    with pytest.raises(BenchError, match=f"{path}: the file is missing"):
        source.read(np.array([4]))


def test_without_data_both_folders_are_named(folders):
    with pytest.raises(BenchError) as caught:
        open_test(folders)
    assert all(part in str(caught.value) for part in ("cub200", "CUB_200_2011", "CUB200", "data.caltech.edu"))
