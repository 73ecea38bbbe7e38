"""The command line in a process of its own, and folders that the tests of one session share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked_bench


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """A cache folder (generated images, features) for the whole session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bench(tmp_path, cache, forked):
    """bench("run", "--protocol", ...) in a process of its own, in an empty folder. options: of subprocess.run."""

    def call(*arguments: str, **options) -> subprocess.CompletedProcess:
        environment = os.environ | {"BENCH_CACHE": str(cache), "COLUMNS": "200"}
        words = [str(argument) for argument in arguments]
        if options:
            return forked_bench.run_fresh(words, tmp_path, environment, 1800, **options)
        return forked.run(words, tmp_path, environment, 1800)

    return call


@pytest.fixture
def start_bench(tmp_path, cache):
    """Like `bench`, but returns while the process runs, so that it can be killed."""

    def start(*arguments: str) -> subprocess.Popen:
        environment = os.environ | {"BENCH_CACHE": str(cache)}
        command = [sys.executable, "-m", "bench", *map(str, arguments)]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return start
