"""What of the machine this process may use, found out without loading any driver."""

import os
from pathlib import Path


def usable_cores() -> int:
    """CPU cores that this process may use; macOS and Windows only say how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; one where nothing tells how many there are."""
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return chosen or [str(k) for k in range(len(list(Path("/dev").glob("nvidia[0-9]*"))) or 1)]


def environment_with(gpu: str | None, threads: int) -> dict[str, str]:
    """The environment variables of a process that gets so many CPU threads and this GPU alone; None: as it is."""
    shares = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return os.environ | shares | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
