"""One run over several processes: the weights of one process, for every method that says it divides."""

import pytest
import torch

from bench.learning.stated import may_be_divided
from bench.system import registry
from methods.fine_tuning.finetune import FineTune
from tests.methods import divided


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """By three processes."""
    return divided.trained_by(3, tmp_path_factory.mktemp("three"))


@pytest.mark.thorough
@pytest.mark.parametrize("case", divided.CASES)
def test_three_processes_train_as_one(case, three, tmp_path):
    found, alone = map(without_key_biases, (three["states"][case], divided.trained(case, divided.ALONE, tmp_path)))
    assert found.keys() == alone.keys() and any(name.startswith("clip.") for name in alone)
    for name, value in alone.items():
        assert found[name].dtype == value.dtype
        assert torch.allclose(found[name], value, rtol=0, atol=1e-7), (name, (found[name] - value).abs().max())


def without_key_biases(state):
    """No attention depends on the bias of its keys, so that its gradient is 0 but for rounding. Under the pull to the task's
    start (l2_weight) AdamW makes gradients of 1e-17 as large as any within a few updates, by one process or by several."""
    kept = dict(state)
    for name, value in state.items():
        if name.endswith("attn.in_proj_bias"):
            queries, _, values = value.chunk(3)
            kept[name] = torch.cat([queries, values])
    return kept


def test_training_moved_the_weights_by_far_more_than_that(tmp_path):
    start = divided._backbone().clip.state_dict()
    after = divided.trained("finetune", divided.ALONE, tmp_path)
    moved = [float((after[f"clip.{name}"] - value).abs().max()) for name, value in start.items() if value.is_floating_point()]
    assert sorted(moved)[len(moved) // 2] > 1e-3


@pytest.mark.thorough
def test_numbers_of_processes_add_up(three):
    assert three["of others"] == 2 + 3


def test_every_method_that_says_it_divides_is_tried_here():
    methods, broken = registry.load_all("method")
    assert not broken
    assert {name for name, method in methods.items() if may_be_divided(method)} == {name for name, _, _ in divided.CASES.values()}


def test_a_plug_in_that_changes_the_loop_of_a_built_in_method_says_it_anew():
    silent = type("Silent", (FineTune,), {"__module__": "somewhere.else"})
    aloud = type("Aloud", (FineTune,), {"__module__": "somewhere.else", "several_processes": True})
    assert (may_be_divided(silent), may_be_divided(aloud), may_be_divided(FineTune)) == (False, True, True)
