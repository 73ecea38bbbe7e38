"""What is neither learning nor evaluation stays small: pytest tests/benchmarks/test_overheads.py -m "slow or not slow".

All are shares or differences of times of one call, on features that are in the store already.
"""

import os
import subprocess
import sys

import pytest

from bench.images.dataset import Folders
from bench.runs import plan
from bench.runs.facts import Facts
from bench.runs.profiling import profile
from bench.runs.request import Request
from bench.system.phases import PHASES

PROTOCOL = "mini60-6x10"
ENCODING = ("zero-shot", "linear-probe", "ranpac")  # what all others find in the store comes from these
METHODS = ("simplecil", "clip-adapter", "coop", "cgil")
OUTSIDE_AT_MOST = 0.10  # of the time of all methods
RUNNER_AT_MOST = 0.03  # of the time of a run
START_UP_AT_MOST = 5.0  # seconds of the processor, beyond importing torch

START_UP = """
import os, time, torch
before = time.process_time()
from unittest import mock
from bench import cli, runner
def stop(*anything):
    print(time.process_time() - before, flush=True)
    os._exit(0)
with mock.patch.object(runner, "execute", stop):
    cli.main(["run", "--protocol", "mini60-6x10", "--methods", "cgil", "--device", "cpu"])
"""


@pytest.fixture(scope="module")
def profiles(tmp_path_factory) -> list[profile.Profile]:
    """The methods one after the other, as `bench run --methods` carries them out, on features that an earlier run has stored."""
    cache = tmp_path_factory.mktemp("cache")
    names = [*ENCODING, *METHODS]
    request = Request(protocols=(PROTOCOL,), methods=tuple(names), device="cpu", precision="float32")
    with Facts() as facts:
        runs, _ = plan.build(request, facts)
    encoding, others = runs[: len(ENCODING)], runs[len(ENCODING) :]
    profile.profile(encoding, Folders(cache, cache), 1, count=False, stored_features=True)
    _, found, failures = profile.profile(others, Folders(cache, cache), 1, count=False, stored_features=True)
    assert not failures
    return found


@pytest.mark.slow
def test_a_tenth_of_the_time_at_most_is_outside_learning_and_evaluation(profiles):
    total = dict.fromkeys(PHASES, 0.0)
    for found in profiles:
        for phase, seconds in found.seconds.items():
            total[phase] += seconds
    print({phase: round(seconds, 2) for phase, seconds in total.items()})
    assert sum(total.values()) - total["train"] - total["evaluate"] <= OUTSIDE_AT_MOST * sum(total.values())


@pytest.mark.slow
def test_methods_on_a_full_store_encode_no_image(profiles):
    for found in profiles:
        assert found.seconds["encode"] == 0 and found.passes["encode"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coop", "cgil"])
def test_records_checkpoints_and_progress_take_little(profiles, name):
    """Of methods that train; those that only count and solve are done in less time than it takes to write their results."""
    [found] = [found for found in profiles if found.run.method == name]
    share = (found.seconds["write"] + found.seconds["other"]) / found.total
    print(name, round(share, 4))
    assert share < RUNNER_AT_MOST


@pytest.mark.slow
def test_a_run_starts_within_seconds(tmp_path):
    """From the end of importing torch to the beginning of the run: other imports, the plan, the weights."""
    environment = os.environ | {"BENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    seconds = []
    for _ in range(3):
        found = subprocess.run(
            [sys.executable, "-c", START_UP], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert found.returncode == 0, found.stderr
        seconds.append(float(found.stdout.split()[-1]))
    print([round(value, 2) for value in seconds])
    assert min(seconds) < START_UP_AT_MOST
