"""Images that somebody has given, in the forms that a method scores: decoded, preprocessed, encoded as those of a stream are."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Union

import numpy as np
import torch

from bench.clip.backbone import ENCODE_BATCH, Backbone
from bench.errors import BenchError
from bench.images.decoding import decode, pixels_of

if TYPE_CHECKING:
    from PIL.Image import Image

# a path, a PIL image, an array (height, width, 3) of uint8; several of them; or a tensor of preprocessed pixels
Given = Union[str, Path, "Image", np.ndarray, Sequence[Union[str, Path, "Image", np.ndarray]], torch.Tensor]
FEWEST = 8  # images that are encoded together: a single one takes another way through a matrix product, and rounds otherwise


class GivenImages:
    """Images in the order in which they were given. What is read from disk is read when it is asked for.

    A tensor holds pixels as `backbone.preprocess` gives them, (n, 3, size, size) or (3, size, size). Files and PIL images are
    turned as their camera says. Features are computed once.
    """

    def __init__(self, given: Given, backbone: Backbone):
        self.backbone = backbone
        self._pixels: torch.Tensor | None = None
        self._images: list[str | Path | Image | np.ndarray] = []
        if isinstance(given, torch.Tensor):
            self._pixels = _checked(given, backbone.image_size)
        elif isinstance(given, np.ndarray):
            self._images = list(given) if given.ndim == 4 else [given]
        else:
            self._images = list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]
        self._features: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._images) if self._pixels is None else len(self._pixels)

    def pixels(self, rows: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) preprocessed, on the device."""
        if self._pixels is not None:
            return self._pixels[rows].to(self.backbone.device)
        return self.backbone.preprocess([_decoded(self._images[row]) for row in rows.tolist()])

    def batches(self, inputs: str, size: int) -> Iterator[torch.Tensor]:
        """The images in order, `size` at a time, as "features", "pooled" features or "pixels"."""
        yield from (self.inputs(inputs, rows) for rows in torch.arange(len(self)).split(size))

    def inputs(self, inputs: str, rows: torch.Tensor) -> torch.Tensor:
        """The chosen images in the form that a method's `logits` takes."""
        if inputs == "pixels":
            return self.pixels(rows)
        if inputs not in self._features:
            encode = self.backbone.pool_images if inputs == "pooled" else self.backbone.encode_images
            parts = [self._encoded(encode, part) for part in torch.arange(len(self)).split(ENCODE_BATCH)]
            self._features[inputs] = torch.cat(parts)
        return self._features[inputs][rows.to(self.backbone.device)]

    def _encoded(self, encode: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        pixels = self.pixels(rows)
        missing = max(0, FEWEST - len(rows))
        found = encode(torch.cat([pixels, pixels[:1].expand(missing, -1, -1, -1)]) if missing else pixels)[: len(rows)]
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def part(self, rows: torch.Tensor) -> "PartOfImages":
        """Those at these rows, which share what is computed."""
        return PartOfImages(self, rows)


class Whole(Protocol):
    """What has been given: images, or embeddings of some."""

    def inputs(self, inputs: str, rows: torch.Tensor) -> torch.Tensor: ...


class PartOfImages:
    """Some of the given images."""

    def __init__(self, whole: Whole, rows: torch.Tensor):
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, inputs: str, size: int) -> Iterator[torch.Tensor]:
        yield from (self.whole.inputs(inputs, rows) for rows in self.rows.split(size))

    def inputs(self, inputs: str, rows: torch.Tensor) -> torch.Tensor:
        return self.whole.inputs(inputs, self.rows[rows])


def _checked(pixels: torch.Tensor, size: int) -> torch.Tensor:
    wanted = (3, size, size)
    pixels = pixels.unsqueeze(0) if pixels.ndim == 3 else pixels
    if tuple(pixels.shape[1:]) != wanted or not pixels.is_floating_point():
        raise BenchError(
            f"a tensor of shape {tuple(pixels.shape)} and type {str(pixels.dtype).removeprefix('torch.')}: preprocessed pixels "
            f"of shape (n, 3, {size}, {size}) are wanted, as model.preprocess gives them; or give paths or PIL images"
        )
    return pixels.float()


def _decoded(image: "str | Path | Image | np.ndarray") -> np.ndarray:
    """(height, width, 3) uint8."""
    from PIL import Image

    if isinstance(image, str | Path):
        try:
            return decode(Path(image), upright=True)
        except (ValueError, OSError) as error:
            raise BenchError(f"{image}: {error}") from error
    if isinstance(image, Image.Image):
        try:
            return pixels_of(image, upright=True)
        except (ValueError, OSError) as error:
            raise BenchError(f"a PIL image: {error}") from error
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return image
    shape = f" of shape {image.shape} and type {image.dtype}" if isinstance(image, np.ndarray) else ""
    raise BenchError(f"a {type(image).__name__}{shape} is no image: give paths, PIL images, or uint8 arrays (height, width, 3)")
