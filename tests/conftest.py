"""Options and fixtures for every test."""

import os
from pathlib import Path

import pytest

import tests.arithmetic  # noqa: F401  (before torch)
from tests import forked_bench
from tests.conformance.fixture import TinyWorld
from tests.small_world import make_stream, small_backbone  # noqa: F401  (fixtures)

os.environ.setdefault("BENCH_QUIET", "1")  # what a command says while it works depends on how fast the machine is
OWN_VECTORS = Path(__file__).parent / "conformance" / "vectors"


def pytest_addoption(parser):
    parser.addoption(
        "--vectors",
        type=Path,
        default=OWN_VECTORS,
        metavar="DIR",
        help="conformance vectors to test against: DIR/<method>/params.json and the files it lists",
    )
    parser.addoption(
        "--write-errors",
        type=Path,
        metavar="FILE",
        help="store the worst error / limit of each file of vectors that is compared, as results/conformance/worst_errors.csv",
    )


def pytest_configure(config):
    if not config.getoption("vectors").is_dir():
        raise pytest.UsageError(f"--vectors {config.getoption('vectors')}: no such directory")
    if config.getoption("write_errors") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--write-errors: the processes of -n do not tell each other what they have measured")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> TinyWorld:
    """A tiny random CLIP and 96 images of 8 classes: for comparing numbers, not for accuracy."""
    return TinyWorld(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def forked():
    """Where processes that have imported everything come from."""
    with forked_bench.running() as server:
        yield server
