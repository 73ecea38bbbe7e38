"""Any folder of images as a data set: classes, names, both ways to split, versions, and what is said of other folders."""

import os

import numpy as np
import pytest

from bench.dataset import Folders
from bench.errors import BenchError
from protocols.datasets.image_folder import image_folder
from tests.protocols.datasets.miniatures import write_picture

CLASSES = ("car-side", "sea_horse", "stop_sign", "Zebra")


@pytest.fixture
def divided(tmp_path):
    """Three classes of ten images, without splits."""
    for label, name in enumerate(CLASSES):
        for number in range(10):
            write_picture(tmp_path / "pets" / name / f"{number}.jpg", label, number)
    return tmp_path / "pets"


@pytest.fixture
def with_splits(tmp_path):
    for split, per_class in (("train", 3), ("test", 2), ("val", 1)):
        for label, name in enumerate(CLASSES):
            for number in range(per_class):
                write_picture(tmp_path / "pets" / split / name / "deeper" / f"{number}.png", label, number)
    return tmp_path / "pets"


def paths(dataset, split: str, tmp_path) -> list[str]:
    return dataset.open_split(split, Folders(tmp_path, tmp_path / "cache")).paths.tolist()


def test_classes_are_sorted_folders_and_names_have_spaces(divided):
    assert image_folder(divided).info.class_names == ("Zebra", "car side", "sea horse", "stop sign")
    assert image_folder(divided).info.name == "folder:pets"
    assert image_folder(str(divided)).info.templates == ("a photo of a {}.",)


def test_train_and_test_folders_are_the_splits(with_splits, tmp_path):
    dataset = image_folder(with_splits)
    assert (dataset.info.train_images, dataset.info.test_images) == (12, 8)
    for split, per_class in (("train", 3), ("test", 2)):
        source = dataset.open_split(split, Folders(tmp_path, tmp_path / "cache"))
        assert source.labels.tolist() == np.repeat(np.arange(4), per_class).tolist()
        assert all(path.startswith(f"{split}/") for path in source.paths)
        assert source.read(np.array([0]))[0].shape == (12, 16, 3)


def test_else_a_fifth_of_every_class_is_for_testing(divided, tmp_path):
    dataset = image_folder(divided)
    train, test = (paths(dataset, split, tmp_path) for split in ("train", "test"))
    assert len(train) == 32 and len(test) == 8
    assert sorted(train + test) == sorted(f"{name}/{number}.jpg" for name in CLASSES for number in range(10))
    for name in CLASSES:
        assert sum(path.startswith(f"{name}/") for path in test) == 2
    assert len({path.split("/")[1] for path in test}) > 2, "not the same numbers in every class"


def test_the_division_depends_on_the_names_alone(divided, tmp_path):
    before = paths(image_folder(divided), "test", tmp_path)
    elsewhere = tmp_path / "elsewhere" / "cats"
    elsewhere.parent.mkdir()
    os.rename(divided, elsewhere)
    write_picture(elsewhere / "Zebra" / "0.jpg", 3, 7)
    assert paths(image_folder(elsewhere), "test", tmp_path) == before


@pytest.mark.parametrize(("images", "test_images"), [(2, 1), (3, 1), (7, 1), (8, 2), (12, 2), (13, 3)])
def test_a_fifth_is_rounded_and_never_nothing(tmp_path, images, test_images):
    for label in range(2):
        for number in range(images):
            write_picture(tmp_path / "pets" / str(label) / f"{number}.jpg", label)
    assert image_folder(tmp_path / "pets").info.test_images == 2 * test_images


def test_a_folder_that_changes_has_another_version(divided):
    before = image_folder(divided).info.version
    assert image_folder(divided).info.version == before
    write_picture(divided / "Zebra" / "10.jpg", 0)
    assert image_folder(divided).info.version != before


def test_another_image_under_the_same_name_has_another_digest(divided, tmp_path):
    folders = Folders(tmp_path, tmp_path / "cache")
    before = image_folder(divided).open_split("train", folders).digest
    path = divided / image_folder(divided).open_split("train", folders).paths[0]
    write_picture(path, 3, 11)
    os.utime(path, ns=(1, 1))
    assert image_folder(divided).open_split("train", folders).digest != before


def test_hidden_folders_and_other_files_are_no_classes(divided):
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (divided / name).mkdir()
    (divided / "README.txt").touch()
    (divided / "Zebra" / "notes.txt").touch()
    assert len(image_folder(divided).info.class_names) == 4
    assert image_folder(divided).info.train_images + image_folder(divided).info.test_images == 40


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus"):
        for number in range(2):
            write_picture(tmp_path / "toys" / name / f"{number}.jpg", 0)
    assert image_folder(tmp_path / "toys").info.class_names == ("bus", "train")


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_wrong_with_a_folder_is_said_in_one_line(divided, tmp_path):
    with pytest.raises(BenchError, match="there is no such folder") as error:
        image_folder(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in one_line(error)
    with pytest.raises(BenchError, match="0 class folders; a stream needs at least two") as error:
        image_folder(divided / "Zebra")
    one_line(error)
    (divided / "empty").mkdir()
    with pytest.raises(BenchError, match=f"{divided / 'empty'}: no image in it") as error:
        image_folder(divided)
    one_line(error)
    write_picture(divided / "empty" / "0.jpg", 0)
    with pytest.raises(BenchError, match="1 images; a class needs at least two") as error:
        image_folder(divided)
    one_line(error)


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_a_class_that_one_split_lacks_is_named(with_splits, split, other):
    os.rename(with_splits / split / "Zebra", with_splits / split / ".Zebra")
    with pytest.raises(BenchError, match=f"{split}/Zebra: class 'Zebra' is in {other} but has no images here"):
        image_folder(with_splits)


def test_a_truncated_image_is_named(divided, tmp_path):
    source = image_folder(divided).open_split("train", Folders(tmp_path, tmp_path / "cache"))
    path = divided / source.paths[4]
    path.write_bytes(path.read_bytes()[:-120])
    with pytest.raises(BenchError, match=f"{path}: not a whole image .*; replace or remove the file"):
        source.read(np.arange(6))
