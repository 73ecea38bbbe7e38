"""ISIC: six kinds of skin lesions, the subset of CGIL's authors (by its names ISIC 2018 task 3 without the nevi).

Which images belong to it is defined only by their copy: pickled arrays train_images.pkl, train_labels.pkl,
test_images.pkl, test_labels.pkl, with values in [0, 1]. Their program turns these into bytes by multiplying with 255 and
cutting off the fraction (by way of signed bytes that wrap around); so does this reader. Pickles are read by a reader that
knows data only.
"""

from collections.abc import Iterable
from typing import cast

import numpy as np

from bench import Copy, HubFiles, ImageSource, Layout
from bench.images import pickles
from protocols.datasets.by_name import data_set

FILES = ("train_images.pkl", "train_labels.pkl", "test_images.pkl", "test_labels.pkl")


def _read(copy: Copy, split: str) -> ImageSource:
    labels_path, images_path = copy.folder / f"{split}_labels.pkl", copy.folder / f"{split}_images.pkl"
    with copy.reading(labels_path):
        labels = copy.labels(np.asarray(pickles.load(labels_path.read_bytes())).reshape(-1), labels_path)
    with copy.reading(images_path):
        images = cast(Iterable[np.ndarray], pickles.load(images_path.read_bytes()))  # anything else fails here, and is said
        pixels = [_to_bytes(image) for image in images]
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
    return ImageSource.from_list(pixels, labels)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """Values in [0, 1] -> uint8 (height, width, 3)."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or not (0 <= image.min() and image.max() <= 1):
        raise ValueError(f"an image of shape {image.shape} with values {image.min()} to {image.max()}, not RGB in [0, 1]")
    return (image * 255).astype(np.uint8)


isic = data_set(
    "isic",
    Layout("isic", FILES, _read, download=(HubFiles("aimagelab-ta/isic", ("*.pkl",), into="isic"),)),
    version="1",
    summary="six kinds of skin lesions, the subset of CGIL",
    origin="https://huggingface.co/datasets/aimagelab-ta/isic, from https://challenge.isic-archive.com (CC BY-NC 4.0)",
    templates="photo",
)
