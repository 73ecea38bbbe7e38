"""A linear discriminant over classes that come task by task, as the authors of ENGINE and BOFA build it from image features.

With v (P,) the unit feature of an image, mu_c the mean of v over class c (not of unit length), and of one task's n images the
scatter C^T C of the rows v - mu_c:

    Lambda_task = P ((C^T C) + tr(C^T C) / (n - 1) I)^-1                                                (P, P)
    Lambda      = Lambda_task for the first task; later, with a = classes before / classes with the task,
                  a Lambda + (1 - a) Lambda_task + a (1 - a) / classes with the task * (m_old - m_new)(m_old - m_new)^T
    score of class c = v . Lambda mu_c - log(classes) - mu_c^T Lambda mu_c / 2

m_old and m_new are the means of mu_c over the classes before the task and over its own. Inverses are averaged, and a scatter is
added to an inverse: this is their rule, not the textbook's. The scores of all classes change with every task.
"""

import math

import torch


class LinearDiscriminant(torch.nn.Module):
    """The discriminant of all classes so far, numbered as they come. All of it is in double precision."""

    means: torch.Tensor
    precision: torch.Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(0, width, dtype=torch.float64))  # mu_c (n, P)
        self.register_buffer("precision", torch.zeros(width, width, dtype=torch.float64))  # Lambda (P, P)

    def __len__(self) -> int:
        return len(self.means)

    @torch.no_grad()
    def add(self, groups: list[torch.Tensor]) -> None:
        """The classes of one task, from the unit features (n_c, P) of each."""
        groups = [features.double() for features in groups]
        means = torch.stack([features.mean(dim=0) for features in groups])
        precision = task_precision(torch.cat([features - mean for features, mean in zip(groups, means)]))
        known, seen = len(self), len(self) + len(groups)
        if known:
            share, apart = known / seen, self.means.mean(dim=0) - means.mean(dim=0)
            merged = share * self.precision + (1 - share) * precision
            precision = merged + share * (seen - known) / seen**2 * torch.outer(apart, apart)
        self.precision = precision
        self.means = torch.cat([self.means, means])

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lambda mu_c (P, n) and what is added to every class's score (n,)."""
        weights = self.precision @ self.means.T
        return weights, -math.log(len(self)) - (self.means.T * weights).sum(dim=0) / 2

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """(b, n) of unit features (b, P)."""
        weights, offsets = self.weights()
        return features.double() @ weights + offsets


def task_precision(centred: torch.Tensor) -> torch.Tensor:
    """Lambda_task (P, P) of features (n, P) from which the means of their classes are taken.

    Where every class has one image they are all 0, and so is Lambda_task, as the pseudo-inverse of the authors gives it.
    """
    n, width = centred.shape
    scatter = centred.T @ centred
    trace = scatter.trace() / max(n - 1, 1)
    if not trace > 0:
        return torch.zeros_like(scatter)
    scatter.diagonal().add_(trace)
    inverse = torch.linalg.inv(scatter).contiguous()  # as a checkpoint gives it back: another layout, other last bits
    return width * inverse
