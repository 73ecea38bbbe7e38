"""Images are decoded on several threads, and the next batches are prepared while the device computes on the current one."""

import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # a data set is read without torch
    import torch

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

AHEAD = 2  # batches that lie ready or are being prepared
WORKERS = min(8, os.cpu_count() or 1)  # Pillow's decoders leave the interpreter free


def in_parallel(prepare: Callable[[Item], Prepared], items: Collection[Item]) -> list[Prepared]:
    """prepare(item) of every item, in order, on several threads if there are enough items for them."""
    if len(items) < 2 * WORKERS:
        return [prepare(item) for item in items]
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(prepare, items))


def prefetched(
    items: Iterable[Item], prepare: Callable[[Item], Prepared], device: "torch.device"
) -> Generator[tuple[Item, Prepared], None, None]:
    """(item, prepare(item)) of every item, in order; on a GPU the following items are prepared in the background.

    On the CPU the two would only compete for the same cores, so there each item is prepared when it is its turn.
    """
    if device.type == "cpu":
        return ((item, prepare(item)) for item in items)
    return in_background(items, prepare)


def in_background(
    items: Iterable[Item], prepare: Callable[[Item], Prepared]
) -> Generator[tuple[Item, Prepared], None, None]:
    """As `prefetched`, on one thread of its own, which ends with the iterator: exhausted, closed early or failed.

    `items` is advanced by the caller's thread, up to AHEAD items early. What `prepare` raises is raised where its item
    would have come.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting: deque[tuple[Item, Future[Prepared]]] = deque()
        for item in items:
            waiting.append((item, thread.submit(prepare, item)))
            if len(waiting) > AHEAD:
                item, result = waiting.popleft()
                yield item, result.result()
        while waiting:
            item, result = waiting.popleft()
            yield item, result.result()
    finally:
        thread.shutdown(cancel_futures=True)
