"""Miniature copies of the MTIL data sets and the 50-class VTAB, each as it really lies on disk.

Every writer puts `train` and `test` images of every class (as many as the rule of the split gives, where there is one)
into an empty data folder, and whatever else the real copy holds that a reader must pass by.
"""

import gzip
import json
import os
import struct
from pathlib import Path

import numpy as np
from scipy.io import savemat

from bench.images.sources import ImageSource
from bench.system import registry
from protocols.datasets import data as stored
from protocols.datasets.sun397 import folder_of
from tests.protocols.datasets.miniatures import encoded, picture, write_parquet, write_picture


def class_names(name: str) -> tuple[str, ...]:
    return registry.load("dataset", name).info.class_names


def write_text(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_dtd(data: Path, below: str = "dtd/dtd") -> None:
    root = data / below
    for split, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        lines = [f"{name}/{name}_{number:04d}.jpg" for name in class_names("dtd") for number in numbers]
        write_text(root / "labels" / f"{split}1.txt", lines)
        write_text(root / "labels" / f"{split}2.txt", lines[::-1])
    for label, name in enumerate(class_names("dtd")):
        for number in range(1, 5):
            write_picture(root / "images" / name / f"{name}_{number:04d}.jpg", label, number)


def pet_file(label: int, number: int) -> str:
    """Cats' names begin with a capital, dogs' do not."""
    name = class_names("oxford-pets")[label].replace(" ", "_")
    return f"{name if label % 3 == 0 else name.lower()}_{number}"


def write_oxford_pets(data: Path) -> None:
    root = data / "oxford-iiit-pet"
    for split, numbers in (("trainval", (1, 12)), ("test", (7,))):
        images = [(label, number) for label in range(37) for number in numbers]
        order = np.random.default_rng(0).permutation(len(images))  # the official lists are not sorted either
        write_text(
            root / "annotations" / f"{split}.txt",
            [f"{pet_file(*images[k])} {images[k][0] + 1} {1 + images[k][0] % 2} 1" for k in order],
        )
        for label, number in images:
            write_picture(root / "images" / f"{pet_file(label, number)}.jpg", label, number)
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    (root / "annotations" / "trimaps").mkdir()


def write_flowers102(data: Path) -> None:
    """Images are numbered through; labels and lists are rows of Matlab matrices that count from one."""
    root = data / "flowers-102"
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(102), 4))
    rank = np.zeros(len(labels), int)
    for label in range(102):
        rank[labels == label] = np.arange(4)
    numbers = np.arange(1, len(labels) + 1, dtype=np.uint16)
    lists = {"trnid": numbers[rank == 0], "valid": numbers[rank == 1], "tstid": numbers[rank >= 2][::-1]}
    root.mkdir(parents=True)
    savemat(root / "imagelabels.mat", {"labels": (labels + 1).astype(np.uint8)})
    savemat(root / "setid.mat", lists)
    for number, label in zip(numbers, labels):
        write_picture(root / "jpg" / f"image_{number:05d}.jpg", int(label), int(number))


def write_aircraft(data: Path) -> None:
    root = data / "fgvc-aircraft-2013b" / "data"
    variants = class_names("fgvc-aircraft")
    write_text(root / "variants.txt", variants)
    number = 34309
    for split, per_class in (("train", 2), ("val", 1), ("test", 1)):
        lines = []
        for label, variant in enumerate(variants):
            for _ in range(per_class):
                write_picture(root / "images" / f"{number:07d}.jpg", label, number)
                lines.append(f"{number:07d} {variant}")
                number += 17
        write_text(root / f"images_variant_{split}.txt", lines)


def write_caltech101(data: Path, per_class: int = 15) -> None:
    root = data / "caltech101" / "101_ObjectCategories"
    for label, name in enumerate(stored.class_names("caltech101-folders")):
        for number in range(1, per_class + 1):
            write_picture(root / name / f"image_{number:04d}.jpg", label, number)
    write_picture(root / "BACKGROUND_Google" / "image_0001.jpg", 150)
    (root / "BACKGROUND_Google" / "tmp").touch()


def write_food101(data: Path) -> None:
    root = data / "food-101"
    names = [name.replace(" ", "_") for name in class_names("food101")]
    for split, numbers in (("train", (1005649, 1014775)), ("test", (1011328,))):
        lists = {name: [f"{name}/{number}" for number in numbers] for name in names}
        write_text(root / "meta" / f"{split}.json", [json.dumps(lists)])
        for label, name in enumerate(names):
            for number in numbers:
                write_picture(root / "images" / name / f"{number}.jpg", label, number)
    write_text(root / "meta" / "classes.txt", names)


def write_one_of_each(folder: Path, splits, names, format: str = "JPEG", **options) -> None:
    """Parquet files as on the hub: one image of every class in each split; the file says how the labels are called."""
    for number, split in enumerate(splits):
        images = [{"bytes": encoded(label, number, format, **options), "path": None} for label in range(len(names))]
        columns = {"image": images, "label": list(range(len(names)))}
        write_parquet(folder / f"{split}-00000-of-00001.parquet", columns, names)


def write_food101_parquet(data: Path) -> None:
    names = [name.replace(" ", "_") for name in class_names("food101")]
    write_one_of_each(data / "food-101", ("train", "validation"), names)


def write_pets_parquet(data: Path) -> None:
    names = [name.replace(" ", "_").lower() for name in class_names("oxford-pets")]
    write_one_of_each(data / "oxford-iiit-pet", ("train", "test"), names)


def write_flowers_parquet(data: Path) -> None:
    write_one_of_each(data / "flowers-102", ("train", "validation", "test"), class_names("flowers102"))


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in the idx format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(data: Path, below: str = "MNIST/raw", packed: bool = False) -> None:
    for prefix, per_class in (("train", 3), ("t10k", 2)):
        labels = np.random.default_rng(per_class).permutation(np.repeat(np.arange(10), per_class))
        images = np.stack([np.array(picture(k, n, size=(28, 28), mode="L")) for n, k in enumerate(labels)])
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            path = data / below / (f"{name}.gz" if packed else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(idx(array), mtime=0) if packed else idx(array))


def write_mnist_parquet(data: Path) -> None:
    write_one_of_each(data / "mnist", ("train", "test"), [str(digit) for digit in range(10)], format="PNG", mode="L")


def write_sun397(data: Path, per_class: int = 26) -> None:
    """All images of a class are one file under many names, to be quick."""
    root = data / "SUN397"
    names = class_names("sun397")
    for label, name in enumerate(names):
        folder = root / folder_of(name)
        first = folder / f"sun_{'a' * 15}.jpg"
        write_picture(first, label)
        for number in range(1, per_class):
            os.link(first, folder / f"sun_{'a' * 13}{chr(97 + number // 26)}{chr(97 + number % 26)}.jpg")
    write_text(root / "ClassName.txt", sorted(f"/{folder_of(name)}" for name in names))  # as the archive's list is


def write_vtab(data: Path) -> None:
    """The folders are numbered, and do not say the classes' names."""
    for split, per_class in (("train", 2), ("test", 1)):
        for label in range(50):
            for number in range(per_class):
                write_picture(data / "vtab" / split / str(10 + label) / f"{number}.jpg", label, number)
        (data / "vtab" / split / "__MACOSX").mkdir()


def same_as_torchvision(source: ImageSource, samples) -> None:
    """The source holds the same images with the same labels in the same order as (picture, label) of torchvision."""
    samples = list(samples)
    assert source.labels.tolist() == [label for _, label in samples]
    for image, (expected, _) in zip(source.read(np.arange(len(source))), samples):
        assert (image == np.array(expected.convert("RGB"))).all()
