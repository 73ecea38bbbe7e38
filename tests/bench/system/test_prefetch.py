"""Images and batches prepared on other threads: the same ones in the same order, and no thread left behind."""

import threading
import time

import pytest
import torch

from bench.errors import BenchError
from bench.system.parallel import AHEAD, WORKERS, in_background, in_parallel, prefetched


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("n", [0, 1, AHEAD, 20])
def test_order_and_content_are_unchanged(n):
    assert list(in_background(iter(range(n)), lambda k: k * k)) == [(k, k * k) for k in range(n)]
    assert threads() == []


def test_items_are_prepared_ahead_on_another_thread():
    prepared, here = [], threading.get_ident()

    def prepare(k):
        prepared.append((k, threading.get_ident()))
        return k

    batches = in_background(range(100), prepare)
    next(batches)
    deadline = time.monotonic() + 10
    while len(prepared) <= AHEAD and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert [k for k, _ in prepared] == list(range(AHEAD + 1))  # and no more than that
    assert here not in {thread for _, thread in prepared}
    batches.close()
    assert threads() == []


def test_an_exception_comes_where_its_batch_would_have_come():
    def prepare(k):
        if k == 3:
            raise ValueError("damaged image")
        return k

    got = []
    with pytest.raises(ValueError, match="damaged image"):
        for k, _ in in_background(range(10), prepare):
            got.append(k)
    assert got == [0, 1, 2] and threads() == []


def test_leaving_the_loop_stops_the_thread():
    def leave_early():
        for k, _ in in_background(range(10**9), lambda k: k):
            if k == 5:
                raise RuntimeError("loss is not finite")

    with pytest.raises(RuntimeError):
        leave_early()
    assert threads() == []


def test_an_exception_of_the_items_themselves_passes():
    def items():
        yield 1
        raise LookupError("no rows")

    with pytest.raises(LookupError):
        list(in_background(items(), lambda k: k))
    assert threads() == []


def test_on_the_cpu_each_item_is_prepared_when_it_is_its_turn():
    seen = []
    batches = prefetched(range(5), lambda k: seen.append(k) or -k, torch.device("cpu"))
    assert next(batches) == (0, 0) and next(batches) == (1, -1)
    assert seen == [0, 1]
    batches.close()
    on_gpu = prefetched(range(3), lambda k: -k, torch.device("cuda"))
    assert list(on_gpu) == [(0, 0), (1, -1), (2, -2)]


@pytest.mark.parametrize("items", [0, 1, 2 * WORKERS - 1, 2 * WORKERS, 200])
def test_in_parallel_keeps_the_order_whether_there_are_enough_items_for_threads_or_not(items):
    seen = set()

    def square(item: int) -> int:
        seen.add(threading.get_ident())
        return item * item

    assert in_parallel(square, range(items)) == [item * item for item in range(items)]
    assert (threading.get_ident() in seen) == (0 < items < 2 * WORKERS)


def test_an_error_on_one_of_several_threads_arrives():
    def fail_on_33(item: int) -> int:
        if item == 33:
            raise BenchError("33")
        return item

    with pytest.raises(BenchError, match="33"):
        in_parallel(fail_on_33, range(100))
