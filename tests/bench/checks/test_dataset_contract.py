"""The contract that `bench check` holds data sets to, and that it notices those that break it."""

import itertools

import numpy as np
import pytest

from bench.checks import dataset as dataset_contract
from bench.errors import BenchError
from bench.images.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.images.layouts import Layout
from bench.system import registry

NAMES = ("red", "green", "blue")
FACTS = {
    "name": "toy", "version": "1", "class_names": NAMES, "templates": ("a {}.",), "summary": "a toy", "origin": "made here",
    "train_images": 6, "test_images": 3,
}  # fmt: skip
PER_CLASS = {"train": 2, "test": 1}
opened = itertools.count()


def labels_of(split: str) -> np.ndarray:
    return np.repeat(np.arange(3), PER_CLASS[split])


def images_of(split: str) -> np.ndarray:
    return np.full((3 * PER_CLASS[split], 4, 4, 3), 10 if split == "train" else 20, np.uint8)


def good(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split), labels_of(split))


def another_label(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split), labels_of(split) + (split == "test"))


def one_class_less(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split), np.minimum(labels_of(split), 1) if split == "test" else labels_of(split))


def another_digest_every_time(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split), labels_of(split), f"{split} {next(opened)}")


def other_pixels_every_time(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split) + np.uint8(next(opened) % 100), labels_of(split), split)


def one_digest(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split), labels_of(split), "version 1")


def grey(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split)[..., 0], labels_of(split))


def fractions(split: str, folders: Folders) -> ImageSource:
    return ImageSource.from_arrays(images_of(split) / 255, labels_of(split))


def forgetful(split: str, folders: Folders) -> ImageSource:
    source = good(split, folders)
    return ImageSource(source.labels, lambda rows: source.read(rows)[1:], split)


def raising(split: str, folders: Folders) -> ImageSource:
    raise KeyError(split)


def checked(monkeypatch, tmp_path, open_split=good, layouts=(), **facts) -> list[dataset_contract.Result]:
    dataset = Dataset(DatasetInfo(**FACTS | facts), open_split, layouts)
    monkeypatch.setattr(registry, "load", lambda kind, name: dataset)
    return dataset_contract.check("toy", Folders(tmp_path, tmp_path))


def test_a_data_set_of_the_mini_world_keeps_the_contract(cache):
    results = dataset_contract.check("mini-digits", Folders(cache, cache))
    assert len(results) == 7 and not [result for result in results if not result.passed]


def test_a_toy_keeps_the_contract(monkeypatch, tmp_path):
    assert not [result for result in checked(monkeypatch, tmp_path) if not result.passed]


@pytest.mark.parametrize(
    ("changes", "promise", "complaint"),
    [
        ({"version": "", "origin": ""}, "says what it is", "missing: version, origin"),
        ({"name": "other"}, "says what it is", "its entry point calls it 'toy', its info 'other'"),
        ({"templates": ("a {}.", "a thing")}, "says what it is", "not with one {}: 'a thing'"),
        ({"class_names": ("red", "green", "red")}, "names every class", "the name of several classes: 'red'"),
        ({"class_names": ("red", " ", "blue")}, "names every class", "no name: class 1"),
        ({"train_images": 60}, "has as many images", "train: 6 images, the official number is 60"),
        ({"open_split": one_class_less}, "has as many images", "test: no image of blue"),
        ({"open_split": grey}, "gives every image", "train: image 0 is uint8 of shape (4, 4), not uint8 of (height, width, 3)"),
        ({"open_split": fractions}, "gives every image", "train: image 0 is float64 of shape (4, 4, 3)"),
        ({"open_split": forgetful}, "gives every image", "train: 5 images were read where 6 were asked for"),
        ({"open_split": another_digest_every_time}, "gives the same images", "train: opened twice, it has two digests"),
        ({"open_split": other_pixels_every_time}, "gives the same images", "it has other pixels in image 0, 1"),
        ({"open_split": one_digest}, "gives the same images", "both splits have the same digest"),
    ],
)
def test_a_data_set_that_breaks_a_promise_is_told_which(changes, promise, complaint, monkeypatch, tmp_path):
    (broken,) = [result for result in checked(monkeypatch, tmp_path, **changes) if not result.passed]
    assert broken.name.startswith(promise) and complaint in broken.detail and "\n" not in broken.detail


def test_labels_that_are_no_classes_are_told(monkeypatch, tmp_path):
    broken = [result for result in checked(monkeypatch, tmp_path, another_label) if not result.passed]
    assert broken[0].name == "labels every image with one of its classes"
    assert broken[0].detail == "test: label 3 of image 2 is out of range 0..2"


def test_whatever_a_plug_in_raises_is_a_broken_promise(monkeypatch, tmp_path):
    broken = [result for result in checked(monkeypatch, tmp_path, raising) if not result.passed]
    assert len(broken) == 4 and {result.detail for result in broken} == {"KeyError: 'train'"}


def test_files_that_are_not_there_are_said_to_be(monkeypatch, tmp_path):
    with pytest.raises(BenchError, match=r"data set toy is not in .*/toys; get toys.zip, so that .*/toys has train, test"):
        checked(monkeypatch, tmp_path, layouts=(Layout("toys", ("train", "test"), good, by_hand="get toys.zip"),))

    def not_there(split: str, folders: Folders) -> ImageSource:
        raise BenchError("get toys.zip")

    with pytest.raises(BenchError, match=r"get toys.zip"):
        checked(monkeypatch, tmp_path, not_there)


def test_files_are_compared_with_the_official_ones(monkeypatch, tmp_path):
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "all.bin").write_bytes(b"other")
    layout = Layout("toys", ("all.bin",), lambda copy, split: good(split, None), official={"all.bin": "md5:0"})
    found = {result.name: result.detail for result in checked(monkeypatch, tmp_path, layouts=(layout,)) if not result.passed}
    assert len(found) == 2
    assert "how to get its files" in found[dataset_contract.describes_itself.__doc__]
    files = found[dataset_contract.files_are_official.__doc__]
    assert files == "all.bin: its digest differs from the official one (md5 0)"


# two pairs of ImageNet's classes have the same name in the list of names that CLIP's authors published
PUBLISHED_TWICE = {"imagenet": "the name of several classes: 'missile', 'sunglasses'"}


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_every_data_set_describes_itself_and_its_classes(name, tmp_path):
    bench = dataset_contract.Trial(name, registry.load("dataset", name), Folders(tmp_path, tmp_path), layout=None)
    assert dataset_contract.describes_itself(bench) == ""
    assert dataset_contract.names_its_classes(bench) == PUBLISHED_TWICE.get(name, "")
