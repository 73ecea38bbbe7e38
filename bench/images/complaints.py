"""What can be wrong with a data set, found by looking at it: every function gives complaints of one line each.

`bench data check` prints them beside what it counts, `bench check` makes promises of them.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.images import downloads, layouts
from bench.images.dataset import Dataset, DatasetInfo, Folders
from bench.images.sources import READ_AT_ONCE, ImageSource, out_of_range, out_of_range_in_words
from bench.system.progress import followed

SPLITS = ("train", "test")
SHOWN = 10  # damaged images that are named


def layout_of(dataset: Dataset, data: Path) -> layouts.Layout | None:
    """The layout in which its files lie there, None where it has no files; BenchError if they are not there.

    Nothing is downloaded.
    """
    layout = layouts.find(dataset.layouts, data)
    if dataset.layouts and not layout:
        raise layouts.not_there(dataset.info, dataset.layouts, data)
    return layout


def open_split(dataset: Dataset, layout: layouts.Layout | None, split: str, folders: Folders) -> ImageSource:
    """The images of a split, from that layout if there is one."""
    return layouts.read(dataset.info, layout, split, folders) if layout else dataset.open_split(split, folders)


def require(dataset: Dataset, folders: Folders, splits: Sequence[str] = SPLITS) -> None:
    """BenchError if it is not there. A data set without layouts has to be opened to know: those of its splits that are needed."""
    if layout_of(dataset, folders.data) is None:
        for split in splits:
            try:
                dataset.open_split(split, folders)
            except BenchError:
                raise
            except Exception:  # it is there, but broken: what looks at it next says so
                continue


def unofficial_files(layout: layouts.Layout, data: Path) -> Iterator[str]:
    """Files that differ from the official ones."""
    for relative, digest in followed(layout.official.items(), "hashing files", len(layout.official)):
        path = data / layout.folder / relative
        kind, _, expected = digest.partition(":")
        if path.is_file() and downloads.file_digest(path, kind) != expected:
            yield f"{relative}: its digest differs from the official one ({kind} {expected})"


def wrong_labels(info: DatasetInfo, source: ImageSource) -> Iterator[str]:
    """Labels that are none of the data set's classes."""
    if source.labels.ndim != 1:
        yield f"labels have {source.labels.ndim} dimensions, one label an image is wanted"
        return
    classes = len(info.class_names)
    bad = out_of_range(source.labels, classes)
    if len(bad):
        more = f" and of {len(bad) - 1} more" if len(bad) > 1 else ""
        yield out_of_range_in_words(source.labels[bad[0]], f"image {bad[0]}{more}", classes)


def wrong_numbers(info: DatasetInfo, split: str, source: ImageSource) -> Iterator[str]:
    """A number of images that is not the official one, classes without an image. Labels are in range."""
    official = info.images(split)
    if official is not None and official != len(source):
        yield f"{len(source)} images, the official number is {official}"
    counts = np.bincount(source.labels, minlength=len(info.class_names))
    if empty := [info.class_names[label] for label in np.flatnonzero(counts == 0)]:
        yield f"no image of {few(empty)}"


def damaged_images(source: ImageSource) -> Iterator[str]:
    """Images that cannot be read, or are not (height, width, 3) uint8; after some, only how many more there are."""
    found = _damaged(source)
    yield from islice(found, SHOWN)
    if more := sum(1 for _ in found):
        yield f"{more} more images are damaged"


def _damaged(source: ImageSource) -> Iterator[str]:
    starts = range(0, len(source), READ_AT_ONCE)
    for start in followed(starts, f"reading {len(source)} images, batch", len(starts)):
        rows = np.arange(start, min(start + READ_AT_ONCE, len(source)))
        try:
            images = source.read(rows)
        except BenchError:
            for row in rows:
                try:
                    source.read(rows[row - start : row - start + 1])
                except BenchError as error:
                    yield str(error)
            continue
        if len(images) != len(rows):
            yield f"{len(images)} images were read where {len(rows)} were asked for, from image {start} on"
        for row, image in zip(rows, images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                yield f"image {row} is {image.dtype} of shape {image.shape}, not uint8 of (height, width, 3)"


def few(names: list[str]) -> str:
    """The first of the names.

    >>> few(["a", "b"]), few(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
