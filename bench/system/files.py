"""Writing files so that a killed process never leaves half of one, and the digests that tell whether one is whole."""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_UMASK = os.umask(0)  # reading the umask means setting it
os.umask(_UMASK)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary name in the same folder, then rename; on any error nothing is left behind."""
    with written_atomically(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """The same for what a library writes: the name of an empty file to write to, which then takes the place of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def npy(array: "np.ndarray") -> bytes:
    """The content of a .npy file that holds this array."""
    import numpy as np  # most of those who write files write none of arrays

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """What writers of files of that name (a pattern) have left in a folder when they were killed, or are writing just now."""
    return sorted(folder.glob(f".{name}.*.tmp"))


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """For a caller who knows that nobody else is writing these files."""
    for path in leftovers(folder, name):
        path.unlink(missing_ok=True)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path, kind: str = "sha256") -> str:
    """The digest of a file's bytes in hex; `kind` is "sha256" or "md5"."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
