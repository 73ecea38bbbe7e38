"""Reference data: images and sentences that belong to no task, on which distillation compares teacher and student.

Names are looked up by bench/streams/reference_sources.py. What was used goes into the manifest, and no test image and no
training image of the stream may be among it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.errors import BenchError
from bench.images.dataset import DatasetInfo, Folders, ImageSource
from bench.images.stand_ins import stand_in
from bench.streams import reference_sources
from bench.streams.features import FeatureStore
from bench.streams.reference_sources import ReferenceNames, digest_of_sentences
from bench.streams.stream import Split, Stream

# stand-ins for measuring speed: fewer images than ImageNet has, since an update sees a batch of them only
STAND_IN = DatasetInfo("reference", "1", ("image",), ("{}",), "", "", train_images=6400, test_images=0)
STAND_IN_SENTENCES = 13_000
Piece = tuple[ImageSource, np.ndarray]  # a source of images, and the rows that are meant


@dataclass(frozen=True)
class Reference:
    """What a method is given: unlabelled images, as a split, and sentences."""

    images: Split
    sentences: tuple[str, ...]


def load(
    names: ReferenceNames, store: FeatureStore, folders: Folders, synthetic: bool = False
) -> tuple[Reference, dict[str, Any]]:
    """The reference data of these names, or stand-ins for them, and the facts about them for the manifest."""
    if synthetic:
        source = stand_in(STAND_IN, "train", folders)
        sentences = tuple(f"stand-in sentence number {k} of reference data" for k in range(STAND_IN_SENTENCES))
    else:
        source = reference_sources.images_of(names.images, folders)
        sentences = reference_sources.sentences_of(names.sentences, folders) if names.sentences else ()
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
        "sentences_digest": digest_of_sentences(sentences),
    }
    return reference, facts


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
