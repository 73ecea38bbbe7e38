"""Steps of gradient descent: the arithmetic of torch's own loop, and runs that diverge are stopped."""

from types import SimpleNamespace

import pytest
import torch

from bench import Method, RunFailure
from methods.shared.descent import CHECK_EVERY, Descent

METHOD = SimpleNamespace(check_finite=lambda loss, what: Method.check_finite(None, loss, what))


def weights_and_optimiser() -> tuple[torch.nn.Parameter, torch.nn.Parameter, torch.optim.Optimizer]:
    one, other = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(1.0))
    return one, other, torch.optim.SGD([{"params": [one]}, {"params": [other]}], lr=7.0)


def test_every_group_moves_at_its_own_rate():
    one, other, optimiser = weights_and_optimiser()
    descent = Descent(METHOD, optimiser, at_end="last step")
    for rates in ((0.5, 0.25), (0.1, 0.0)):
        descent.step(2 * one + 4 * other, *rates)  # the gradients do not add up from step to step
    descent.finish()
    assert [float(one.detach()), float(other.detach())] == pytest.approx([1 - 2 * 0.5 - 2 * 0.1, 1 - 4 * 0.25])
    assert one.grad is None and descent.steps == 2


def test_a_group_without_a_rate_is_an_error():
    one, other, optimiser = weights_and_optimiser()
    with pytest.raises(ValueError):
        Descent(METHOD, optimiser, at_end="last step").step(one + other, 0.5)


def test_gradients_are_cut_before_the_step():
    one, other, optimiser = weights_and_optimiser()
    descent = Descent(METHOD, optimiser, at_end="last step", cut=lambda: torch.nn.utils.clip_grad_norm_([one, other], 1.0))
    descent.step(3 * one + 4 * other, 1.0, 1.0)
    assert [float(one.detach()), float(other.detach())] == pytest.approx([1 - 0.6, 1 - 0.8], abs=1e-5)


@pytest.mark.parametrize(("at_step", "message"), [("a task, update", f"a task, update {CHECK_EVERY}: "), (None, "the end: ")])
def test_a_loss_that_is_not_finite_stops_the_run(at_step, message):
    one, other, optimiser = weights_and_optimiser()
    descent = Descent(METHOD, optimiser, at_step=at_step, at_end="the end")
    with pytest.raises(RunFailure, match=f"^{message}the loss is not finite"):
        for step in range(CHECK_EVERY + 2):
            descent.step((one + other) * (torch.nan if step >= 1 else 1), 0.1, 0.1)
        descent.finish()
    assert descent.steps == (CHECK_EVERY if at_step else CHECK_EVERY + 2)


def test_a_budget_may_leave_no_step():
    _, _, optimiser = weights_and_optimiser()
    Descent(METHOD, optimiser, at_end="last step").finish()
