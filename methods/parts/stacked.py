"""Small networks of the same shape, one per class, trained as one batched model: what VAEs and diffusion models share.

The weights of a class are one row of a matrix (C, P), and a layer is one batched product over the classes. On a GPU all classes
of a task are trained together, since small steps one after the other would leave it idle. On a CPU as many are as fit its cache
with their gradients and averages: beyond that, every step waits for memory. Rows do not interact, so a row ends the same.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
PARAMETERS_IN_CACHE = 1_500_000  # weights, gradient, mean and square: 24 MB
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


def layers_with_gradients(rows: torch.Tensor, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    """The same, each a leaf of its own: a gradient of the whole matrix would be written once more to put it together."""
    return [layer.detach().requires_grad_() for layer in unstack(rows, shapes)]


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """(C, B, in) -> (C, B, out)"""
    if len(x) == 1:  # the gradient of a batched product comes transposed and is copied once more; this one does not
        return F.linear(x[0], weight[0], bias[0]).unsqueeze(0)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


# -- optimisation -----------------------------------------------------------------------------------------------


def groups_of_classes(n_classes: int, parameters: int, device: torch.device) -> list[range]:
    """Which classes are trained together, given the parameters of one."""
    together = n_classes if device.type == "cuda" else max(1, PARAMETERS_IN_CACHE // parameters)
    return [range(first, min(first + together, n_classes)) for first in range(0, n_classes, together)]


class RowAdam:
    """AdamW on the rows of a matrix, each row with its own count of steps. Without weight decay it is Adam."""

    def __init__(self, weights: torch.Tensor, shapes: Sequence[torch.Size], weight_decay: float = 0.0):
        # views: they share the memory of `weights`
        self.rows = [[torch.nn.Parameter(layer[row]) for layer in unstack(weights, shapes)] for row in range(len(weights))]
        every_layer = [layer for row in self.rows for layer in row]
        self.optimiser = torch.optim.AdamW(
            every_layer, lr=0.0, betas=BETAS, eps=ADAM_EPS, weight_decay=weight_decay, fused=True
        )

    def step(self, gradients: Sequence[torch.Tensor], rate: float) -> None:
        """Update rows in place, given the gradient (active, *shape) of every layer for the first `active` ones."""
        for index, row in enumerate(self.rows):
            for layer, gradient in zip(row, gradients):
                # without a gradient it makes no step
                layer.grad = gradient[index].contiguous() if index < len(gradient) else None
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
