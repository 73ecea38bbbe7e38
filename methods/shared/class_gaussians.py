"""Gaussians with a full covariance, one for each class (or task), of image features: to draw from, or to measure by.

Kept of n features x (D,) are the mean and the lower Cholesky factor L of the covariance,

    mu = mean x,    L L^T = S = C + ridge I,    C = sum (x - mu)(x - mu)^T / (n - 1), 0 for a single x

With n <= D features C is singular: the ridge carries the factor. Float32 would lose it beside large variances, so S is made and
factored in double precision, once, and only its factor is rounded. The factor has as many numbers as the covariance and
serves both purposes: x = mu + L z is a draw, and |L^-1 (x - mu)| the distance of x.
"""

import math
from collections.abc import Sequence

import torch

from bench import BenchError


class ClassGaussians(torch.nn.Module):
    """Gaussians that are added as classes come, numbered 0, 1, ... in that order, and never change.

    ridge: added to the diagonal of every covariance. shrunk: covariances are made rounder as `shrunk_covariance` says.
    dtype: of what is kept; none: that of the features.
    """

    means: torch.Tensor
    factors: torch.Tensor

    def __init__(self, width: int, ridge: float, shrunk: bool = False, dtype: torch.dtype | None = None):
        super().__init__()
        self.ridge, self.shrunk, self.dtype = ridge, shrunk, dtype
        self.register_buffer("means", torch.zeros(0, width, dtype=dtype))  # mu (n, D)
        self.register_buffer("factors", torch.zeros(0, width, width, dtype=dtype))  # L (n, D, D)

    def __len__(self) -> int:
        return len(self.means)

    @torch.no_grad()
    def add(self, groups: Sequence[torch.Tensor]) -> None:
        """One Gaussian more for each group of features (n, D)."""
        of_groups = [self.gaussian(features.double()) for features in groups]
        means, factors = (torch.stack(parts).to(self.dtype or groups[0].dtype) for parts in zip(*of_groups))
        self.means = torch.cat([self.means.to(means), means])
        self.factors = torch.cat([self.factors.to(factors), factors])

    def gaussian(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mu (D,) and L (D, D) of features (n, D)."""
        covariance = ridged_covariance(features, self.ridge)
        if self.shrunk:
            covariance = shrunk_covariance(covariance)
        return features.mean(dim=0), torch.linalg.cholesky(covariance)

    def sample_all(self, noise: torch.Tensor, scale: torch.Tensor | float = 1.0) -> torch.Tensor:
        """(n, k, D) draws from every Gaussian, of standard normal noise (n, k, D). `scale` (n, 1): factors on the means."""
        return torch.baddbmm((scale * self.means).unsqueeze(1), noise.to(self.means), self.factors.transpose(1, 2))

    def sample(self, which: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """(m, k, D) draws, row i from Gaussian which[i], of standard normal noise (m, k, D). A Gaussian may occur repeatedly.

        One product for each Gaussian that occurs: its factor is not copied for every row, of which there may be thousands. Rows
        of one Gaussian are put beside each other before they go to the device, so that two uploads serve them all.
        """
        if not len(which):
            return noise.to(self.means)
        which = which.cpu()
        order = which.argsort(stable=True)
        gaussians, rows = which.unique(return_counts=True)
        parts = noise[order].to(self.means).split(rows.tolist())
        drawn = [self.means[one] + part @ self.factors[one].T for one, part in zip(gaussians.tolist(), parts)]
        return torch.cat(drawn)[order.argsort().to(self.means.device)]

    def log_density(self, features: torch.Tensor) -> torch.Tensor:
        """(b, n) log-densities of features (b, D) under every Gaussian, in double precision.

            -1/2 (D log 2 pi + |L^-1 (x - mu)|^2) - sum_j log L_jj
        """
        offsets = features.double() - self.means.double().unsqueeze(1)  # (n, b, D)
        factors = self.factors.double()
        distances = torch.linalg.solve_triangular(factors, offsets.transpose(1, 2), upper=False).square().sum(dim=1)  # (n, b)
        volumes = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1, keepdim=True)  # (n, 1)
        return (-(features.shape[1] * math.log(2 * math.pi) + distances) / 2 - volumes).T


def by_class(
    features: torch.Tensor, labels: torch.Tensor, classes: Sequence[int], names: Sequence[str]
) -> list[torch.Tensor]:
    """The features (n_c, D) of each class, in the order of `classes`; BenchError for one that has none.

    labels (n,) and classes are positions in `names`.
    """
    groups = [features[labels.to(features.device) == c] for c in classes]
    for c, own in zip(classes, groups):
        if len(own) == 0:
            raise BenchError(f"class {names[c]!r} has no training image to take statistics of")
    return groups


def ridged_covariance(features: torch.Tensor, ridge: float) -> torch.Tensor:
    """Covariance (D, D) of features (n, D), + ridge I; of a single one the ridge alone."""
    covariance = features.new_zeros(features.shape[1], features.shape[1])
    if len(features) > 1:
        covariance = torch.cov(features.T)
    covariance.diagonal().add_(ridge)
    return covariance


def shrunk_covariance(covariance: torch.Tensor) -> torch.Tensor:
    """S = C + a I + b (1 1^T - I): a is the mean of C's diagonal, b that of its entries beside it that are not 0.

    It is added, and C is not scaled down: the diagonal grows by its own mean. S is positive definite where C is. With no entry
    beside the diagonal (a single image) b is 0.
    """
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    beside = covariance * (1 - identity)
    b = beside.sum() / beside.count_nonzero().clamp_min(1)
    return covariance + covariance.diagonal().mean() * identity + b * (1 - identity)
