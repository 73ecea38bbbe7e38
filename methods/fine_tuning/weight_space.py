"""What fine-tuning methods do with the weights themselves: hold them back, average them along the path, merge them.

`Weights` are the tensors of a model's parameters by name, detached.
"""

from collections.abc import Mapping

import torch

Weights = Mapping[str, torch.Tensor]


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    return {name: weights.detach().clone() for name, weights in model.named_parameters()}


@torch.no_grad()
def load_weights(model: torch.nn.Module, weights: Weights) -> None:
    for name, own in model.named_parameters():
        own.copy_(weights[name])


def squared_distance(model: torch.nn.Module, start: Weights) -> torch.Tensor:
    """sum over all parameter tensors of ||theta - theta_start||^2: a plain sum, with gradients to the model."""
    terms = [(own - start[name]).square().sum() for name, own in model.named_parameters() if own.requires_grad]
    return torch.stack(terms).sum()


@torch.no_grad()
def merge(model: torch.nn.Module, other: Weights, alpha: float) -> None:
    """theta <- alpha theta + (1 - alpha) theta_other, for every parameter (WiSE-FT)."""
    for name, own in model.named_parameters():
        own.mul_(alpha).add_(other[name], alpha=1 - alpha)


class PathAverage:
    """Weight ensemble (WE): the uniform mean of snapshots along the training path.

    Before the first update, avg = theta_start and n = 0. After update k, whenever k mod `every` = 0:

        n <- n + 1,    avg <- (n avg + theta) / (n + 1)

    so the start and the weights after updates 0, every, 2 every, ... count equally. `pull` < 1 ("WE + WiSE") then also
    does avg <- pull avg + (1 - pull) theta_start. The training itself never sees the average.
    """

    def __init__(self, model: torch.nn.Module, every: int, pull: float = 1.0):
        self.every = every
        self.pull = pull
        self.start = weights_of(model)
        self.mean = weights_of(model)
        self.n = 0

    @torch.no_grad()
    def after_update(self, update: int, model: torch.nn.Module) -> None:
        if update % self.every:
            return
        self.n += 1
        for name, own in model.named_parameters():
            mean = self.mean[name]
            mean.mul_(self.n).add_(own).div_(self.n + 1)
            if self.pull < 1:
                mean.mul_(self.pull).add_(self.start[name], alpha=1 - self.pull)
