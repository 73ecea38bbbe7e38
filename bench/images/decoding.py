"""The pixels of an image file: whatever the file's mode, as uint8 (height, width, 3).

Grey and palette images become RGB, transparency is dropped and of several frames the first is read, as torchvision's image
folders do it. Pillow would clip values of more than 8 bits to white, so these are scaled where their range is known, and refused
where it is not.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np

from bench.errors import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

DECODING = 2  # bump when the pixels of some file change: features of files are encoded again
SIXTEEN_BITS = 257  # 65535 / 255
STATED_RANGE = (340, 341)  # TIFF's SMinSampleValue and SMaxSampleValue
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF's tags of the bits in a sample, and of whether 0 is black or white


def decode(image: Path | bytes, upright: bool = False) -> np.ndarray:
    """The pixels of a file, or of a file's bytes. ValueError says in a few words what is wrong with it.

    upright: turned as the camera says (EXIF), as people see it; the data sets of papers are read as they lie there.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as picture:
            picture.load()
            return _as_rgb(picture, upright)
    except FileNotFoundError:
        raise ValueError("the file is missing") from None
    except UnknownRange as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # on damaged bytes Pillow's decoders raise OSError, SyntaxError, struct.error and others
        reason = one_line(error)
        raise ValueError(f"not a whole image ({reason})" if isinstance(image, Path) else reason) from error


def pixels_of(picture: "Image", upright: bool = False) -> np.ndarray:
    """The same of an image that Pillow has opened already."""
    try:
        return _as_rgb(picture, upright)
    except UnknownRange as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # its file is read only now
        raise ValueError(f"not a whole image ({one_line(error)})") from error


def _as_rgb(picture: "Image", upright: bool) -> np.ndarray:
    from PIL import ImageOps

    turned = ImageOps.exif_transpose(picture) if upright else picture
    if turned.mode.startswith("I") or turned.mode == "F":
        return _scaled(turned, picture)
    return np.array(turned.convert("RGB"))  # a copy of its own: batches may be written to


class UnknownRange(Exception):
    """Values of more than 8 bits, and nothing says which of them is white."""


def _scaled(picture: "Image", file: "Image") -> np.ndarray:
    """A grey image of more than 8 bits, (height, width, 3); `file` knows the format."""
    tags = getattr(file, "tag_v2", {})  # of TIFF
    values = np.asarray(picture)
    if picture.mode.startswith("I;16"):
        bits = _number(tags.get(BITS)) or 16
        grey = values.astype(np.int64) // SIXTEEN_BITS if bits == 16 else np.round(values / (2**bits - 1) * 255)
    elif picture.mode == "I" and file.format in ("PNG", "PPM"):  # some versions of Pillow give their 16 bits so
        grey = values.astype(np.int64) // SIXTEEN_BITS
    else:
        low, high = (_number(tags.get(tag)) for tag in STATED_RANGE)
        kind = "floating-point" if picture.mode == "F" else "32-bit or signed"
        if low is None or high is None or not low < high:
            raise UnknownRange(f"{kind} values whose range is not stated; save it with 8 bits a channel")
        if not np.isfinite(values).all():
            raise UnknownRange(f"{kind} values that are not finite; save it with 8 bits a channel")
        grey = np.round((values.astype(np.float64) - low) / (high - low) * 255)
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns those of 8 bits only
        grey = 255 - grey
    return np.repeat(grey[:, :, None], 3, axis=2)


def _number(tag: object) -> float | None:
    value = tag[0] if isinstance(tag, tuple) and len(tag) == 1 else tag
    try:
        return float(value) if isinstance(value, SupportsFloat | str | bytes) else None
    except (TypeError, ValueError):
        return None
