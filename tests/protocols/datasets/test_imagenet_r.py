"""ImageNet-R under its two lists of test images."""

from collections import Counter

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from protocols.datasets import data
from tests.protocols.datasets.miniatures import check_data_set, write_picture

LISTS = {"imagenet-r": "imagenet-r-test-clap.txt.gz", "imagenet-r-coda": "imagenet-r-test-coda.txt.gz"}
FOLDER = "imagenet-r"


def write_imagenet_r(data_folder, name: str) -> dict[str, list[str]]:
    """For every class two images of the test list and three that are on no list; what must come out, by split."""
    ids = data.wordnet_ids(name)
    on_list: dict[str, list[str]] = {wordnet_id: [] for wordnet_id in ids}
    for path in data.lines(LISTS[name]):
        on_list[path.split("/")[0]].append(path)
    expected = {"train": [], "test": []}
    for wordnet_id in ids:
        expected["test"] += sorted(on_list[wordnet_id])[:2]
        expected["train"] += [f"{wordnet_id}/unlisted_{number}.jpg" for number in range(3)]
    for paths in expected.values():
        for number, path in enumerate(paths):
            write_picture(data_folder / FOLDER / path, ids.index(path.split("/")[0]), number)
    (data_folder / FOLDER / "README.txt").write_text("ImageNet-R")
    return expected


@pytest.mark.parametrize("name", LISTS)
def test_the_split_is_the_list_and_the_rest(folders, name):
    expected = write_imagenet_r(folders.data, name)
    check_data_set(name, folders, train=600, test=400)
    for split, paths in expected.items():
        source = registry.load("dataset", name).open_split(split, folders)
        assert sorted(source.paths) == sorted(paths)
        ids = [path.split("/")[0] for path in source.paths]
        assert [data.wordnet_ids(name)[label] for label in source.labels] == ids


def test_the_two_lists_are_what_the_specification_counts():
    clap, coda = (set(data.lines(name)) for name in LISTS.values())
    assert len(clap) == len(coda) == 6000
    assert len(clap & coda) == 1174
    per_class = Counter(path.split("/")[0] for path in clap)
    assert (min(per_class.values()), max(per_class.values())) == (6, 88)
    per_class = Counter(path.split("/")[0] for path in coda)
    assert (min(per_class.values()), max(per_class.values())) == (5, 81)
    assert set(data.wordnet_ids("imagenet-r")) == set(data.wordnet_ids("imagenet-r-coda")) == set(per_class)


def test_label_orders_and_names():
    assert list(data.wordnet_ids("imagenet-r")) == sorted(data.wordnet_ids("imagenet-r"))
    assert registry.load("dataset", "imagenet-r").info.class_names[1] == "great white shark"
    assert registry.load("dataset", "imagenet-r-coda").info.class_names[:3] == ("ladybug", "jeep", "wood rabbit")


def test_a_missing_class_folder_and_a_truncated_image_are_named(folders):
    expected = write_imagenet_r(folders.data, "imagenet-r")
    path = folders.data / FOLDER / expected["test"][11]
    path.write_bytes(path.read_bytes()[:200])
    source = registry.load("dataset", "imagenet-r").open_split("test", folders)
    with pytest.raises(BenchError, match=f"imagenet-r: {path}: not a whole image"):
        source.read(np.arange(20))
    gone = folders.data / FOLDER / data.wordnet_ids("imagenet-r")[5]
    for image in gone.iterdir():
        image.unlink()
    gone.rmdir()
    with pytest.raises(BenchError, match=f"{gone}: the folder of class 'ostrich' is missing"):
        registry.load("dataset", "imagenet-r").open_split("test", folders)
