"""Food-101: 101 dishes (Bossard et al., ECCV 2014); official lists: 750 training, 250 test images of each.

Read from images and the lists in meta/, or from the parquet files of the Hugging Face hub.
"""

import json

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile, parquet_images
from protocols.datasets.by_name import data_set

FOLDER = "food-101"
HUB_SPLITS = {"train": "train", "test": "validation"}


def _read(copy: Copy, split: str) -> ImageSource:
    """{"apple_pie": ["apple_pie/1005649", ...], ...}"""
    path = copy.folder / "meta" / f"{split}.json"
    with copy.reading(path):
        lists = json.loads(path.read_text(encoding="utf-8"))
        images = [image for own in lists.values() for image in own]
        names = [name for name, own in lists.items() for _ in own]
    classes = [name.replace(" ", "_") for name in copy.info.class_names]
    labels = copy.labels_by_name(path, images, names, classes)
    return copy.files([f"images/{image}.jpg" for image in images], labels)


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    return parquet_images(copy, f"{HUB_SPLITS[split]}-*.parquet", classes=copy.info.class_names)


food101 = data_set(
    "food101",
    Layout(
        FOLDER,
        ("images", "meta/train.json", "meta/test.json"),
        _read,
        download=(
            RemoteFile(("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",), digest="md5:85eeb15f3717b99a5da872d97d918f87"),
        ),
    ),
    Layout(
        FOLDER,
        ("train-*.parquet", "validation-*.parquet"),
        _read_parquet,
        download=(HubFiles("ethz/food101", ("data/train-*.parquet", "data/validation-*.parquet"), into=FOLDER),),
    ),
    version="1",
    summary="101 dishes, training labels partly wrong",
    origin="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101; for research, images belong to their authors",
    train_images=75_750,
    test_images=25_250,
    image_size=(512, 512),
)
