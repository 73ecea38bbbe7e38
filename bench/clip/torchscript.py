"""The tensors of a TorchScript archive, without running it.

A TorchScript archive is a program: torch.jit.load runs what its modules do when they are restored, and TorchScript can
read and write files. OpenAI publishes CLIP as such archives. The weights can be had without the program: they lie in
DATA/<number> as raw numbers, and data.pkl says which module has which of them under which name. That pickle is read here
with all its globals replaced: modules become empty objects, tensors are cut from the raw numbers, and any other name that
it asks for is refused. Nothing of the archive is imported or called.
"""

import collections
import pickle
import zipfile
from pathlib import Path

import torch

_TYPES = {
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64, "BoolStorage": torch.bool, "ByteStorage": torch.uint8, "CharStorage": torch.int8,
    "ShortStorage": torch.int16, "IntStorage": torch.int32, "LongStorage": torch.int64,
}  # fmt: skip


def is_archive(path: Path) -> bool:
    """A zip file with TorchScript's table of constants; what torch.save writes has none."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def read(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the module tree under its dotted name, as a state dict has it.

    Raises zipfile.BadZipFile, pickle.UnpicklingError, ValueError or KeyError for a damaged or an unusual archive.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name.split("/")[0] for name in archive.namelist() if name.endswith("/constants.pkl"))
        if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
            raise ValueError("its numbers are in big-endian order")
        with archive.open(f"{root}/data.pkl") as file:
            module = _Reader(file, archive, root).load()
    return dict(_tensors(module, ""))


class _Module:
    """Stands for any TorchScript class: pickle fills its __dict__."""


class _Reader(pickle.Unpickler):
    """Knows the few names that a module tree is made of."""

    def __init__(self, file, archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self.archive, self.root = archive, root
        self.raw: dict[str, torch.Tensor] = {}  # storages may be shared by several tensors

    def find_class(self, module: str, name: str):
        if module.split(".")[0] == "__torch__":
            return type(name, (_Module,), {})
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")}:
            return _cut
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return _untagged
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, identity) -> torch.Tensor:
        """("storage", type, number, device, elements) -> all elements of one storage, (elements,)."""
        kind, dtype, number, _, elements = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("it holds something other than tensors")
        if number not in self.raw:
            data = self.archive.read(f"{self.root}/data/{number}")  # checks the data against the archive's checksum
            self.raw[number] = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if len(self.raw[number]) != elements:
            raise ValueError(f"storage {number} has {len(self.raw[number])} elements, not {elements}")
        return self.raw[number]


def _cut(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_) -> torch.Tensor:
    """torch refuses a view that reaches past the storage."""
    return torch.as_strided(storage, size, stride, offset)


def _untagged(value, tag: str):
    return value


def _tensors(module: _Module, prefix: str):
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
