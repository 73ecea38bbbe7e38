"""Signals wait until what is finished has been written."""

import os
import signal
import threading

import pytest

from bench.system.interruption import held_back


@pytest.fixture
def ctrl_c():
    """Ctrl-C as a program started from a terminal gets it: the workers of pytest-xdist ignore it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


def test_ctrl_c_comes_after_the_block(ctrl_c):
    written = []
    with pytest.raises(KeyboardInterrupt):
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            written.append("all")
        written.append("more")
    assert written == ["all"]


def test_handlers_are_as_before():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError), held_back():
        raise ValueError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_have_no_signals_to_hold_back():
    done = []

    def inside() -> None:
        with held_back():
            done.append(True)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert done == [True]
