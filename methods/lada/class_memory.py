"""Memory units: a few vectors per class, in the joint space, by which an image's unit feature f is scored.

    score of class c = sum over its units w of exp(-beta (1 - f . w))

Units are not of unit length: they start as means of unit features, and are free after that. The units of a class are a row of
a table (n, L, D); a class that has fewer than L leaves places empty, which count for nothing.
"""

import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

SEED = 42  # of k-means, in every task of the authors' code
STARTS = 10


def centres(features: torch.Tensor, units: int) -> torch.Tensor:
    """(k, D) centres of k = min(units, n) clusters of unit features (n, D); with a unit for every image, the features."""
    if len(features) <= units:
        return features
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # images that occur repeatedly make fewer clusters
        found = KMeans(units, n_init=STARTS, random_state=SEED).fit(features.double().cpu().numpy())
    return torch.from_numpy(np.asarray(found.cluster_centers_)).to(features)


def table_of(units: list[torch.Tensor], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A table (n, length, D) of the units (k, D) of each class, and how many (n,) each has."""
    table = units[0].new_zeros(len(units), length, units[0].shape[1])
    for row, own in zip(table, units):
        row[: len(own)] = own
    return table, torch.tensor([len(own) for own in units], device=table.device)


def is_unit(counts: torch.Tensor, length: int) -> torch.Tensor:
    """(n, length) which places of a table with so many units (n,) in each row are taken."""
    return torch.arange(length, device=counts.device) < counts.unsqueeze(1)


def memory_scores(features: torch.Tensor, table: torch.Tensor, counts: torch.Tensor, beta: float) -> torch.Tensor:
    """(b, n) scores of unit features (b, D)."""
    n, length, width = table.shape
    cosines = (features @ table.view(n * length, width).T).view(-1, n, length)
    return (torch.exp(beta * (cosines - 1)) * is_unit(counts, length)).sum(dim=2)
