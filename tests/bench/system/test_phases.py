"""Marks of phases: what a meter gains belongs to the innermost phase of the thread that records."""

import threading

import pytest

from bench.system.phases import PHASES, phase, recorded


class Meter:
    def __init__(self):
        self.reading = 0.0

    def __call__(self) -> float:
        return self.reading


@pytest.fixture
def meter() -> Meter:
    return Meter()


def test_inner_phases_are_taken_out_of_outer_ones(meter):
    with recorded(meter) as found:
        meter.reading += 1
        with phase("train"):
            meter.reading += 10
            with phase("encode"):
                meter.reading += 100
            meter.reading += 1000
        meter.reading += 2
    assert found.spent == dict.fromkeys(PHASES, 0) | {"train": 1010, "encode": 100, "other": 3}


def test_a_phase_ends_with_an_error(meter):
    @phase("train")
    def fail():
        meter.reading += 5
        raise ValueError

    with recorded(meter) as found:
        with pytest.raises(ValueError):
            fail()
        meter.reading += 1
    assert (found.spent["train"], found.spent["other"]) == (5, 1)


def test_recordings_inside_each_other_are_independent(meter):
    other = Meter()
    with recorded(meter) as outer:
        with phase("load"):
            meter.reading += 1
            with recorded(other) as inner:
                meter.reading += 2
                with phase("train"):
                    meter.reading += 4
                    other.reading += 7
                other.reading += 8
    assert (outer.spent["load"], outer.spent["train"]) == (3, 4)
    assert (inner.spent["load"], inner.spent["train"], inner.spent["other"]) == (0, 7, 8)


def test_marks_on_other_threads_do_not_count(meter):
    def prepare():
        with phase("load"):
            meter.reading += 3

    with recorded(meter) as found, phase("train"):
        thread = threading.Thread(target=prepare)
        thread.start()
        thread.join()
    assert (found.spent["load"], found.spent["train"]) == (0, 3)


def test_nothing_is_recorded_outside(meter):
    with recorded(meter) as found:
        pass
    with phase("train"):
        meter.reading += 1
    assert sum(found.spent.values()) == 0
