"""Two ways of doing the same thing, timed in turn in one process: only the ratio of their times is of use on another machine."""

import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object], device: torch.device = torch.device("cpu")) -> float:
    """On the CPU of the processor, all threads together, so that other programs do not count; on a GPU of the clock."""
    if device.type != "cuda":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def fastest_of(
    works: dict[str, Callable[[], object]], rounds: dict[str, int] | int = 3, device: torch.device = torch.device("cpu")
) -> dict[str, float]:
    """The shortest time of each, taken in turn; where a number of rounds is given for each, the longest go first."""
    wanted = {name: rounds if isinstance(rounds, int) else rounds[name] for name in works}
    found = dict.fromkeys(works, float("inf"))
    for turn in range(max(wanted.values())):
        for name, work in works.items():
            if turn < wanted[name]:
                found[name] = min(found[name], seconds(work, device))
    return found
