"""Reference data: images and sentences that belong to no task, on which distillation compares teacher and student.

Names resolve through the entry points of `bench.references`, objects with `images(folders)` -> ImageSource and
`sentences(folders)` -> tuple of str; a folder of images and a text file (one sentence a line) serve as well. What was used
goes into the manifest, and no test image and no training image of the stream may be among it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.images.dataset import DatasetInfo, Folders, ImageSource
from bench.images.stand_ins import stand_in
from bench.streams.features import FeatureStore
from bench.streams.stream import Split, Stream
from bench.system import registry
from bench.system.text_files import read_text

if TYPE_CHECKING:
    from bench.learning.method import Method

# stand-ins for measuring speed: fewer images than ImageNet has, since an update sees a batch of them only
STAND_IN = DatasetInfo("reference", "1", ("image",), ("{}",), "", "", train_images=6400, test_images=0)
STAND_IN_SENTENCES = 13_000
Piece = tuple[ImageSource, np.ndarray]  # a source of images, and the rows that are meant


@dataclass(frozen=True)
class Reference:
    """What a method is given: unlabelled images, as a split, and sentences."""

    images: Split
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class ReferenceNames:
    """What a method asks for; sentences may be None where it brings its own."""

    images: str
    sentences: str | None


def load(names: ReferenceNames, store: FeatureStore, folders: Folders, synthetic: bool = False) -> tuple[Reference, dict]:
    """The reference data of these names, or stand-ins for them, and the facts about them for the manifest."""
    import torch

    if synthetic:
        source = stand_in(STAND_IN, "train", folders)
        sentences = tuple(f"stand-in sentence number {k} of reference data" for k in range(STAND_IN_SENTENCES))
    else:
        source = _images(names.images, folders)
        sentences = _sentences(names.sentences, folders) if names.sentences else ()
    labels = torch.zeros(len(source), dtype=torch.long)
    reference = Reference(Split([(source, np.arange(len(source)))], labels, store), sentences)
    published = {"imagenet", "imagenet-classes", "conceptual-captions"}
    facts = {
        "substitute": synthetic or not {names.images, names.sentences or names.images} <= published,  # not what the papers used
        "images": "synthetic" if synthetic else names.images,
        "images_count": len(source),
        "images_digest": source.digest,
        "sentences": "synthetic" if synthetic else names.sentences,
        "sentences_count": len(sentences),
        "sentences_digest": _digest_of_sentences(sentences),
    }
    return reference, facts


def names_of(method: "type[Method]", settings: Mapping[str, Any]) -> ReferenceNames | None:
    """What a method with these settings asks for, before it exists."""
    from bench.runs.assignments import restored

    asking = method.__new__(method)
    object.__setattr__(asking, "settings", restored(method.Settings, settings))
    return asking.reference_names


def look_for(what: str, name: str, folders: Folders) -> None:
    """BenchError with what to do if reference "images" or "sentences" of that name are not there."""
    known = registry.load("reference", name) if name in registry.names("reference") else None
    if what == "sentences":
        _sentences(name, folders)
    elif known is None or (getattr(known, "there", None) is not None and not known.there(folders)):
        _images(name, folders)


def digests(images: str | None, sentences: str | None, folders: Folders) -> dict[str, str]:
    """The digests of what lies under these names now, as far as it is people's own and can be read without fetching anything.

    What is made here, and sentences that are registered, are known by their names.
    """
    found = {}
    if images and _can_differ(images, folders):
        found["images"] = _images(images, folders).digest
    if sentences and sentences not in registry.names("reference") and Path(sentences).is_file():
        found["sentences"] = _digest_of_sentences(_sentences(sentences, folders))
    return found


def _can_differ(name: str, folders: Folders) -> bool:
    if name in registry.names("reference"):
        there = getattr(registry.load("reference", name), "there", None)
        return there is not None and there(folders)
    return Path(name).is_dir()


def _digest_of_sentences(sentences: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()


def refuse_leaks(reference: Reference, stream: Stream, name: str) -> None:
    """Reference images may not be images of the stream: what a later task trains or tests on must stay unseen.

    Files are compared by their bytes, images in memory by their pixels, and files with images in memory by the pixels of
    those that have the same size. A file that another program has encoded again is not recognised among files.
    """
    pieces = reference.images.pieces
    splits = [(task, kind, split) for task in stream.tasks for kind, split in (("training", task.train), ("test", task.test))]
    own = {digest for source, rows in pieces for digest in source.image_digests(rows)}
    own |= _pixels_of_files(pieces, _shapes_in_memory([piece for _, _, split in splits for piece in split.pieces]))
    shapes = _shapes_in_memory(pieces)
    for task, kind, split in splits:
        theirs = {digest for source, rows in split.pieces for digest in source.image_digests(rows)}
        shared = own & (theirs | _pixels_of_files(split.pieces, shapes))
        if shared:
            raise BenchError(
                f"reference images {name!r} hold {len(shared)} {kind} images of task {task.name!r}; "
                "choose others with --set METHOD.reference_images=..."
            )


def _shapes_in_memory(pieces: Sequence[Piece]) -> set[tuple[int, ...]]:
    return {image.shape for source, rows in pieces if source.hashes_pixels for image in source.read(rows)}


def _pixels_of_files(pieces: Sequence[Piece], shapes: set[tuple[int, ...]]) -> set[str]:
    """Digests of the pixels of images that lie in files and have one of the shapes."""
    if not shapes:
        return set()
    found = {digest for source, rows in pieces if not source.hashes_pixels for digest in source.pixel_digests(rows, shapes)}
    return {digest for digest in found if digest}


def _images(name: str, folders: Folders) -> ImageSource:
    if name in registry.names("reference"):
        return registry.load("reference", name).images(folders)
    if Path(name).is_dir():
        return registry.load("reference", "folder").images(folders, Path(name))
    raise _unknown(name, "reference images", "a folder of images")


def _sentences(name: str, folders: Folders) -> tuple[str, ...]:
    if name in registry.names("reference"):
        found = registry.load("reference", name).sentences(folders)
    elif Path(name).is_file():
        lines = read_text(Path(name), "not reference sentences that can be read").split("\n")
        found = tuple(line.strip() for line in lines if line.strip())
    else:
        raise _unknown(name, "reference sentences", "a text file with one sentence a line")
    if not found:
        raise BenchError(f"reference sentences {name!r}: there is no sentence in it")
    return found


def _unknown(name: str, what: str, otherwise: str) -> BenchError:
    known: Sequence[str] = registry.names("reference")
    return BenchError(f"unknown {what} {name!r}: give {otherwise}, or one of {', '.join(known)}")
