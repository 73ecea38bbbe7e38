"""Training batches and the compute budget."""

from bench.streams.stream import Scenario
from bench.system.randomness import Draws
from methods.shared.batches import batches, count_steps, share_budget


def scenario(budget: int | None = None) -> Scenario:
    return Scenario("class-incremental", ("a",), (("{}",),), (0,), images_per_task=budget)


def test_every_epoch_sees_all_images_once_in_an_order_of_its_own():
    found = list(batches(scenario(), Draws("test", "batches", 0), 10, 4, 2, "order", 0))
    assert [(step, epoch, len(rows)) for step, epoch, rows in found] == [
        (0, 0, 4), (1, 0, 4), (2, 0, 2), (3, 1, 4), (4, 1, 4), (5, 1, 2),
    ]  # fmt: skip
    orders = [[int(k) for _, e, rows in found if e == epoch for k in rows] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10)) and orders[0] != orders[1]


def test_the_budget_cuts_the_steps():
    assert count_steps(scenario(), 10, 4, 3) == 9
    assert count_steps(scenario(17), 10, 4, 3) == 5
    assert len(list(batches(scenario(17), Draws("test", "batches", 0), 10, 4, 3, "order"))) == 5


def test_phases_share_the_budget_in_proportion_when_it_is_short():
    def shares(budget, *images):
        return [part.images_per_task for part in share_budget(scenario(budget), images)]

    assert shares(None, 30, 10) == [None, None]
    assert shares(40, 30, 10) == [40, 40]  # enough: neither phase is cut
    assert shares(17, 42, 16) == [12, 4]
    assert shares(17, 42, 0) == [17, 0]
