"""CLAP4CLIP's task adapters: for each task two linear maps that turn a class's text feature into a distribution.

For a class k of task i with the attended text feature u_k (d,):

    mu_k    = W_i u_k + b_i
    sigma_k = 0.999 softplus(W'_i u_k + b'_i) + 0.001
    q(z_k)  = Normal(mu_k, sigma_k^2), diagonal

and what training compares them with. Sums "over tasks" weigh the tasks equally: sum_i mean over the classes of task i.
The adapters of all tasks are applied as one batched product.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from methods.shared.modules import ModulesOf


class Gaussian(NamedTuple):
    """A diagonal normal distribution for each of K classes. `deviation` is None where only the mean is modelled."""

    mean: torch.Tensor  # (K, d)
    deviation: torch.Tensor | None  # (K, d)

    def samples(self, noise: torch.Tensor) -> torch.Tensor:
        """(S, K, d) of standard normal draws (S, K, d); the mean, as a single sample, where that is all there is."""
        if self.deviation is None:
            return self.mean.unsqueeze(0)
        return self.mean + self.deviation * noise

    def rows(self, which: torch.Tensor) -> "Gaussian":
        return Gaussian(self.mean[which], None if self.deviation is None else self.deviation[which])


class AdapterMap(torch.nn.Sequential):
    """A layer norm, or nothing in its place, and a linear map (d -> d), at PyTorch's default initialisation."""

    def __init__(self, width: int, layer_norm: bool):
        super().__init__(
            torch.nn.LayerNorm(width) if layer_norm else torch.nn.Identity(),
            torch.nn.Linear(width, width),
        )

    @property
    def norm(self) -> torch.nn.LayerNorm:
        norm = self[0]
        assert isinstance(norm, torch.nn.LayerNorm)  # asked for only where there is one
        return norm

    @property
    def linear(self) -> torch.nn.Linear:
        linear = self[1]
        assert isinstance(linear, torch.nn.Linear)
        return linear


class ProbabilisticAdapters(torch.nn.Module):
    """Grows by one pair (mean, deviation) at a time; `probabilistic=False` keeps the means only."""

    def __init__(self, width: int, layer_norm: bool, probabilistic: bool):
        super().__init__()
        self.width, self.layer_norm = width, layer_norm
        self.means = ModulesOf[AdapterMap]()
        self.deviations = ModulesOf[AdapterMap]() if probabilistic else None

    def __len__(self) -> int:
        return len(self.means)

    def _kinds(self) -> list[ModulesOf[AdapterMap]]:
        return [self.means] if self.deviations is None else [self.means, self.deviations]

    def grow(self) -> None:
        """Append a pair, untrained."""
        for maps in self._kinds():
            maps.append(AdapterMap(self.width, self.layer_norm))

    def older(self) -> list[torch.nn.Parameter]:
        """The parameters of all pairs but the last."""
        return [weights for maps in self._kinds() for weights in maps[:-1].parameters()]

    @torch.no_grad()
    def start_from_language(self, means: torch.Tensor, variances: torch.Tensor) -> None:
        """Language-aware initialisation of the newest pair, from all classes seen so far.

        means (K, d): m_k, mean over templates of the unit text features; variances (K, d): v_k, their unbiased variance.

            W = sum_k m_k m_k^T / d,    W' = sum_k v_k v_k^T / d,    biases as they are
        """
        self.means[-1].linear.weight.copy_(means.T @ means / self.width)
        if self.deviations is not None:
            self.deviations[-1].linear.weight.copy_(variances.T @ variances / self.width)

    def forward(self, u: torch.Tensor, owners: torch.Tensor) -> Gaussian:
        """The distributions of classes with attended text features u (K, d); owners (K,): the pair of each, ascending."""
        pairs = torch.arange(len(self), device=owners.device)
        counts = (owners == pairs.unsqueeze(1)).sum(dim=1)  # bincount would make a GPU wait
        place = torch.arange(len(owners), device=u.device) - (counts.cumsum(0) - counts)[owners]  # within its pair
        x = u.new_zeros(len(self), int(counts.max()), self.width)  # (T, most classes of a pair, d)
        x = x.index_put((owners, place), u)
        mean = self._map(self.means, x)[owners, place]
        if self.deviations is None:
            return Gaussian(mean, None)
        return Gaussian(mean, 0.999 * F.softplus(self._map(self.deviations, x)[owners, place]) + 0.001)

    def _map(self, maps: ModulesOf[AdapterMap], x: torch.Tensor) -> torch.Tensor:
        """Pair i's map of x[i], for x (T, n, d)."""
        if self.layer_norm:
            gain = torch.stack([one.norm.weight for one in maps])  # (T, d)
            offset = torch.stack([one.norm.bias for one in maps])
            x = F.layer_norm(x, (self.width,)) * gain.unsqueeze(1) + offset.unsqueeze(1)
        weight = torch.stack([one.linear.weight for one in maps])  # (T, d, d)
        bias = torch.stack([one.linear.bias for one in maps])
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def sum_over_tasks(values: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
    """sum over tasks of the mean of `values` (K,) over the classes of that task; tasks (K,) owns them."""
    classes_of_task = (tasks.unsqueeze(1) == tasks).sum(dim=1)  # (K,); bincount would make a GPU wait
    return (values / classes_of_task).sum()


def divergence(q: Gaussian, prior: Gaussian | None, tasks: torch.Tensor) -> torch.Tensor:
    """sum over tasks of mean_k sum_d KL(q_k || p_k); `prior` None is the standard normal distribution.

    KL(Normal(mu, sigma^2) || Normal(m, s^2)) = [ r - 1 - log r + ((mu - m) / s)^2 ] / 2,   r = (sigma / s)^2
    """
    assert q.deviation is not None  # where the mean is all there is, nothing diverges
    ratio, distance = q.deviation.square(), q.mean
    if prior is not None:
        assert prior.deviation is not None
        ratio, distance = (q.deviation / prior.deviation).square(), (q.mean - prior.mean) / prior.deviation
    kl = 0.5 * (ratio - 1 - ratio.log() + distance.square())  # (K, d)
    return sum_over_tasks(kl.sum(dim=-1), tasks)


def past_task_regularisation(samples: torch.Tensor, language: torch.Tensor, tasks: torch.Tensor) -> torch.Tensor:
    """R = sum over tasks i of mean_k [ -log softmax_j(A_kj) at j = k ],  k and j classes of task i.

        A_kj = mean_r mean_p e_kp . z_j^(r) = language_k . mean_r z_j^(r)

    samples (S, K, d): z without the residual, not normalised; language (K, d): means of the unit text features e_kp over
    the hand-made prompts p.
    """
    similarity = language @ samples.mean(dim=0).T  # (K, K)
    similarity = similarity.masked_fill(tasks.unsqueeze(1) != tasks, -torch.inf)
    return sum_over_tasks(-similarity.log_softmax(dim=-1).diagonal(), tasks)


def orthogonality(samples: torch.Tensor) -> torch.Tensor:
    """mean_k [ -log softmax_j(zbar_k . zbar_j) at j = k ] over all classes, zbar = mean_r z: the code's `ortho_loss`."""
    mean = samples.mean(dim=0)
    return F.cross_entropy(mean @ mean.T, torch.arange(len(mean), device=mean.device))
