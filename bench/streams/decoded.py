"""Decoded images kept in memory, so that only the first epoch of the first run of a process decodes.

What is kept of an image is the result of decoding, resizing and cropping: uint8 (size, size, 3). What follows, scaling and
normalising, is computed each time, so results are the same bits with and without.

All runs of a process share one store. It takes at most a quarter of the memory that is available on the machine at the
moment, its own images counted as available, so it shrinks when other programs grow and never makes the machine swap.
BENCH_IMAGE_MEMORY sets a fixed size instead: "16G", "500M", or 0 to keep nothing. A split that is larger as a whole is
not kept at all; otherwise the images that have not been asked for longest make room.
"""

import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench.images.sources import Images, ImageSource
from bench.system.memory import available_memory

if TYPE_CHECKING:
    from bench.clip.backbone import Backbone

SETTING = "BENCH_IMAGE_MEMORY"  # environment variable: bytes, or a number with K, M, G or T
SHARE = 0.25  # of the available memory
MEASURE_EVERY = 1.0  # seconds between two looks at the available memory
Key = tuple[str, str, int]  # digest of the source, geometry, row
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class DecodedImages:
    """Squares by their key. `limit(held)` says how many bytes it may hold."""

    def __init__(self, limit: Callable[[int], int]):
        self.limit = limit
        self.bytes = 0
        self.decoded = 0  # images that had to be read and resized
        self._kept: OrderedDict[Key, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()  # batches are prepared on a thread of their own

    def squares(self, source: ImageSource, rows: np.ndarray, backbone: "Backbone", together: int) -> Images:
        """The images at these rows as the backbone's squares (size, size, 3), not to be written to.

        `together` is the number of images of the split that they are part of: kept only if all of them fit.
        """
        size = backbone.image_size
        if source.in_memory:
            images = source.read(rows)
            if all(image.shape == (size, size, 3) for image in images):
                return images  # there is nothing to save
        keys = [(source.digest, backbone.geometry, int(row)) for row in rows]
        found = self._held(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            found.update(zip(missing, backbone.resize(source.read(np.array([row for *_, row in missing])))))
        with self._lock:
            self.decoded += len(missing)
            limit = self.limit(self.bytes)
            if together * size * size * 3 <= limit:
                self._add({key: found[key] for key in missing})
            self._shrink_to(limit)
        return [found[key] for key in keys]

    def clear(self) -> None:
        with self._lock:
            self._shrink_to(0)

    def _held(self, keys: Sequence[Key]) -> dict[Key, np.ndarray]:
        """Those of the wanted images that are kept; they are the last to make room from now on."""
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        return found

    def _add(self, images: dict[Key, np.ndarray]) -> None:
        for key, image in images.items():
            if key not in self._kept:
                self._kept[key] = image
                self.bytes += image.nbytes

    def _shrink_to(self, limit: int) -> None:
        while self.bytes > limit:
            _, image = self._kept.popitem(last=False)
            self.bytes -= image.nbytes


class MemoryLimit:
    """How many bytes may be held: what the user has set, or a share of the memory that is available just now."""

    def __init__(self) -> None:
        self._measured, self._available = float("-inf"), 0

    def __call__(self, held: int) -> int:
        chosen = os.environ.get(SETTING)
        if chosen:
            return parse_bytes(chosen)
        now = time.monotonic()
        if now - self._measured > MEASURE_EVERY:
            self._measured, self._available = now, available_memory() + held
        return int(SHARE * self._available)


def parse_bytes(text: str) -> int:
    """
    >>> parse_bytes("1.5K"), parse_bytes("0")
    (1536, 0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if not match:
        raise BenchError(f"{SETTING}={text}: give a number of bytes such as 16G or 500M, or 0 to keep no images in memory")
    return int(float(match[1]) * _UNITS[match[2].upper()])


DECODED = DecodedImages(MemoryLimit())  # of this process
