"""MNIST: handwritten digits, 28 x 28 grey pixels (LeCun, Cortes, Burges); official 60,000 and 10,000 images.

Read from the four idx files, packed with gzip or not, where torchvision puts them (MNIST/raw) or in mnist; or from the
parquet files of the Hugging Face hub. Grey becomes RGB when an image is read.
"""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile, parquet_images
from protocols.datasets.by_name import data_set

FILES = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist")
PREFIX = {"train": "train", "test": "t10k"}
UINT8 = 8  # the idx format's code for its type of elements


def _read(copy: Copy, split: str) -> ImageSource:
    images_path = _one_of(copy, f"{PREFIX[split]}-images-idx3-ubyte")
    labels_path = _one_of(copy, f"{PREFIX[split]}-labels-idx1-ubyte")
    images = _idx(copy, images_path, dimensions=3)
    labels = copy.labels(_idx(copy, labels_path, dimensions=1), labels_path)
    if len(images) != len(labels):
        raise copy.damaged(labels_path, f"{len(labels)} labels for the {len(images)} images of {images_path.name}")

    def read(rows: np.ndarray) -> np.ndarray:
        return np.repeat(images[rows][..., None], 3, axis=3)

    return ImageSource(labels, read, lambda: hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())


def _one_of(copy: Copy, name: str) -> Path:
    """The file as it is, or packed."""
    plain = copy.folder / name
    return plain if plain.exists() else copy.folder / f"{name}.gz"


def _idx(copy: Copy, path: Path, dimensions: int) -> np.ndarray:
    """An array of bytes: two zeros, type, number of dimensions, then each size (big-endian, 4 bytes), then the elements."""
    with copy.reading(path):
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        zeros, kind, found = struct.unpack_from(">HBB", content)
        if (zeros, kind, found) != (0, UINT8, dimensions):
            raise ValueError(f"not an idx file of bytes in {dimensions} dimensions")
        sizes = struct.unpack_from(f">{dimensions}I", content, offset=4)
        elements = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        if len(elements) != np.prod(sizes):
            raise ValueError(f"{len(elements)} elements, {' x '.join(map(str, sizes))} announced")
        return elements.reshape(sizes)


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    return parquet_images(copy, f"{split}-*.parquet", classes=[str(digit) for digit in range(10)])


NEEDS = tuple(name.removesuffix(".gz") + "*" for name in FILES)

mnist = data_set(
    "mnist",
    Layout(
        "MNIST/raw",
        NEEDS,
        _read,
        download=tuple(
            RemoteFile(tuple(f"{mirror}/{name}" for mirror in MIRRORS), digest=digest, into="MNIST/raw")
            for name, digest in FILES.items()
        ),
        official=FILES,
    ),
    Layout("mnist", NEEDS, _read, official=FILES),
    Layout(
        "mnist",
        ("train-*.parquet", "test-*.parquet"),
        _read_parquet,
        download=(HubFiles("ylecun/mnist", ("mnist/train-*.parquet", "mnist/test-*.parquet"), into="mnist"),),
    ),
    version="1",
    summary="handwritten digits",
    origin="http://yann.lecun.com/exdb/mnist; copyright Y. LeCun and C. Cortes, CC BY-SA 3.0",
    train_images=60_000,
    test_images=10_000,
    image_size=(28, 28),
)
