"""Oxford 102 Flowers (Nilsback and Zisserman, ICVGIP 2008): official training list (1020) and test list (6149).

The official validation list is not used, as in MTIL. Read from the Matlab files imagelabels.mat and setid.mat, or from
the parquet files of the Hugging Face hub.
"""

from pathlib import Path

import numpy as np

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile, parquet_images
from protocols.datasets.by_name import data_set

FOLDER = "flowers-102"
URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
LISTS = {"train": "trnid", "test": "tstid"}
OFFICIAL = {
    "imagelabels.mat": "md5:e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "md5:a5357ecc9cb78c4bef273ce3793fc85c",
}


def _read(copy: Copy, split: str) -> ImageSource:
    """Image k of 1..8189 is jpg/image_0000k.jpg; its label 1..102 is the k-th of imagelabels.mat."""
    lists, all_labels = copy.folder / "setid.mat", copy.folder / "imagelabels.mat"
    numbers = _matlab_row(copy, lists, LISTS[split])
    labels = _matlab_row(copy, all_labels, "labels")
    outside = numbers[(numbers < 1) | (numbers > len(labels))]
    if len(outside):
        raise copy.damaged(lists, f"image {outside[0]} of {LISTS[split]} has no label, imagelabels.mat has {len(labels)}")
    paths = [f"jpg/image_{number:05d}.jpg" for number in numbers]
    return copy.files(paths, copy.labels(labels[numbers - 1] - 1, all_labels, paths))


def _matlab_row(copy: Copy, path: Path, variable: str) -> np.ndarray:
    """A vector of whole numbers of a Matlab file, as int64."""
    from scipy.io import loadmat

    with copy.reading(path):
        content = loadmat(path)
        if variable not in content:
            raise ValueError(f"it has no variable {variable}")
        return np.asarray(content[variable]).reshape(-1).astype(np.int64)


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    return parquet_images(copy, f"{split}-*.parquet", classes=copy.info.class_names)


flowers102 = data_set(
    "flowers102",
    Layout(
        FOLDER,
        ("jpg", *OFFICIAL),
        _read,
        download=(
            RemoteFile((f"{URL}/102flowers.tgz",), digest="md5:52808999861908f626f3c1f4e79d11fa", into=FOLDER),
            *(RemoteFile((f"{URL}/{name}",), digest=digest, into=FOLDER) for name, digest in OFFICIAL.items()),
        ),
        official=OFFICIAL,
    ),
    Layout(
        FOLDER,
        ("train-*.parquet", "test-*.parquet"),
        _read_parquet,
        download=(HubFiles("dpdl-benchmark/oxford_flowers102", ("data/train-*.parquet", "data/test-*.parquet"), into=FOLDER),),
    ),
    version="1",
    summary="102 kinds of flowers, ten training images of each",
    origin="https://www.robots.ox.ac.uk/~vgg/data/flowers/102; no licence stated",
    train_images=1020,
    test_images=6149,
    image_size=(500, 600),
)
