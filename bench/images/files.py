"""Images that lie on disk, encoded, and are decoded when they are read."""

import hashlib
import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from bench.errors import BenchError, one_line
from bench.images.decoding import DECODING, decode
from bench.images.digests import FileDigests
from bench.images.sources import ImageSource, digest_of_pixels
from bench.system.parallel import in_parallel


class ImageFiles(ImageSource):
    """One file an image. `paths` are relative to `root`; what is wrong with a file is said by `complain(path, why)`.

    The digest is made of the files' contents and the labels; contents are hashed once and remembered in `cache`, and a
    selection hashes only the files that it keeps. upright: turned as cameras say, for people's own pictures.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: np.ndarray,
        cache: Path,
        complain: Callable[[Path, str], BenchError],
        upright: bool = False,
    ):
        super().__init__(labels, self._decode, self._digest_of_files)
        if len(paths) != len(self.labels):
            raise ValueError(f"{len(paths)} files and {len(self.labels)} labels")
        self.root, self.paths, self.cache, self.complain = root, np.asarray(paths, dtype=object), cache, complain
        self.upright = upright

    def names(self) -> list[str]:
        return [Path(path).name for path in self.paths]

    hashes_pixels = False
    decoding = DECODING

    def select(self, rows: np.ndarray) -> "ImageFiles":
        return ImageFiles(self.root, self.paths[rows], self.labels[rows], self.cache, self.complain, self.upright)

    def image_digests(self, rows: np.ndarray) -> list[str]:
        paths = self.paths[rows].tolist()
        try:
            return FileDigests(self.root, self.cache).of(paths)
        except OSError as error:
            raise self.complain(Path(error.filename or self.root), one_line(error)) from error

    def pixel_digests(self, rows: np.ndarray, shapes: Collection[tuple[int, ...]]) -> list[str | None]:
        return in_parallel(
            lambda path: digest_if_of_shape(self.root / path, shapes, self.upright), self.paths[np.asarray(rows)]
        )

    def _digest_of_files(self) -> str:
        files = "".join(self.image_digests(np.arange(len(self))))
        turned = b"upright" if self.upright else b""  # other pixels of the same files, and so other features
        return hashlib.sha256(files.encode() + self.labels.tobytes() + turned).hexdigest()

    def _decode(self, rows: np.ndarray) -> list[np.ndarray]:
        return in_parallel(self._decode_one, self.paths[np.asarray(rows)])

    def _decode_one(self, path: str) -> np.ndarray:
        whole = self.root / path
        try:
            return decode(whole, self.upright)
        except ValueError as error:
            raise self.complain(whole, str(error)) from error


def digest_if_of_shape(image: Path | bytes, shapes: Collection[tuple[int, ...]], upright: bool = False) -> str | None:
    """The digest of the pixels of a file, or of a file's bytes, if it has one of the shapes (height, width, 3).

    The size is read from the file's header, so that the others need not be decoded. A file that is no image has no pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as picture:
            width, height = picture.size
        if not ({(height, width, 3), (width, height, 3)} if upright else {(height, width, 3)}) & set(shapes):
            return None
        pixels = decode(image, upright)
        return digest_of_pixels(pixels) if pixels.shape in shapes else None
    except (OSError, ValueError):
        return None
