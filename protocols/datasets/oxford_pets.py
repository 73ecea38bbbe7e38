"""Oxford-IIIT Pet: 37 breeds of cats and dogs (Parkhi et al., CVPR 2012); official trainval and test lists.

Read from images and annotations where torchvision puts them, or from the parquet files of the Hugging Face hub.
"""

import numpy as np

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile, parquet_images
from protocols.datasets.by_name import data_set

FOLDER = "oxford-iiit-pet"
URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
LISTS = {"train": "trainval", "test": "test"}


def _read(copy: Copy, split: str) -> ImageSource:
    """Lines "Abyssinian_100 1 1 1": image, class 1..37, species, breed within the species."""
    path = copy.folder / "annotations" / f"{LISTS[split]}.txt"
    lines = [line.split() for line in copy.text_lines(path) if not line.startswith("#")]
    with copy.reading(path):
        images = [line[0] for line in lines]
        labels = copy.labels([int(line[1]) - 1 for line in lines], path, images)
    for image, label in zip(images, labels):
        if _breed(image) != copy.info.class_names[label]:
            raise copy.damaged(path, f"image {image} has label {label + 1}, which is {copy.info.class_names[label]!r}")
    return copy.files([f"images/{image}.jpg" for image in images], np.asarray(labels))


def _breed(image: str) -> str:
    """
    >>> _breed("american_bulldog_12")
    'American Bulldog'
    """
    return image.rsplit("_", 1)[0].replace("_", " ").title()


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    return parquet_images(copy, f"{split}-*.parquet", classes=copy.info.class_names)


oxford_pets = data_set(
    "oxford-pets",
    Layout(
        FOLDER,
        ("images", "annotations/trainval.txt", "annotations/test.txt"),
        _read,
        download=(
            RemoteFile((f"{URL}/images.tar.gz",), digest="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", into=FOLDER),
            RemoteFile((f"{URL}/annotations.tar.gz",), digest="md5:95a8c909bbe2e81eed6a22bccdf3f68f", into=FOLDER),
        ),
    ),
    Layout(
        FOLDER,
        ("train-*.parquet", "test-*.parquet"),
        _read_parquet,
        download=(HubFiles("timm/oxford-iiit-pet", ("data/train-*.parquet", "data/test-*.parquet"), into=FOLDER),),
    ),
    version="1",
    summary="37 breeds of cats and dogs",
    origin="https://www.robots.ox.ac.uk/~vgg/data/pets; CC BY-SA 4.0",
    train_images=3680,
    test_images=3669,
    image_size=(375, 500),
)
