"""Reading pickles that hold data only. A pickle may name any function to be called: here only those that build arrays."""

import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

# numpy moved these from numpy.core to numpy._core in version 2; files hold either name
_ARRAY_PARTS = {
    ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("multiarray", "scalar"): np.int64(0).__reduce__()[0],
}


def _decode_text(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in old pickle protocols; other encodings have no place in data."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin1")


class _DataOnly(pickle.Unpickler):
    """Knows numpy arrays and Python's own containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        package, _, part = module.partition(".")
        if package == "numpy":
            if part.split(".")[-1] == "multiarray" and ("multiarray", name) in _ARRAY_PARTS:
                return _ARRAY_PARTS["multiarray", name]
            if part in ("core.numeric", "_core.numeric") and name == "_frombuffer":
                return _from_buffer
            if part == "" and name in ("ndarray", "dtype"):
                return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return _decode_text
        if module == "collections" and name == "OrderedDict":
            return dict
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is not data; it is refused")


def _from_buffer(buffer: bytes, dtype: Any, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def load(content: bytes) -> object:
    """What a pickle holds, if that is numbers, text, arrays and containers of them; UnpicklingError otherwise.

    Text of Python 2 is read as latin1, as the CIFAR files need it.
    """
    return _DataOnly(io.BytesIO(content), encoding="latin1").load()


def load_npz(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """The named arrays of an .npz file. Arrays of Python objects, which lie there as pickles, are read as `load` does."""
    arrays = []
    with zipfile.ZipFile(path) as archive:
        for name in names:
            content = archive.read(f"{name}.npy")
            stream = io.BytesIO(content)
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
            if dtype.hasobject:
                arrays.append(np.asarray(load(content[stream.tell() :])).reshape(shape))
            else:
                arrays.append(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))
    return arrays
