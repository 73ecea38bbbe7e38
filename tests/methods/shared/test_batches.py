"""Training batches and the compute budget."""

import inspect
import warnings

import pytest
import torch

from bench.streams.stream import Scenario
from bench.system.randomness import Draws
from methods.shared import batches as module
from methods.shared.batches import budgets_of_phases, steps_within_budget, training_batches

DRAWS = Draws("test", "batches", 0)


def scenario(budget: int | None = None) -> Scenario:
    return Scenario("class-incremental", ("a",), (("{}",),), (0,), images_per_task=budget)


def batches(budget: int | None = None, epochs: int = 2, purpose=("order", 0)) -> list[module.Batch]:
    return list(training_batches(DRAWS, images=10, batch_size=4, epochs=epochs, budget=budget, purpose=purpose))


def test_every_epoch_sees_all_images_once_in_an_order_of_its_own():
    found = batches()
    assert [(batch.step, batch.epoch, len(batch.rows)) for batch in found] == [
        (0, 0, 4), (1, 0, 4), (2, 0, 2), (3, 1, 4), (4, 1, 4), (5, 1, 2),
    ]  # fmt: skip
    orders = [[int(k) for _, e, rows in found if e == epoch for k in rows] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]


def test_the_order_of_an_epoch_is_drawn_for_the_purpose_and_the_epoch():
    """What seeds have been published with: a resumed or repeated run sees its images as before."""
    for epoch in (0, 1):
        order = torch.cat([batch.rows for batch in batches() if batch.epoch == epoch])
        assert torch.equal(order, DRAWS.permutation(10, "order", 0, epoch))
    assert not torch.equal(batches(purpose=("order", 1))[0].rows, batches()[0].rows)


def test_the_budget_cuts_the_steps():
    assert steps_within_budget(images=10, batch_size=4, epochs=3, budget=None) == len(batches(None, 3)) == 9
    assert steps_within_budget(images=10, batch_size=4, epochs=3, budget=17) == len(batches(17, 3)) == 5
    assert batches(0) == []


def test_a_budget_must_be_named():
    """A method that left it out would train for longer than the protocol allows, and nothing would say so."""
    with pytest.raises(TypeError, match="budget"):
        training_batches(DRAWS, images=10, batch_size=4, epochs=3, purpose=())


def test_phases_share_the_budget_in_proportion_when_it_is_short():
    def shares(budget, *images):
        return budgets_of_phases(scenario(budget), images)

    assert shares(None, 30, 10) == [None, None]
    assert shares(40, 30, 10) == [40, 40]  # enough: neither phase is cut
    assert shares(17, 42, 16) == [12, 4]
    assert shares(17, 42, 0) == [17, 0]


# -- the form in which methods were written before ----------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, 17])
def test_the_former_call_gives_the_same_batches_and_says_where_it_stands(budget):
    with pytest.warns(DeprecationWarning, match=r"shared\.batches\.batches is training_batches.*next release") as caught:
        line = inspect.currentframe().f_lineno + 1
        found = list(module.batches(scenario(budget), DRAWS, 10, 4, 3, "order", 0))
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]
    expected = batches(budget, 3)
    assert len(found) == len(expected)
    for (step, epoch, rows), batch in zip(found, expected):
        assert (step, epoch) == (batch.step, batch.epoch) and torch.equal(rows, batch.rows)


def test_the_former_counts_and_budgets_are_those_of_now():
    with pytest.warns(DeprecationWarning, match="count_steps is steps_within_budget"):
        assert module.count_steps(scenario(17), 10, 4, 3) == 5
    with pytest.warns(DeprecationWarning, match="share_budget is budgets_of_phases"):
        parts = module.share_budget(scenario(17), [42, 16])
    assert [part.images_per_task for part in parts] == [12, 4]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches(), budgets_of_phases(scenario(17), [42, 16])
    assert caught == []


@pytest.mark.parametrize(("images", "sizes"), [(10, [4, 4, 4, 4]), (8, [4, 4, 4, 4]), (3, [3, 3])])
def test_whole_batches_leave_out_a_smaller_last_one(images, sizes):
    length = {"images": images, "batch_size": 4, "epochs": 2, "budget": None, "whole_batches": True}
    found = list(training_batches(Draws("test", "batches", 0), purpose=("order",), **length))
    assert [len(batch.rows) for batch in found] == sizes
    assert [batch.step for batch in found] == list(range(steps_within_budget(**length)))
