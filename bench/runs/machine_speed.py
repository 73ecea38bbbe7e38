"""How fast this machine is at what small models do: many small products of matrices, one after the other, on one thread."""

import time
from collections.abc import Callable

SECONDS = 0.3  # that are spent on it
LOOPS_AT_ONCE = 200


def loops_per_second(clock: Callable[[], float] = time.perf_counter, seconds: float = SECONDS) -> float:
    """Loops of one product and one elementwise operation: fewer by the wall clock while others use the machine as well."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    left, right = np.ones((64, 64), np.float32), np.ones((64, 256), np.float32)
    loops = 0
    with threadpool_limits(1):
        np.maximum(left @ right, 0.0)  # the first one is slower
        began, end = clock(), time.perf_counter() + seconds
        while loops == 0 or time.perf_counter() < end:
            for _ in range(LOOPS_AT_ONCE):
                np.maximum(left @ right, 0.0)
            loops += LOOPS_AT_ONCE
        return loops / max(clock() - began, 1e-9)
