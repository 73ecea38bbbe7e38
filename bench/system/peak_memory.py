"""The largest amount of memory that a stretch of work has held, in bytes."""

import sys
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> bool:
    """Begin a new stretch; False where the system only knows the peak since the process began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        _RESET.write_text("5")  # Linux: the peak becomes what is held now
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int | None:
    """Since the last `forget_peak`: on CUDA what tensors took, on the CPU what the process held of the machine's memory.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return peak_bytes_of_process()


def peak_bytes_of_process() -> int | None:
    """The most of the machine's memory that the process has held; None where the system does not say.

    The only place that knows the unit of `ru_maxrss`: bytes on macOS, kilobytes (of 1024 bytes) everywhere else.
    """
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
