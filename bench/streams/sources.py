"""The images that a stream draws on, by data set and split: as many of every class as protocol and limit allow.

Opening a source reads no image, and needs no torch: plans compare the images that are there with those of finished runs.
"""

import functools
from collections.abc import Callable

from bench.images.dataset import DatasetInfo, Folders, ImageSource
from bench.images.stand_ins import stand_in
from bench.streams.protocol import Protocol
from bench.streams.shots import RULES

# opened sources that a process keeps, the latest: runs share them and their digests. A stream has a few for each of its data
# sets; a longer list would hold the images in memory of streams that nobody asks for any more
KEPT = 64


def images(
    protocol: Protocol, dataset: str, split: str, folders: Folders, limit: int | None, synthetic: bool = False
) -> ImageSource:
    """Those of "train" or "test"; the limit keeps the first so many of every class.

    synthetic: stand-in images of the right number and size instead of the data set's own.
    """
    found = protocol.dataset(dataset)
    shots = protocol.shots if split == "train" else None
    return _opened(found.info, found.open_split, split, folders, shots, limit, synthetic, protocol.shot_rule)


def completeness(protocol: Protocol, dataset: str, folders: Folders, synthetic: bool) -> float:
    """Training images that this copy of a data set has, of those that the official one has; 1 where that is not fixed."""
    found = protocol.dataset(dataset)
    present = len(_opened(found.info, found.open_split, "train", folders, None, None, synthetic))
    return min(1.0, present / (found.info.train_images or present))


def forget() -> None:
    """Open every source anew from now on: between two plans of one process a user's files may change."""
    _opened.cache_clear()


@functools.lru_cache(maxsize=KEPT)
def _opened(
    info: DatasetInfo,
    open_split: Callable[[str, Folders], ImageSource],
    split: str,
    folders: Folders,
    shots: int | None,
    limit: int | None,
    synthetic: bool,
    shot_rule: str = "own",
) -> ImageSource:
    source = stand_in(info, split, folders) if synthetic else open_split(split, folders)
    if shots is not None:
        source = source.select(RULES[shot_rule].rows(source.labels, shots, info.name))
    return source.limited(limit)
