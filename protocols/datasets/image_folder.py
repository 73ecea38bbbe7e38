"""Any folder of images as a data set: a sub-folder is a class, and its name the class's name.

    pets/train/tabby_cat/1.jpg, pets/test/tabby_cat/7.jpg     train/ and test/ side by side: they are the splits
    pets/tabby_cat/1.jpg                                      else a fixed fifth of every class is for testing

Images may lie deeper in a class's folder. Sub-folders whose names begin with a dot or two underscores are left out, and so
is whatever lies beside train/ and test/.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from bench.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.errors import BenchError
from bench.image_files import SUFFIXES, ImageFiles, images_below

RULE = "1"  # bump when the classes, their names or the split of a folder change
TEMPLATE = "a photo of a {}."
SPLITS = ("train", "test")
TEST_SHARE = 0.2


def image_folder(path: str | Path) -> Dataset:
    """The data set in a folder; a list of its files is read at once, an image only when it is needed.

    Its name is "folder:" and the folder's own name, whatever lies above. Its version holds a digest of the files' names, so
    that a run on a folder that has changed is another run. Raises BenchError for a folder that holds no classes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise BenchError(f"{root}: there is no such folder; give one that has a sub-folder of images for every class")
    splits = _listed(root)
    classes = list(splits["train"])
    names = tuple(name.replace("_", " ").replace("-", " ").strip() for name in classes)
    files = {split: [path for own in splits[split].values() for path in own] for split in SPLITS}
    listed = "\n".join(f"{split} {path}" for split in SPLITS for path in files[split])
    info = DatasetInfo(
        name=f"folder:{root.resolve().name}",
        version=f"{RULE}.{hashlib.sha256(listed.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}",
        class_names=names,
        templates=(TEMPLATE,),
        summary=f"{len(names)} classes of images in {root}",
        origin=f"the folder {root}",
        train_images=len(files["train"]),
        test_images=len(files["test"]),
    )
    labels = {split: np.repeat(np.arange(len(classes)), [len(own) for own in splits[split].values()]) for split in SPLITS}
    return Dataset(info, partial(_open_split, root, files, labels), content="own")


def _open_split(
    root: Path, files: dict[str, list[str]], labels: dict[str, np.ndarray], split: str, folders: Folders
) -> ImageSource:
    def complain(path: Path, why: str) -> BenchError:
        return BenchError(f"{path}: {why}; replace or remove the file")

    return ImageFiles(root, files[split], labels[split], folders.cache, complain)


def _listed(root: Path) -> dict[str, dict[str, list[str]]]:
    """split -> folder of a class -> its images, relative to the root; the classes of both splits are equal and sorted."""
    subfolders = _subfolders(root)
    if all(split in subfolders for split in SPLITS):
        found = {split: {name: _images(root, f"{split}/{name}") for name in _subfolders(root / split)} for split in SPLITS}
        for split, other in (SPLITS, SPLITS[::-1]):
            for name in found[other]:
                if not found[split].get(name):
                    raise BenchError(f"{root / split / name}: class {name!r} is in {other} but has no images here; add some")
        splits = found
    else:
        splits = _divided({name: _images(root, name) for name in subfolders}, root)
    if len(splits["train"]) < 2:
        raise BenchError(f"{root}: {len(splits['train'])} class folders; a stream needs at least two sub-folders with images")
    return splits


def _divided(classes: dict[str, list[str]], root: Path) -> dict[str, dict[str, list[str]]]:
    """A fifth of every class is for testing, at least one image: those whose names have the smallest digests."""
    splits: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for name, images in classes.items():
        if len(images) < 2:
            raise BenchError(f"{root / name}: {len(images)} images; a class needs at least two, one to train and one to test")
        ranked = sorted(images, key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest())
        chosen = set(ranked[: max(1, round(TEST_SHARE * len(images)))])
        splits["test"][name] = [path for path in images if path in chosen]
        splits["train"][name] = [path for path in images if path not in chosen]
    return splits


def _subfolders(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def _images(root: Path, folder: str) -> list[str]:
    """The images of a class, relative to the root."""
    found = images_below(root / folder, f"{folder}/")
    if not found:
        raise BenchError(
            f"{root / folder}: no image in it ({', '.join(SUFFIXES)}); every sub-folder is a class: add images or remove it"
        )
    return found
