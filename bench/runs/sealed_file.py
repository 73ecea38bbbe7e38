"""A safetensors file with plain facts beside its tensors and a digest of itself: checkpoints and kept models.

safetensors notices a file that was cut short but no changed byte, so the metadata hold a digest of the whole file.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bench.system.files import written_atomically

if TYPE_CHECKING:
    import torch

_DIGEST = b'"sha256":"'  # in the header of the file, followed by 64 hex digits; elsewhere in it quotes are escaped
_BLANK = b"0" * 64  # what the digits are while the digest is computed


class Damaged(ValueError):
    """A file that is not as it was written."""


def to_bytes(tensors: dict[str, "torch.Tensor"], facts: dict[str, Any]) -> bytes:
    """The file; facts are what JSON can hold."""
    from safetensors.torch import save

    data = save(_apart(tensors), metadata={"facts": json.dumps(facts), "sha256": _BLANK.decode()})
    start = _place_of_digest(data)
    return b"".join([data[:start], _digest(data, start), data[start + 64 :]])


def write(path: Path, tensors: dict[str, "torch.Tensor"], facts: dict[str, Any]) -> None:
    """The same file on disk, whole or not at all. Tensors go there as they are, so that gigabytes are not held several times."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with written_atomically(path) as temporary:
        try:
            save_file(_apart(tensors), temporary, metadata={"facts": json.dumps(facts), "sha256": _BLANK.decode()})
        except SafetensorError as error:
            raise _of_the_system(error) from error
        with open(temporary, "rb+") as file:
            start = _place_of_digest(_header(file))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # of the file with blank digits, as it is now
            file.seek(start)
            file.write(digest.encode())


def _of_the_system(error: Exception) -> Exception:
    """What safetensors could not write, as Python says it: a full disk is no fault of the tensors."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


def _apart(tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """The tensors, laid out in order; one that shares its memory with another is copied."""
    found, known = {}, set()
    for name, value in tensors.items():
        laid_out = value.detach().contiguous()
        place = laid_out.untyped_storage().data_ptr()
        found[name] = laid_out.clone() if place in known else laid_out
        known.add(place)
    return found


def from_bytes(data: bytes, what: str = "checkpoint") -> tuple[dict[str, Any], dict[str, "torch.Tensor"]]:
    """(facts, tensors); Damaged if any byte is not as it was written. what: such a file is called."""
    from safetensors.torch import load

    try:
        start = _place_of_digest(data)
    except ValueError:
        raise Damaged(f"it is cut short or no {what}") from None
    if data[start : start + 64] != _digest(data, start):
        raise Damaged("its checksum differs")
    length = int.from_bytes(data[:8], "little")  # a safetensors file starts with the length of its header
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["facts"]), load(data)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts alone, read without the tensors and without a look at the digest. ValueError or LookupError if there are none."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.fstat(file.fileno()).st_size:
            raise ValueError("not such a file")
        return json.loads(json.loads(file.read(length))["__metadata__"]["facts"])


def _header(file: IO[bytes]) -> bytes:
    length = file.read(8)
    return length + file.read(int.from_bytes(length, "little"))


def _place_of_digest(data: bytes) -> int:
    """Where the digits of the digest begin; ValueError if there are none."""
    header = data[: 8 + int.from_bytes(data[:8], "little")]
    return header.index(_DIGEST) + len(_DIGEST)


def _digest(data: bytes, start: int) -> bytes:
    """In hex, of the file with blank digits in the place of the digest."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:start])
    digest.update(_BLANK)
    digest.update(view[start + 64 :])
    return digest.hexdigest().encode()
