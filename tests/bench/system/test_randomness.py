"""Random draws depend on their purpose alone."""

import torch

from bench.system.randomness import Draws, stable_seed


def test_a_seed_is_the_same_in_every_process():
    assert stable_seed("protocol", "method", 0) == 7345501700916143026


def test_parts_of_a_key_do_not_run_together():
    assert stable_seed("ab", "c") != stable_seed("a", "bc")


def test_the_same_purpose_gives_the_same_draws_whatever_was_drawn_before():
    draws = Draws("protocol", "method", 0)
    first = draws.normal((3,), "noise", 1)
    draws.permutation(10, "order")
    assert torch.equal(draws.normal((3,), "noise", 1), first)


def test_purpose_seed_method_and_protocol_each_change_the_draws():
    reference = Draws("protocol", "method", 0).normal((4,), "noise")
    others = [
        Draws("protocol", "method", 0).normal((4,), "other"),
        Draws("protocol", "method", 1).normal((4,), "noise"),
        Draws("protocol", "another", 0).normal((4,), "noise"),
        Draws("another", "method", 0).normal((4,), "noise"),
    ]
    assert all(not torch.equal(other, reference) for other in others)


def test_layers_are_initialised_from_their_purpose_and_the_global_state_is_restored():
    draws = Draws("protocol", "method", 0)
    torch.manual_seed(1)
    expected_next = torch.rand(1)
    torch.manual_seed(1)
    with draws.initialising("layer"):
        first = torch.nn.Linear(3, 3).weight
    assert torch.equal(torch.rand(1), expected_next)
    with draws.initialising("layer"):
        assert torch.equal(torch.nn.Linear(3, 3).weight, first)
