"""Any folder of images as a data set: classes, names, both ways to split, versions, and what is said of other folders."""

import os

import numpy as np
import pytest

from bench.errors import BenchError
from bench.images.dataset import Folders
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


# -- splits are never classes -------------------------------------------------------------------------------------


def write_split(root, *splits: str, classes=("apple", "fig", "pear"), images: int = 2) -> None:
    for split in splits:
        for label, name in enumerate(classes):
            for number in range(images):
                write_picture(root / split / name / f"{number}.png", label, number)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Train", "Test"), ("TRAIN", "VAL"), ("train", "valid"), ("training", "validation"),
        ("Training", "Testing"), ("seg_train", "seg_test"), ("train_images", "val_images"), ("fruit-train", "fruit-test"),
        ("images.train", "images.test"), ("my Train", "my Val"),
    ],
)  # fmt: skip
def test_folders_of_splits_are_found_by_their_names(tmp_path, train, test):
    write_split(tmp_path / "fruit", train)
    write_split(tmp_path / "fruit", test, images=1)
    dataset = image_folder(tmp_path / "fruit")
    assert dataset.info.class_names == ("apple", "fig", "pear")
    assert (dataset.info.train_images, dataset.info.test_images) == (6, 3)
    assert [note for note in dataset.notes if "serves as the test split" in note] == (
        [f"{test}/ in {tmp_path / 'fruit'} serves as the test split"] if "test" not in test.lower() else []
    )


def test_with_three_splits_the_third_is_said_to_be_left_out(tmp_path):
    write_split(tmp_path / "fruit", "train", "test", "val", "extra")
    dataset = image_folder(tmp_path / "fruit")
    assert set(paths(dataset, "test", tmp_path)) == {f"test/{name}/{k}.png" for name in ("apple", "fig", "pear") for k in (0, 1)}
    assert dataset.notes == tuple(f"{name}/ in {tmp_path / 'fruit'} is not read (6 images)" for name in ("extra", "val"))


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["train"], "train/ holds a split, and what goes with it is missing; two folders are wanted"),
        (["Training", "more"], "Training/ holds a split"),
        (["test", "val"], "test/ and val/ hold splits, and what goes with it is missing"),
        (["train", "Train", "test"], "Train/ and train/ are both folders of a train split"),
        (["seg_train", "train", "test"], "seg_train/ and train/ are both folders of a train split"),
        (["train", "val", "valid"], "val/ and valid/ are both folders of a val split"),
        (["fold1", "fold2"], "fold1 and fold2 hold folders of the same names .*, so they are splits and not classes"),
        (["2019", "2020", "2021"], "2019 and 2020 hold folders of the same names"),
    ],
)
def test_splits_that_cannot_be_told_for_sure_are_refused_in_one_line(tmp_path, folders, said):
    write_split(tmp_path / "fruit", *folders)
    with pytest.raises(BenchError, match=said) as error:
        image_folder(tmp_path / "fruit")
    one_line(error)


def test_splits_without_class_folders_are_refused(tmp_path):
    for split in ("train", "test"):
        write_picture(tmp_path / "fruit" / split / "0.png", 0)
        write_picture(tmp_path / "fruit" / split / "1.png", 0)
    with pytest.raises(BenchError, match="test/ and train/ hold images and no class folders") as error:
        image_folder(tmp_path / "fruit")
    one_line(error)


def test_words_that_only_look_like_splits_name_classes(tmp_path):
    write_split(tmp_path / "words", "", classes=("latest", "trainer", "validator", "test tube", "training shoe"), images=3)
    assert len(image_folder(tmp_path / "words").info.class_names) == 5


def test_a_folder_around_the_data_set_is_named(tmp_path):
    write_split(tmp_path / "fruit" / "data", "train", "test")
    with pytest.raises(BenchError, match=f"1 class folders; .*did you mean {tmp_path / 'fruit' / 'data'}") as error:
        image_folder(tmp_path / "fruit")
    one_line(error)


# -- what is left out is said -------------------------------------------------------------------------------------


def test_files_that_are_no_images_are_counted(divided):
    for name in ("a.txt", "b.txt", "c.mp4"):
        (divided / "Zebra" / name).touch()
    write_picture(divided / "lost.jpg", 0)
    (divided / "LICENSE").touch()
    assert image_folder(divided).notes == (
        f"1 image in {divided} beside the folders there: not read",
        f"3 files in {divided} are no images that are read (.txt 2, .mp4 1)",
    )
    assert len(image_folder(divided).info.class_names) == 4


def test_a_class_of_other_files_names_them(divided):
    (divided / "sounds").mkdir()
    (divided / "sounds" / "1.wav").touch()
    with pytest.raises(BenchError, match=r"no image in it \(1 file in sounds is no image that is read \(.wav 1\)\)"):
        image_folder(divided)


def test_gif_and_jfif_are_read(tmp_path):
    from PIL import Image

    for label, name in enumerate(("cat", "dog")):
        for number, suffix in enumerate((".gif", ".jfif", ".jpe", ".webp", ".tga")):
            path = tmp_path / "pets" / name / f"{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (200 * label, 10, 10)).save(path, {".jfif": "JPEG", ".jpe": "JPEG"}.get(suffix))
    dataset = image_folder(tmp_path / "pets")
    assert (dataset.info.train_images, dataset.info.test_images, dataset.notes) == (8, 2, ())
    source = dataset.open_split("train", Folders(tmp_path, tmp_path / "cache"))
    assert [int(image[0, 0, 0]) > 100 for image in source.read(np.arange(8))] == [False] * 4 + [True] * 4


def test_links_between_classes_and_splits_are_refused(divided, tmp_path):
    (divided / "Zebra" / "more").symlink_to(divided / "sea_horse")
    with pytest.raises(BenchError, match="are the same folder; its images can belong to one class of one split only"):
        image_folder(divided)
    write_split(tmp_path / "fruit", "train")
    (tmp_path / "fruit" / "test").symlink_to("train")
    with pytest.raises(BenchError, match="are the same folder"):
        image_folder(tmp_path / "fruit")


# -- names of classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("red_apple", "red-apple"), ("Apple", "apple"), ("red  apple", "red apple"), ("caf\u00e9", "cafe\u0301"),
        ("route66", "route 66"),
        ("salt & pepper", "salt &amp; pepper"), ("_apple", "apple"), ("\uff21pple", "Apple"),
    ],
)  # fmt: skip
def test_two_folders_of_one_prompt_are_refused_by_name(tmp_path, one, other):
    write_split(tmp_path / "fruit", "", classes=(one, other, "pear"))
    with pytest.raises(BenchError, match="make the same prompt") as error:
        image_folder(tmp_path / "fruit")
    assert repr(one) in one_line(error) and repr(other) in one_line(error)


def test_a_folder_without_a_word_in_its_name_is_refused(tmp_path):
    write_split(tmp_path / "fruit", "", classes=("-_-", "apple", "pear"))
    with pytest.raises(BenchError, match="there is no word in its name"):
        image_folder(tmp_path / "fruit")


def test_names_that_differ_only_in_words_are_fine(tmp_path):
    write_split(tmp_path / "fruit", "", classes=("red apple", "apple red", "apples"))
    assert len(image_folder(tmp_path / "fruit").info.class_names) == 3


@pytest.mark.parametrize("name", ["red\napple", "red\x07apple", "red\udcffapple"])
def test_names_that_results_cannot_hold_are_refused_in_one_line(tmp_path, name):
    write_split(tmp_path / "fruit", "", classes=(name, "pear", "fig"))
    with pytest.raises(BenchError, match="there are control characters, or bytes that are not UTF-8, in its name"):
        image_folder(tmp_path / "fruit")


def test_a_folder_of_underscores_does_not_vanish(tmp_path):
    write_split(tmp_path / "fruit", "", classes=("___", "pear", "fig"))
    with pytest.raises(BenchError, match="there is no word in its name"):
        image_folder(tmp_path / "fruit")


def test_turned_photographs_have_other_features_than_the_same_files_as_they_lie(divided, tmp_path):
    from bench.images.files import ImageFiles

    shown = image_folder(divided).open_split("train", Folders(tmp_path, tmp_path / "cache"))
    lying = ImageFiles(divided, shown.paths, shown.labels, tmp_path / "cache", shown.complain)
    assert shown.upright and not lying.upright and shown.digest != lying.digest
    assert shown.decoding == lying.decoding == shown.limited(1).decoding > 0


def test_images_beside_the_class_folders_of_a_split_are_named(tmp_path):
    write_split(tmp_path / "fruit", "train", "test")
    write_picture(tmp_path / "fruit" / "train" / "9.png", 0)
    with pytest.raises(BenchError, match="train: holds both class folders and images beside them"):
        image_folder(tmp_path / "fruit")
