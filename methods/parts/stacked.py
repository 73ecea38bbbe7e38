"""Small networks of the same shape, one per class, trained as one batched model: what VAEs and diffusion models share.

The weights of a class are one row of a matrix (C, P), so Adam is a few operations on that matrix and a layer is one batched
product over the classes.
"""

import math
from collections.abc import Sequence

import torch

BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
FLOOR = 1e-6  # smallest range and deviation: a constant dimension stays constant instead of becoming 0 / 0


# -- standardisation --------------------------------------------------------------------------------------------


def standardisation(x: torch.Tensor) -> torch.Tensor:
    """(4, d) of features (n, d): minimum, range; then mean, unbiased deviation of (x - minimum) / range."""
    minimum = x.amin(dim=0)
    spread = (x.amax(dim=0) - minimum).clamp_min(FLOOR)
    unit = (x - minimum) / spread
    deviation = unit.var(dim=0, correction=min(1, len(x) - 1)).sqrt().clamp_min(FLOOR)  # 0 for a single image
    return torch.stack([minimum, spread, unit.mean(dim=0), deviation])


def standardise(x: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    minimum, spread, mean, deviation = statistics
    return ((x - minimum) / spread - mean) / deviation


def destandardise(x: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """Raw embeddings (C, n, d) from standardised ones, with the statistics (C, 4, d) of each class."""
    minimum, spread, mean, deviation = statistics.unsqueeze(2).unbind(1)  # (C, 1, d) each
    return (x * deviation + mean) * spread + minimum


# -- the network ------------------------------------------------------------------------------------------------


def unstack(rows: torch.Tensor, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    """(C, P) -> one tensor (C, *shape) per parameter."""
    pieces = rows.split([math.prod(shape) for shape in shapes], dim=1)
    return [piece.reshape(-1, *shape) for piece, shape in zip(pieces, shapes)]


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))  # (C, B, in) -> (C, B, out)


# -- optimisation -----------------------------------------------------------------------------------------------


class RowAdam:
    """AdamW on the rows of a matrix, each row with its own count of steps. Without weight decay it is Adam."""

    def __init__(self, weights: torch.Tensor, weight_decay: float = 0.0):
        self.weights = weights
        self.weight_decay = weight_decay
        self.mean, self.square = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = torch.zeros(len(weights), 1, dtype=torch.float64, device=weights.device)

    def step(self, gradient: torch.Tensor, rate: float) -> None:
        """Update the first len(gradient) rows, in place."""
        active = len(gradient)
        steps = self.steps[:active].add_(1)
        mean = self.mean[:active].lerp_(gradient, 1 - BETAS[0])
        square = self.square[:active].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        step_size = (rate / (1 - BETAS[0] ** steps)).to(gradient.dtype)
        deviation = square.sqrt() / (1 - BETAS[1] ** steps).sqrt().to(gradient.dtype)
        if self.weight_decay:
            self.weights[:active] *= 1 - rate * self.weight_decay
        self.weights[:active] -= step_size * mean / (deviation + ADAM_EPS)
