"""Closed-form generators of a class's embeddings: a Gaussian, and a mixture of Gaussians.

Every kind of generator (those of `vae.py` and `diffusion.py` too) has the same two verbs: `fit` adds the classes of a task,
`sample` draws embeddings of all classes so far.
"""

import math
from collections.abc import Sequence

import torch

from bench import Draws

TINY = 1e-6  # added to responsibilities and variances
STOP_GAIN = 1e-3  # of the mean log-likelihood; also the movement at which k-means stops
K_MEANS_STARTS = 50


class Gaussians(torch.nn.Module):
    """A diagonal Gaussian per class: mean and unbiased deviation of each dimension (deviation 0 for a single image)."""

    means: torch.Tensor
    deviations: torch.Tensor

    def __init__(self, d: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(0, d))  # (classes, d)
        self.register_buffer("deviations", torch.zeros(0, d))  # (classes, d)

    def fit(self, classes: Sequence[int], features: Sequence[torch.Tensor], draws: Draws, check) -> None:
        """Add the new classes, given the raw embeddings (n_c, d) of each. Nothing is drawn, no loss can diverge."""
        variances = [x.var(dim=0, correction=min(1, len(x) - 1)) for x in features]
        self.means = torch.cat([self.means, torch.stack([x.mean(dim=0) for x in features])])
        self.deviations = torch.cat([self.deviations, torch.stack(variances).sqrt()])

    def sample(self, n: int, draws: Draws, *purpose: object) -> torch.Tensor:
        """(classes, n, d) new raw embeddings of every class learned so far."""
        noise = draws.normal((len(self.means), n, self.means.shape[1]), *purpose).to(self.means.device)
        return self.means.unsqueeze(1) + self.deviations.unsqueeze(1) * noise


class Mixtures(torch.nn.Module):
    """A mixture of K diagonal Gaussians per class."""

    weights: torch.Tensor
    means: torch.Tensor
    variances: torch.Tensor

    def __init__(self, d: int, components: int, iterations: int):
        super().__init__()
        self.iterations = iterations
        self.register_buffer("weights", torch.zeros(0, components))  # (classes, K)
        self.register_buffer("means", torch.zeros(0, components, d))  # (classes, K, d)
        self.register_buffer("variances", torch.zeros(0, components, d))  # (classes, K, d)

    def fit(self, classes: Sequence[int], features: Sequence[torch.Tensor], draws: Draws, check) -> None:
        """Add the new classes, given the raw embeddings (n_c, d) of each."""
        fits = []
        for c, x in zip(classes, features):
            *mixture, likelihood = fit_mixture(x, k_means(x, self.weights.shape[1], draws, c), self.iterations)
            check(likelihood, f"mixture of class {c}")
            fits.append(mixture)
        for name, new in zip(("weights", "means", "variances"), zip(*fits)):
            setattr(self, name, torch.cat([getattr(self, name), torch.stack(new)]))

    def sample(self, n: int, draws: Draws, *purpose: object) -> torch.Tensor:
        """(classes, n, d) new raw embeddings of every class learned so far."""
        generator = draws.generator(*purpose, "component")
        component = torch.multinomial(self.weights.cpu(), n, replacement=True, generator=generator)  # (classes, n)
        component = component.to(self.means.device)
        each = torch.arange(len(component), device=component.device).unsqueeze(1)
        noise = draws.normal((*component.shape, self.means.shape[2]), *purpose).to(self.means.device)
        return self.means[each, component] + self.variances[each, component].sqrt() * noise


def fit_mixture(x: torch.Tensor, means: torch.Tensor, iterations: int) -> tuple[torch.Tensor, ...]:
    """Expectation-maximisation from the given means (K, d), variances 1 and equal weights.

    Returns weights (K,), means (K, d), variances (K, d) and the mean log-likelihood of x (n, d). At least one and at most
    iterations + 1 rounds; it stops at the first that gains less than STOP_GAIN, also when it loses.
    """
    variances = torch.ones_like(means)
    weights = torch.full_like(means[:, 0], 1 / len(means))
    joint = log_density(x, means, variances) + weights.log()  # (n, K)
    likelihood = torch.tensor(-math.inf)
    for _ in range(iterations + 1):
        before = likelihood
        responsibility = joint.softmax(dim=1)  # (n, K)
        total = responsibility.sum(dim=0) + TINY  # (K,)
        means = responsibility.T @ x / total.unsqueeze(1)
        squares = responsibility.T @ x.square() / total.unsqueeze(1)
        variances = (squares - means.square()).clamp_min(0) + TINY  # rounding can make the difference negative
        weights = total / len(x)
        joint = log_density(x, means, variances) + weights.log()
        likelihood = joint.logsumexp(dim=1).mean()
        if likelihood - before < STOP_GAIN:
            break
    return weights, means, variances, likelihood


def log_density(x: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> torch.Tensor:
    """(n, K) what the authors' code takes for the log-density of each Gaussian.

    Its quadratic term divides by the deviation instead of the variance, and it has half of the log-determinant. The
    density is therefore not one; kept, for the mixtures it finds are the published ones.
    """
    deviations = variances.sqrt()  # (K, d)
    quadratic = ((x.unsqueeze(1) - means).square() / deviations).sum(dim=2)  # (n, K)
    return -0.5 * (x.shape[1] * math.log(2 * math.pi) + quadratic + deviations.log().sum(dim=1))


def k_means(x: torch.Tensor, k: int, draws: Draws, c: int) -> torch.Tensor:
    """(k, d) centres of features (n, d): the best of 50 random choices of images, then Lloyd's iteration.

    Works on features scaled to [0, 1] by their overall range. With fewer than k images some are chosen repeatedly; a
    centre that loses all its images stays where it is.
    """
    low = x.min()
    spread = (x.max() - low).clamp_min(TINY)
    x = (x - low) / spread

    def start(attempt: int) -> torch.Tensor:
        return x[draws.permutation(len(x), "k-means start", c, attempt)[torch.arange(k) % len(x)].to(x.device)]

    def cost(centres: torch.Tensor) -> torch.Tensor:
        distance, nearest = torch.cdist(x, centres).min(dim=1)
        member = torch.nn.functional.one_hot(nearest, k).to(x.dtype)  # (n, k)
        return (member.T @ distance / member.sum(dim=0).clamp_min(1)).sum()  # of each cluster's mean distance

    centres = min((start(attempt) for attempt in range(K_MEANS_STARTS)), key=lambda centres: float(cost(centres)))
    moved = math.inf
    while moved > STOP_GAIN:
        member = torch.nn.functional.one_hot(torch.cdist(x, centres).argmin(dim=1), k).to(x.dtype)
        count = member.sum(dim=0).unsqueeze(1)
        means = torch.where(count > 0, member.T @ x / count.clamp_min(1), centres)
        moved = float((means - centres).norm(dim=1).max())
        centres = means
    return centres * spread + low
