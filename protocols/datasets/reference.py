"""Reference data: images and sentences that belong to no task, for methods that distil on them (ZSCL, section 4 of its paper).

    name                  images                                      sentences
    mini                  drawn by the mini world's pretraining       their captions
    imagenet              ImageNet's training images                  -
    tiny-imagenet         TinyImageNet's training images              -
    imagenet-classes      -                                           the names of ImageNet's 1000 classes
    conceptual-captions   what the user fetched of its validation     all captions of its validation list (15,840)
    folder                any folder of images                        -

Nothing is ever taken instead of what was asked for: what is not there is an error that says how to get it.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from bench import BenchError, Folders, ImageFiles, ImageSource
from bench.errors import one_line
from bench.images import downloads, layouts
from bench.images.listing import Walk, in_words
from bench.system import registry
from protocols.datasets import data

MINI_PAIRS = 1000  # drawn in about a second
CAPTIONS = "conceptual-captions"  # folder below the data folder
CAPTION_LISTS = ("*GCC*Validation*.tsv", "validation-*.parquet")
OFFICIAL_CAPTIONS = 15_840
HUB = downloads.HubFiles("google-research-datasets/conceptual_captions", ("unlabeled/validation-*.parquet",), into=CAPTIONS)


@dataclass(frozen=True)
class ReferenceData:
    """The object that a `bench.references` entry point names; each part raises BenchError where it cannot be had.

    `images(folders)` gives an image source whose labels mean nothing, `sentences(folders)` the sentences in a fixed order.
    """

    images: Callable[..., ImageSource]
    sentences: Callable[[Folders], tuple[str, ...]]
    there: Callable[[Folders], bool] | None = None  # do its images lie on disk? None: they are made here, or there are none


def _none(what: str, name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(folders: Folders) -> NoReturn:
        raise BenchError(f"reference data {name!r} has no {what}; {instead}")

    return refuse


# -- the mini world ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _drawn() -> tuple[np.ndarray, tuple[str, ...]]:
    """Pairs from the distribution on which the mini CLIP was pretrained; the seed is none of its chunks'."""
    from protocols.datasets.mini_world.factors import world_seed
    from protocols.datasets.mini_world.mixture import mixture

    images, captions, _ = mixture(MINI_PAIRS, world_seed("reference", 0))
    return images, tuple(captions)


def _mini_images(folders: Folders) -> ImageSource:
    images, _ = _drawn()
    return ImageSource.from_arrays(images, np.zeros(len(images), np.int64))


def _mini_sentences(folders: Folders) -> tuple[str, ...]:
    return _drawn()[1]


# -- ImageNet and folders of images -----------------------------------------------------------------------------


def _training_images(dataset: str, folders: Folders) -> ImageSource:
    return registry.load("dataset", dataset).open_split("train", folders)


def _lies_on_disk(dataset: str, folders: Folders) -> bool:
    return layouts.find(registry.load("dataset", dataset).layouts, folders.data) is not None


def _imagenet_classes(folders: Folders) -> tuple[str, ...]:
    return data.class_names("imagenet")


def _images_below(folders: Folders, folder: Path | None = None) -> ImageSource:
    if folder is None:
        raise BenchError("reference images 'folder': give the path of a folder of images instead")
    walk = Walk()
    paths = walk.images_below(folder)
    if not paths:
        raise BenchError(f"reference images: {folder} holds no image")
    if walk.left_out:
        print(f"note: reference images: {in_words(walk.left_out, str(folder))}", file=sys.stderr)

    def complain(path: Path, why: str) -> BenchError:
        return BenchError(f"reference images: {path}: {why}; replace or remove the file")

    return ImageFiles(folder, paths, np.zeros(len(paths), np.int64), folders.cache, complain, upright=True)


# -- Conceptual Captions ----------------------------------------------------------------------------------------


def _caption_images(folders: Folders) -> ImageSource:
    folder = folders.data / CAPTIONS / "images"
    if not folder.is_dir():
        raise BenchError(
            f"reference images {CAPTIONS!r} are not in {folder}; fetch what its validation list links to (for instance with "
            "img2dataset; many links are dead), or name a folder of other images"
        )
    return _images_below(folders, folder)


def _captions(folders: Folders) -> tuple[str, ...]:
    """The captions of the validation list, from Google's file of lines "caption TAB link" or the hub's parquet file."""
    folder = folders.data / CAPTIONS
    files = _caption_files(folder)
    if not files:
        try:
            downloads.fetch((HUB,), folders.data, CAPTIONS, CAPTIONS, lambda: bool(_caption_files(folder)))
        except downloads.DownloadFailed as error:
            raise BenchError(
                f"reference sentences {CAPTIONS!r} are not in {folder} and the download failed ({error}); download the "
                "validation list from https://ai.google.com/research/ConceptualCaptions/download to "
                f"{folder / 'Validation_GCC-1.1.0-Validation.tsv'}, or name a text file of other sentences"
            ) from error
        files = _caption_files(folder)
    captions = tuple(caption for path in files for caption in _captions_of(path))
    if len(captions) != OFFICIAL_CAPTIONS:
        print(f"note: {len(captions)} captions in {folder}, the official number is {OFFICIAL_CAPTIONS}", file=sys.stderr)
    return captions


def _caption_files(folder: Path) -> list[Path]:
    """The files of the first form that is there."""
    return next((found for pattern in CAPTION_LISTS if (found := sorted(folder.glob(pattern)))), [])


def _captions_of(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            captions = pyarrow.parquet.read_table(path, columns=["caption"]).column(0).to_pylist()
        else:
            lines = path.read_text(encoding="utf-8").split("\n")  # captions may hold what Python takes for line ends
            captions = [_caption_of(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except Exception as error:  # pyarrow raises its own on damaged bytes
        reason = one_line(error)
        raise BenchError(f"reference sentences: {path}: the file is damaged ({reason}); put a good copy there") from error
    return [caption.strip() for caption in captions]


def _caption_of(number: int, line: str) -> str:
    caption, tab, _ = line.partition("\t")
    if not tab or not caption.strip():
        raise ValueError(f"line {number} is not a caption, a tab and a link")
    return caption


mini = ReferenceData(_mini_images, _mini_sentences)
tiny_imagenet = ReferenceData(
    functools.partial(_training_images, "tiny-imagenet"),
    _none("sentences", "tiny-imagenet", "give a text file"),
    functools.partial(_lies_on_disk, "tiny-imagenet"),
)
imagenet = ReferenceData(
    functools.partial(_training_images, "imagenet"),
    _none("sentences", "imagenet", "its class names are 'imagenet-classes'"),
    functools.partial(_lies_on_disk, "imagenet"),
)
imagenet_classes = ReferenceData(_none("images", "imagenet-classes", "the images are 'imagenet'"), _imagenet_classes)
conceptual_captions = ReferenceData(_caption_images, _captions, lambda folders: (folders.data / CAPTIONS / "images").is_dir())
folder = ReferenceData(_images_below, _none("sentences", "folder", "give a text file with one sentence a line"))
