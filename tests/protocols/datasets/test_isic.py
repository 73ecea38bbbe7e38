"""ISIC from pickled arrays with values in [0, 1]."""

import pickle

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set, picture


def write_isic(folder, as_list: bool = False, **changed) -> None:
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "test")):
        labels = [k for k in range(6) for _ in range(3 if split == "train" else 1)]
        images = np.stack([np.array(picture(k, number + n, size=(9, 9))) for n, k in enumerate(labels)]) / 255
        content = {"images": list(images) if as_list else images, "labels": labels if as_list else np.array(labels), **changed}
        for what in ("images", "labels"):
            (folder / f"{split}_{what}.pkl").write_bytes(pickle.dumps(content[what]))


@pytest.mark.parametrize("as_list", [False, True])
def test_isic_from_pickled_arrays(folders, as_list):
    write_isic(folders.data / "isic", as_list)
    check_data_set("isic", folders, train=18, test=6)


def test_bytes_are_what_the_authors_program_makes_of_them(folders):
    """It casts to signed bytes, which wrap around, and reads these as unsigned: 255 x, without its fraction."""
    write_isic(folders.data / "isic")
    values = pickle.loads((folders.data / "isic" / "test_images.pkl").read_bytes())  # written above
    theirs = (values * 255).astype(np.int64).astype(np.int8).view(np.uint8)
    assert (np.stack(registry.load("dataset", "isic").open_split("test", folders).read(np.arange(6))) == theirs).all()


@pytest.mark.parametrize(
    ("changed", "file", "message"),
    [
        ({"labels": list(range(1, 19))}, "train_labels.pkl", "label 6 of image 5 is out of range 0..5"),
        ({"labels": [0, 1]}, "train_images.pkl", "18 images and 2 labels"),
        ({"images": np.full((18, 4, 4, 3), 200.0)}, "train_images.pkl", "values 200.0 to 200.0, not RGB in"),
        ({"images": np.zeros((18, 4, 4))}, "train_images.pkl", r"shape \(4, 4\)"),
    ],
)
def test_wrong_content_is_named(folders, changed, file, message):
    write_isic(folders.data / "isic", **changed)
    with pytest.raises(BenchError, match=f"isic: {folders.data / 'isic' / file}: .*{message}"):
        registry.load("dataset", "isic").open_split("train", folders)


def test_a_pickle_that_asks_for_more_than_data_is_refused(folders):
    write_isic(folders.data / "isic", labels=print)
    with pytest.raises(BenchError, match="the file asks for .*print, which is not data; it is refused"):
        registry.load("dataset", "isic").open_split("train", folders)
