"""Stanford Cars: 196 models (Krause et al., 2013); official split, labels and class names of the devkit.

The original host is gone. Read from the devkit and image folders where torchvision expects them, from the parquet files
of a copy on the Hugging Face hub (fetched by itself), or from mammoth's tensors ("cars196"), as CGIL uses them: resized
to 224 pixels once, so that numbers from them can differ slightly from those of the originals. The digest of the images
in the results tells which it was.
"""

import json
import sys
from pathlib import Path

import numpy as np

from bench import Copy, HubFiles, ImageSource, Layout, parquet_images
from protocols.datasets.by_name import data_set

FOLDER = "stanford_cars"
ANNOTATIONS = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
IMAGES = {"train": "cars_train", "test": "cars_test"}
TENSORS = ("train_images.pt", "train_labels.pt", "test_images.pt", "test_labels.pt")


def _read(copy: Copy, split: str) -> ImageSource:
    """An array "annotations" of records with a box, the class 1..196 and the file's name."""
    path = copy.folder / ANNOTATIONS[split]
    with copy.reading(path):
        annotations = np.atleast_1d(_matlab(path, "annotations"))
        paths = [f"{IMAGES[split]}/{record['fname']}" for record in annotations]
        numbers = [int(record["class"]) - 1 for record in annotations]
    return copy.files(paths, copy.labels(numbers, path, paths))


def _matlab(path: Path, variable: str) -> np.ndarray:
    from scipy.io import loadmat

    return loadmat(path, squeeze_me=True)[variable]


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    return parquet_images(copy, f"{split}-*.parquet", classes=copy.info.class_names)


def _read_tensors(copy: Copy, split: str) -> ImageSource:
    """uint8 (n, 3, 224, 224) and labels (n,); class_names.json, where there is one, says how these labels are called."""
    import torch

    images_path, labels_path = (copy.folder / f"{split}_{what}.pt" for what in ("images", "labels"))
    with copy.reading(images_path):
        images = torch.load(images_path, map_location="cpu", weights_only=True, mmap=True)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"a tensor {images.dtype} {tuple(images.shape)}, not uint8 (n, 3, height, width)")
    with copy.reading(labels_path):
        labels = copy.labels(torch.load(labels_path, map_location="cpu", weights_only=True).numpy(), labels_path)
        if len(labels) != len(images):
            raise ValueError(f"{len(labels)} labels for {len(images)} images")
    pixels = images.permute(0, 2, 3, 1).numpy()  # a view: read from the file as it is needed
    return ImageSource.from_arrays(pixels, _as_in_devkit(copy, labels))


def _as_in_devkit(copy: Copy, labels: np.ndarray) -> np.ndarray:
    path = copy.folder / "class_names.json"
    if not path.exists():
        return labels
    with copy.reading(path):
        names = list(json.loads(path.read_text(encoding="utf-8")).values())
    if sorted(names) == sorted(copy.info.class_names):
        return np.array([copy.info.class_names.index(name) for name in names])[labels]
    print(f"note: {copy.info.name}: {path} spells class names differently; labels are taken as the devkit's", file=sys.stderr)
    return labels


stanford_cars = data_set(
    "stanford-cars",
    Layout(FOLDER, ("cars_train", "cars_test", *ANNOTATIONS.values()), _read),
    Layout(
        FOLDER,
        ("train-*.parquet", "test-*.parquet"),
        _read_parquet,
        download=(
            HubFiles(
                "tanganke/stanford_cars",
                ("data/train-*.parquet", "data/test-*.parquet"),
                into=FOLDER,
                revision="9abf6cf7d6dfa7b95152a0d6e791ea9435b47a40",
            ),
        ),
    ),
    Layout("cars196", TENSORS, _read_tensors, download=(HubFiles("aimagelab-ta/cars196", ("*.pt", "*.json"), into="cars196"),)),
    version="1",
    summary="196 models of cars",
    origin="Krause et al., 2013 (its page is gone); non-commercial research",
    train_images=8144,
    test_images=8041,
    image_size=(400, 600),
)
