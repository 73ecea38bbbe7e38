"""Small networks of the same shape, one per class, trained as one batched model: what VAEs and diffusion models share.

The weights of a class are one row of a matrix (C, P), and a layer is one batched product over the classes. On a GPU all classes
of a task are trained together, since small steps one after the other would leave it idle. On a CPU as many are as fit its cache
with their gradients and averages: beyond that, every step waits for memory. Rows do not interact, so a row ends the same.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch.nn.utils import parameters_to_vector

from bench import Draws

BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
PARAMETERS_IN_CACHE = 1_500_000  # weights, gradient, mean and square: 24 MB
Check = Callable[[torch.Tensor, str], None]  # what looks whether a loss, with its name, is finite
FLOOR = 1e-6  # smallest range and deviation: a constant dimension stays constant instead of becoming 0 / 0


# -- the models -------------------------------------------------------------------------------------------------


class ModelsOfClasses(torch.nn.Module, ABC):
    """The generative models of the classes learned so far, and the per-dimension statistics of their embeddings."""

    statistics: torch.Tensor  # (classes, minimum/range/mean/deviation, d)

    def __init__(self, d: int):
        super().__init__()
        self.register_buffer("statistics", torch.zeros(0, 4, d))

    @abstractmethod
    def new_network(self, c: int, draws: Draws) -> torch.nn.Module:
        """The untrained network of class c."""

    @abstractmethod
    def train_rows(
        self, weights: torch.Tensor, classes: Sequence[int], features: Sequence[torch.Tensor], draws: Draws, check: Check
    ) -> None:
        """Train every row of `weights` (C, P), in place, on the standardised features (n_c, d) of its class."""

    @abstractmethod
    def keep(self, weights: torch.Tensor) -> None:
        """Add what outlives the task of trained weights (C, P)."""

    @torch.no_grad()
    def fit(self, classes: Sequence[int], features: Sequence[torch.Tensor], draws: Draws, check: Check) -> None:
        """Add models of new classes, given the raw embeddings (n_c, d) of each."""
        statistics = torch.stack([standardisation(x) for x in features])  # (C, 4, d)
        standard = [standardise(x, s) for x, s in zip(features, statistics)]
        weights = torch.stack([parameters_to_vector(self.new_network(c, draws).parameters()) for c in classes])
        weights = weights.to(features[0].device)  # (C, P)
        n_classes, parameters = weights.shape
        for group in groups_of_classes(n_classes, parameters, weights.device):
            self.train_rows(weights[group], classes[group], standard[group], draws, check)
        self.keep(weights)
        self.statistics = torch.cat([self.statistics, statistics])


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
        return F.linear(x.squeeze(0), weight.squeeze(0), bias.squeeze(0)).unsqueeze(0)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


# -- optimisation -----------------------------------------------------------------------------------------------


def groups_of_classes(n_classes: int, parameters: int, device: torch.device) -> list[slice]:
    """Which classes are trained together, given the parameters of one."""
    together = n_classes if device.type == "cuda" else max(1, PARAMETERS_IN_CACHE // parameters)
    return [slice(first, first + together) for first in range(0, n_classes, together)]


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
