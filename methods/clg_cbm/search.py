"""Which concepts of a task are kept: those nearest to the first layer of a classifier that is trained for this alone.

With A (N, D) the unit text features of the task's concepts, mu their mean and S their covariance + ridge I,

    net           Linear (D -> N, W without offsets) - BatchNorm - Linear (N -> classes of the task)
    loss          CE + |m(W) - d| / d^p,    d = mean over concepts of (a - mu)^T S^-1 (a - mu)
    m(W)          the same mean over the rows w / |w|, with |w| a constant in the gradient

After training, rows w / |w| in their order take the nearest concept that is not taken yet, until K for each class are. Which rows
come first is arbitrary, and nothing spreads the choice over classes: it varies with the seed.
"""

import torch
import torch.nn.functional as F

from bench import BenchError, Draws


class ConceptSpread:
    """Squared distances from the mean of the concepts, in the measure of their covariance; in double precision."""

    def __init__(self, concepts: torch.Tensor, ridge: float):
        concepts = concepts.double()
        self.mean = concepts.mean(dim=0)
        covariance = torch.cov(concepts.T)
        covariance.diagonal().add_(ridge)
        try:
            self.inverse = torch.linalg.inv(covariance)
        except torch.linalg.LinAlgError as error:
            raise BenchError("the covariance of the concepts is singular: choose a covariance_ridge above 0") from error
        self.mean_distance = float(self.distances(concepts).mean())

    def distances(self, points: torch.Tensor) -> torch.Tensor:
        """(n,) of points (n, D)."""
        offsets = points.double() - self.mean
        return (offsets @ self.inverse * offsets).sum(dim=-1)

    def loss(self, rows: torch.Tensor, power: float) -> torch.Tensor:
        """|m(W) - d| / d^p of rows (N, D)."""
        units = rows / rows.detach().norm(dim=-1, keepdim=True)
        return (self.distances(units).mean() - self.mean_distance).abs() / self.mean_distance**power


class SearchNet(torch.nn.Module):
    """The classifier that is trained for the choice and thrown away: unit features (b, D) to logits of the task's classes."""

    def __init__(self, width: int, n_concepts: int, n_classes: int, draws: Draws, task: int):
        super().__init__()
        with draws.initialising("search", task):
            self.first = torch.nn.Linear(width, n_concepts, bias=False)
            self.last = torch.nn.Linear(n_concepts, n_classes)
        self.norm = torch.nn.BatchNorm1d(n_concepts)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(features)))


def nearest_free(rows: torch.Tensor, concepts: torch.Tensor, count: int) -> torch.Tensor:
    """(count,) which concepts (N, D) the first rows (N, D) take, in the order of their choice."""
    distances = torch.cdist(F.normalize(rows[:count], dim=-1), concepts)
    chosen: list[int] = []
    for own in distances:
        own[chosen] = torch.inf
        chosen.append(int(own.argmin()))
    return torch.tensor(chosen)
