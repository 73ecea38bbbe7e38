"""Every method that says it can runs on a task-agnostic stream to its end: all classes are asked for at every moment."""

import pytest

from bench.learning.stated import scenarios_of
from bench.results import records
from bench.system import registry
from tests.bench.small_runs import TASKS, execute, manifest, small_run
from tests.every_method import every_method

METHODS = [name for name in registry.names("method") if "task-agnostic" in scenarios_of(registry.load("method", name))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_methods_without_a_text_side_are_left_out_and_upper_bounds_are_not():
    left_out = set(registry.names("method")) - set(METHODS)
    assert {"simplecil", "l2p", "slca"} <= left_out
    assert not {name for name in left_out if registry.load("method", name).zero_shot}
    assert {"zero-shot", "joint", "linear-probe", "lada", "rail-primal"} <= set(METHODS)


@pytest.mark.parametrize("name", every_method(["finetune", "lada", "rail-primal", "zero-shot"], METHODS))
def test_it_ends(name, tmp_path, cache):
    run = small_run(name, tmp_path)
    execute(run, cache, kind="task-agnostic")
    table = records.read_csv(run.folder / "records.csv")
    assert set(table["candidates"]) == {"all"} and set(table["scenario"]) == {"task-agnostic"}
    assert len(table) == (TASKS if registry.load("method", name).joint else TASKS**2)
    assert isinstance(manifest(run)["ties"], list)
