"""Mixtures of round Gaussians, one mixture per class, of raw image features: what old classes are replayed from.

Fitted by scikit-learn as the authors do: components with one variance each, the mean of the coordinates' variances + 1e-6,
from the clusters of a single k-means start, until the mean log-likelihood gains less than 1e-3.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

SEED = 42  # of k-means, in every task of the authors' code
FLOOR = 1e-6  # added to every variance
GAIN = 1e-3
ROUNDS = 100


class Mixture(NamedTuple):
    """The components of one class."""

    means: np.ndarray  # (k, D)
    variances: np.ndarray  # (k,)
    weights: np.ndarray  # (k,)
    rounds: int
    log_likelihood: float  # mean over the features, at the last round


def start_labels(features: np.ndarray, components: int) -> np.ndarray:
    """(n,) the cluster of each feature (n, D) from which its mixture starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # images that occur repeatedly make fewer clusters
        return KMeans(components, n_init=1, random_state=np.random.RandomState(SEED)).fit(features).labels_


def fit_mixture(features: np.ndarray, labels: np.ndarray) -> Mixture:
    """The mixture of features (n, D), in double precision, from clusters with these labels (n,)."""
    features = np.asarray(features, dtype=np.float64)
    members = np.eye(labels.max() + 1)[labels]  # (n, k)
    sizes = members.sum(axis=0) + 10 * np.finfo(np.float64).eps
    means = members.T @ features / sizes[:, None]
    variances = (members.T @ features**2 / sizes[:, None] - means**2).mean(axis=1) + FLOOR
    if len(features) == 1:  # scikit-learn wants two
        return Mixture(means, variances, np.ones(1), 1, float("nan"))
    model = GaussianMixture(
        len(sizes), covariance_type="spherical", tol=GAIN, reg_covar=FLOOR, max_iter=ROUNDS, random_state=SEED,
        weights_init=sizes / sizes.sum(), means_init=means, precisions_init=1 / variances,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features)
    return Mixture(model.means_, model.covariances_, model.weights_, model.n_iter_, float(model.lower_bound_))


class ClassMixtures(torch.nn.Module):
    """The components of all classes so far, class by class. A class of fewer images than components has one for each."""

    means: torch.Tensor
    variances: torch.Tensor
    weights: torch.Tensor
    owners: torch.Tensor

    def __init__(self, width: int, components: int, dtype: torch.dtype):
        super().__init__()
        self.components = components
        self.register_buffer("means", torch.zeros(0, width, dtype=dtype))  # (P, D)
        self.register_buffer("variances", torch.zeros(0, dtype=dtype))  # (P,)
        self.register_buffer("weights", torch.zeros(0, dtype=dtype))  # (P,), of a class together 1
        self.register_buffer("owners", torch.zeros(0, dtype=torch.long))  # (P,) the class of each

    def __len__(self) -> int:
        return len(self.means)

    def add(self, classes: tuple[int, ...], groups: list[torch.Tensor]) -> None:
        """A mixture more for each class, of its raw features (n_c, D)."""
        for c, group in zip(classes, groups):
            features = group.double().cpu().numpy()
            fitted = fit_mixture(features, start_labels(features, min(self.components, len(features))))
            self.append(c, fitted)

    def append(self, c: int, mixture: Mixture) -> None:
        for name, new in zip(("means", "variances", "weights"), mixture):
            own = getattr(self, name)
            setattr(self, name, torch.cat([own, torch.from_numpy(np.asarray(new)).to(own)]))
        self.owners = torch.cat([self.owners, torch.full_like(self.owners.new_zeros(len(mixture.weights)), c)])

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """(P, D) a feature of every component, of standard normal noise (P, D)."""
        return self.means + self.variances.sqrt().unsqueeze(1) * noise.to(self.means)
