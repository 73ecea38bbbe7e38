"""CoOp's split files, with the images in the folders of CoOp's instructions and in those of the other splits."""

import json

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from protocols.datasets import coop
from tests.protocols.datasets.miniatures import check_data_set, write_picture

PARTS = {"train": range(3), "val": range(3, 4), "test": range(4, 6)}
# data set: (folder, where in it the images lie, split file, what is written before an image's name there)
PLACES = {
    "caltech101-coop": ("caltech101", "101_ObjectCategories", coop.CALTECH101, "{name}/"),
    "dtd-coop": ("dtd/dtd", "images", coop.DTD, "{name}/"),
    "flowers102-coop": ("flowers-102", "jpg", coop.FLOWERS, ""),
    "food101-coop": ("food-101", "images", coop.FOOD, "{name}/"),
    "oxford-pets-coop": ("oxford-iiit-pet", "images", coop.PETS, ""),
    "stanford-cars-coop": ("stanford_cars", "", "split_zhou_StanfordCars.json", "cars_{part}/"),
    "sun397-coop": ("SUN397", "", coop.SUN, "{letter}/{name}/"),
}
ELSEWHERE = {
    "caltech101-coop": ("caltech-101", "101_ObjectCategories", coop.CALTECH101, "{name}/"),
    "dtd-coop": ("dtd", "images", coop.DTD, "{name}/"),
    "flowers102-coop": ("oxford_flowers", "jpg", coop.FLOWERS, ""),
    "oxford-pets-coop": ("oxford_pets", "images", coop.PETS, ""),
    "sun397-coop": ("sun397", "SUN397", coop.SUN, "{letter}/{name}/"),
}


def write_copy(data, name: str, place: tuple[str, str, str, str], classes: int = 10_000) -> dict:
    """A miniature: six images of each class, the names with underscores, the file as CoOp's programs write it."""
    folder, images, file, before = place
    split: dict[str, list] = {part: [] for part in PARTS}
    for label, title in enumerate(registry.load("dataset", name).info.class_names[:classes]):
        spoken = title.replace(" ", "_")
        for part, numbers in PARTS.items():
            prefix = before.format(name=spoken.replace("/", "_"), letter=title[0], part="test" if part == "test" else "train")
            for number in numbers:
                path = f"{prefix}{label:03d}_{number}.jpg"
                write_picture(data / folder / images / path, label, number)
                split[part].append([path, label, spoken])
    (data / folder / file).write_text(json.dumps(split))
    return split


def read(name: str, split: str, folders):
    return registry.load("dataset", name).open_split(split, folders)


@pytest.mark.parametrize("name", ["dtd-coop", "oxford-pets-coop", "stanford-cars-coop"])
def test_whole_copies(folders, name):
    write_copy(folders.data, name, PLACES[name])
    classes = len(registry.load("dataset", name).info.class_names)
    check_data_set(name, folders, train=3 * classes, test=2 * classes)


@pytest.mark.parametrize(("name", "place"), [*PLACES.items(), *ELSEWHERE.items()])
def test_each_part_has_its_images_in_the_order_of_the_file(folders, name, place):
    split = write_copy(folders.data, name, place, classes=4)
    for needed in ("a/abbey", "y/youth_hostel"):
        (folders.data / "SUN397" / needed).mkdir(parents=True, exist_ok=True)
    prefix = f"{place[1]}/" if place[1] else ""
    for part in ("train", "test"):
        source = read(name, part, folders)
        assert source.paths.tolist() == [prefix + path for path, _, _ in split[part]]
        assert source.labels.tolist() == [label for _, label, _ in split[part]]
    assert not {path for path, _, _ in split["val"]} & {path.removeprefix(prefix) for path in source.paths}


def changed(folders, change, name="dtd-coop"):
    """Of a miniature whose split file has been changed: the training images, and the file."""
    split = write_copy(folders.data, name, PLACES[name], classes=5)
    change(split)
    path = folders.data / PLACES[name][0] / PLACES[name][2]
    path.write_text(json.dumps(split))
    return lambda: read(name, "train", folders), path


def test_a_class_is_found_by_its_name_whatever_its_label(folders):
    def renumber(split):
        for part in split.values():
            for entry in part:
                entry[1] = 4 - entry[1]

    images, _ = changed(folders, renumber)
    assert images().labels.tolist() == np.repeat(np.arange(5), 3).tolist()


def test_a_name_that_is_written_in_another_way_goes_by_its_label_and_is_said(folders, capsys):
    def respell(split):
        for entry in split["train"][3:6]:
            entry[2] = "Blotched"

    images, _ = changed(folders, respell)
    assert images().labels.tolist() == np.repeat(np.arange(5), 3).tolist()
    assert "calls class 1 'blotched'; prompts are made of 'blotchy'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: split["train"][3].__setitem__(2, "zebra"), "of class 'zebra' with label 1, which .* gives to 'blotchy'"),
        (lambda split: split["train"][3].__setitem__(1, 47), "label 47 of blotchy/001_0.jpg is out of range 0..46"),
        (lambda split: split.pop("train"), "the file is damaged .*train"),
        (lambda split: split["train"].append(["blotchy/001_0.jpg"]), "the file is damaged .*IndexError"),
    ],
)
def test_a_wrong_split_file_is_named(folders, change, message):
    images, path = changed(folders, change)
    with pytest.raises(BenchError, match=f"dtd-coop: {path}: .*{message}"):
        images()


def test_a_missing_split_file_is_asked_for(folders):
    write_copy(folders.data, "dtd-coop", PLACES["dtd-coop"], classes=4)
    (folders.data / "dtd/dtd" / coop.DTD).unlink()
    with pytest.raises(BenchError, match=rf"dtd-coop is not in .*dtd/dtd or .*dtd \(missing: {coop.DTD}\)"):
        read("dtd-coop", "test", folders)


def test_cars_are_asked_for_in_words(folders):
    with pytest.raises(BenchError, match=r"stanford-cars-coop is not in .*copy CoOp's cars_train"):
        read("stanford-cars-coop", "train", folders)


def test_the_same_images_have_x_tails_names():
    names = {name: registry.load("dataset", name).info.class_names for name in ("eurosat-xtail", "mnist-xtail", "eurosat-coop")}
    assert names["eurosat-xtail"] == tuple(f"{name} satellite location" for name in names["eurosat-coop"])
    assert names["mnist-xtail"][3] == 'number: "3 - three"'
    for name in ("eurosat", "mnist"):
        original = registry.load("dataset", "eurosat-coop" if name == "eurosat" else "mnist")
        assert registry.load("dataset", f"{name}-xtail").layouts == original.layouts
