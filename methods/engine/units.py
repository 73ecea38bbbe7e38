"""Linear units on features, one for each task, whose outputs are summed: there is no path beside them."""

import torch
import torch.nn.functional as F

from bench import Draws


class SummedUnits(torch.nn.Module):
    """g(v) = sum_j (A_j v + a_j) over the tasks so far; features (n, D) to (n, D). Before the first task it is no map at all.

    The newest unit is trained as `fresh`; `keep` puts it to the others. Every unit begins as PyTorch begins a linear layer,
    uniform within 1 / sqrt(D), weights and offsets: near neither 0 nor the identity.
    """

    weights: torch.Tensor
    offsets: torch.Tensor

    def __init__(self, width: int, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("weights", torch.zeros(0, width, width, dtype=dtype))  # A_j (t, D, D)
        self.register_buffer("offsets", torch.zeros(0, width, dtype=dtype))  # a_j (t, D)

    def __len__(self) -> int:
        return len(self.weights)

    def fresh(self, draws: Draws, *purpose: object) -> torch.nn.Linear:
        """A unit as training begins with it."""
        width = self.weights.shape[-1]
        with draws.initialising(*purpose):
            return torch.nn.Linear(width, width).to(self.weights)

    def with_newest(self, features: torch.Tensor, newest: torch.nn.Linear) -> torch.Tensor:
        """g with a unit in training, which alone gets gradients."""
        return F.linear(features, newest.weight + self.weights.sum(dim=0), newest.bias + self.offsets.sum(dim=0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return F.linear(features, self.weights.sum(dim=0), self.offsets.sum(dim=0))

    def keep(self, newest: torch.nn.Linear) -> None:
        self.weights = torch.cat([self.weights, newest.weight.detach().unsqueeze(0)])
        self.offsets = torch.cat([self.offsets, newest.bias.detach().unsqueeze(0)])
