"""One step of gradient descent after another, for training loops that differ in their images and in their loss alone."""

from collections.abc import Callable

import torch

from bench import Method
from bench.system import progress

CHECK_EVERY = 20  # steps between two looks at the loss: each look makes a GPU wait


class Descent:
    """The steps of one phase of training.

        descent = Descent(self, optimiser, at_step=f"{task.name}, step", at_end=f"{task.name}, last step")
        for (step, epoch, rows), pixels in pixel_batches(...):
            descent.step(self.loss(...), rates[epoch])
        descent.finish()

    A loss that is not finite spoils all weights from then on, and what they score would be written down as results: the run
    is stopped instead (`Method.check_finite`). It is looked at in every twentieth step, if `at_step` says how a message is to
    call one, and in any case in the last, since what has once become not a number stays so.

    cut: called between the gradients and the step, to shorten them.
    """

    def __init__(
        self,
        method: Method,
        optimiser: torch.optim.Optimizer,
        *,
        at_end: str,
        at_step: str | None = None,
        cut: Callable[[], object] | None = None,
    ):
        self.method, self.optimiser, self.cut = method, optimiser, cut
        self.at_step, self.at_end = at_step, at_end
        self.steps = 0
        self.last: torch.Tensor | None = None  # loss

    def step(self, loss: torch.Tensor, *rates: float) -> None:
        """Down the gradient of a batch's loss, with these learning rates: one for each of the optimiser's groups."""
        if self.at_step is not None and self.steps % CHECK_EVERY == 0:
            self.method.check_finite(loss, f"{self.at_step} {self.steps}")
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss.backward()
        if self.cut is not None:
            self.cut()
        self.optimiser.step()
        self.steps += 1
        self.last = loss.detach()
        progress.step(self.last)

    def finish(self) -> None:
        """After the last step; a budget may have left none."""
        if self.last is not None:
            self.method.check_finite(self.last, self.at_end)
        self.optimiser.zero_grad()
