"""How much memory this process may still take before the machine, or its share of the machine, has none left."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that can be taken without swapping; 0 where the system does not say. Limits of containers and jobs count."""
    return max(0, min([_of_machine(), *_of_cgroups()]))


def _of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:  # macOS says how much there is, not how much is left: count on half of it
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return 0


def _of_cgroups() -> Iterator[int]:
    """What is left of every memory limit that this process is under."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, usage = CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):  # version 1
            root, limit, usage = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        parts = Path(own.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            folder = root.joinpath(*parts[:depth])
            try:
                left = int((folder / limit).read_text()) - int((folder / usage).read_text())
            except (OSError, ValueError):  # no limit here, or "max"
                continue
            yield left + _file_pages(folder)


def _file_pages(folder: Path) -> int:
    """Bytes of files that the system remembers and gives up when memory is asked for; they are counted as used."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "total_inactive_file"))
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
