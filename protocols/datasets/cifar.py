"""CIFAR-10 and CIFAR-100: 32x32 photographs of 10 and 100 classes (Krizhevsky, 2009).

Read from the pickled batches of the official archive, where torchvision puts them ("cifar-100-python"), or from the
parquet files of the Hugging Face hub in the same folder. Pickles are read by a reader that knows data only.
"""

from functools import partial
from typing import Any, cast

import numpy as np

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile, parquet_images
from bench.images import pickles
from protocols.datasets.by_name import data_set

ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar.html; collected from the web for research, no licence stated"
SIDE = 32

BATCHES_10 = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "md5:40351d587109b95175f43aff81a1287e",
}
BATCHES_100 = {"train": "md5:16019d7e3df5f24257cddd939b257f8d", "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"}


def _read_batches(label_key: str, copy: Copy, split: str) -> ImageSource:
    """The images of the pickled batches: rows of 3072 bytes, red, green and blue planes one after another."""
    files = sorted(path for path in copy.folder.iterdir() if _split_of(path.name) == split)
    images, labels = [], []
    for path in files:
        with copy.reading(path):
            content = cast(dict[str | bytes, Any], pickles.load(path.read_bytes()))  # anything else fails here, and is said
            batch = {_text(key): value for key, value in content.items()}
            rows = np.asarray(batch["data"], np.uint8).reshape(-1, 3, SIDE, SIDE)
            images.append(rows.transpose(0, 2, 3, 1))
            labels.append(copy.labels(batch[label_key], path))
            if len(rows) != len(labels[-1]):
                raise ValueError(f"{len(rows)} images and {len(labels[-1])} labels")
    return ImageSource.from_arrays(np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels))


def _text(key: str | bytes) -> str:
    """The official batches come from Python 2; copies written by Python 3 may have the keys as bytes."""
    return key.decode("ascii") if isinstance(key, bytes) else key


def _split_of(file_name: str) -> str | None:
    """Which split a batch belongs to, if the file is one."""
    if file_name in BATCHES_10 or file_name in BATCHES_100:
        return "test" if file_name.startswith("test") else "train"
    return None


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    """The hub's labels are the official ones; their names there have a slip ("cra" for crab) and are not compared."""
    return parquet_images(copy, f"{split}-*.parquet", ("img", "image"), ("fine_label", "label"))


def _layouts(folder: str, batches: dict[str, str], label_key: str, archive: str, md5: str, hub: str) -> tuple[Layout, ...]:
    url = f"https://www.cs.toronto.edu/~kriz/{archive}"
    parquet = ("train-*.parquet", "test-*.parquet")
    return (
        Layout(
            folder,
            tuple(batches),
            partial(_read_batches, label_key),
            download=(RemoteFile((url,), digest=md5),),
            official=batches,
        ),
        Layout(
            folder,
            parquet,
            _read_parquet,
            download=(HubFiles(hub, tuple(f"*/{pattern}" for pattern in parquet), into=folder),),
        ),
    )


CIFAR10 = _layouts(
    "cifar-10-batches-py", BATCHES_10, "labels", "cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a",
    "uoft-cs/cifar10",
)  # fmt: skip
CIFAR100 = _layouts(
    "cifar-100-python", BATCHES_100, "fine_labels", "cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85",
    "uoft-cs/cifar100",
)  # fmt: skip


_cifar = partial(data_set, version="1", origin=ORIGIN, train_images=50_000, test_images=10_000, image_size=(SIDE, SIDE))

cifar10 = _cifar("cifar10", *CIFAR10, summary="photographs of 10 kinds of animals and vehicles", templates="cifar")
cifar100 = _cifar("cifar100", *CIFAR100, summary="photographs of 100 kinds of things", templates="cifar")
cifar100_cil = _cifar(
    "cifar100-cil",
    *CIFAR100,
    summary="CIFAR-100 with the names (aquarium_fish) and the template of ZSCL's class-incremental program",
    names="cifar100-underscores",
    templates="bad-photo",
)
