"""What passes between the stand-in device and the host: each crossing makes a GPU wait, or wait for it."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

ROOT = Path(__file__).parents[2]
OURS = (str(ROOT / "bench"), str(ROOT / "methods"), str(ROOT / "tests"))
NOT_THE_CAUSE = str(Path(__file__).parent)

_of_thread = threading.local()


@dataclass(frozen=True)
class Crossing:
    """read: the host waits for a number of the device (item, tolist, cpu, bool). shape: it waits for one to know the size of a
    result (nonzero, unique, a mask as an index). upload: numbers go from the host to the device."""

    kind: Literal["read", "shape", "upload"]
    operator: str
    bytes: int
    place: str  # file and line that caused it

    def __str__(self) -> str:
        return f"{self.kind} of {self.bytes} bytes ({self.operator}) at {self.place}"


@contextlib.contextmanager
def counted() -> Iterator[list[Crossing]]:
    """The crossings that this thread causes meanwhile. Those of a thread that prepares the next batches make nobody wait."""
    before, found = getattr(_of_thread, "found", None), list[Crossing]()
    _of_thread.found = found
    try:
        yield found
    finally:
        _of_thread.found = before


def note_copy(source: torch.Tensor, target: torch.Tensor) -> None:
    """A copy onto, within or from the device."""
    if target.device.type == "cpu":
        _note("read", "copy", source.numel() * source.element_size())
    elif source.device.type == "cpu":
        note_upload(source, "copy")


def note_upload(source: torch.Tensor, operator: str) -> None:
    """Of a tensor of the host."""
    _note("upload", operator, source.numel() * source.element_size())


def note_operator(operator) -> None:
    """An operator that the device computes, if the host has to wait for what it gives."""
    if operator is torch.ops.aten._local_scalar_dense.default or torch.Tag.data_dependent_output in operator.tags:
        _note("read", str(operator), 0)
    elif torch.Tag.dynamic_output_shape in operator.tags:
        _note("shape", str(operator), 0)


def _note(kind: Literal["read", "shape", "upload"], operator: str, size: int) -> None:
    found = getattr(_of_thread, "found", None)
    if found is not None:
        found.append(Crossing(kind, operator, size, _place()))


def _place() -> str:
    """The innermost line of the harness, a method or a test that is being carried out."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(OURS) and not (name.startswith(NOT_THE_CAUSE) and not Path(name).name.startswith("test_")):
            return f"{Path(name).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"
