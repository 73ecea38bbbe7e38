"""Steps of a campaign for its tests: they note in the cache folder what they did, and one fails or waits as long as told."""

import os
import time

from tests.benchmarks.gpu.steps import Conditions, NotApplicable, Rows, Step


def steps(conditions: Conditions) -> list[Step]:
    return [
        Step("quick", "correctness", "methods", 0.1, _quick),
        Step("wrong at first", "measurements", "phases", 0.1, _wrong_at_first),
        Step("crashes at first", "measurements", "phases", 0.1, _crashes_at_first),
        Step("elsewhere", "candidates", "candidates", 0.1, _elsewhere),
        Step("long", "candidates", "candidates", 0.1, _long),
        Step("too long", "candidates", "candidates", 3600, _quick),
    ]


def _quick(conditions: Conditions) -> Rows:
    return [{"what": "quick", "times": str(_times(conditions, "quick"))}]


def _wrong_at_first(conditions: Conditions) -> Rows:
    if _times(conditions, "wrong") == 1:
        raise ValueError("a planted error\nof two lines")
    return [{"what": "right now"}]


def _crashes_at_first(conditions: Conditions) -> Rows:
    if _times(conditions, "crashes") == 1:
        os._exit(3)
    return [{"what": "alive"}]


def _elsewhere(conditions: Conditions) -> Rows:
    conditions.only_on_cuda()
    raise NotApplicable("never reached")


def _long(conditions: Conditions) -> Rows:
    (conditions.cache / "pid").write_text(str(os.getpid()))
    while not (conditions.cache / "enough").exists():
        time.sleep(0.05)
    return [{"what": "long"}]


def _times(conditions: Conditions, name: str) -> int:
    """How often this was called before, by any process, and once more."""
    with open(conditions.cache / name, "a") as file:
        file.write("x")
    return len((conditions.cache / name).read_text())
