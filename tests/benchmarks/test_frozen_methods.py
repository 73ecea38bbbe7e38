"""How long methods on cached features take: pytest tests/benchmarks/test_frozen_methods.py -m "slow or not slow".

The same measurement as `python -m tests.benchmarks.frozen_methods`, which also writes a table.
"""

import pytest

from bench.clip import backbone as backbones
from tests.benchmarks import frozen_methods
from tests.benchmarks.frozen_methods import METHODS, cached_stream, measure

PROTOCOL = "cifar100-10x10"
SMALL = ["--backbone", "mini", "--tasks", "2", "--train", "6", "--test", "2", "--threads", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_hundred_classes_of_fifty_features(benchmark, name):
    """One round each, with ViT-B/16's text tower; loops of many steps are estimated from their first four."""
    backbone = backbones.load("ViT-B-16", "none", "cpu")
    stream = cached_stream(backbone, PROTOCOL, n_tasks=10, train=50, test=10)
    timing = benchmark.pedantic(measure, args=(name, backbone, stream, PROTOCOL, 4), rounds=1)
    benchmark.extra_info.update(timing.row())
    assert len(timing.learning) == 10 and min(timing.learning) > 0


@pytest.mark.parametrize("name", ["simplecil", "clip-adapter", "cgil"])
def test_measures_and_writes_a_table(name, tmp_path, capsys):
    [timing] = frozen_methods.main([*SMALL, "--methods", name, "--steps", "2", "--out", str(tmp_path / "table.csv")])
    assert len(timing.learning) == len(timing.scoring) == 2
    assert (timing.steps_made < timing.steps) == (name != "simplecil")
    row = (tmp_path / "table.csv").read_text().splitlines()[1]
    assert row.startswith(name) and timing.row()["basis"] in row


def test_loops_cut_short_count_the_steps_that_they_would_have_made(tmp_path):
    """Estimated and whole training agree on the number of steps; only the whole one makes them."""
    cut, whole = (frozen_methods.main([*SMALL, "--methods", "clip-adapter", *how])[0] for how in (["--steps", "1"], ["--whole"]))
    assert whole.steps == whole.steps_made == cut.steps > cut.steps_made
