"""Nearest mean of exemplars: the classifier of iCaRL."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def unit(features: torch.Tensor) -> torch.Tensor:
    """x / (||x|| + 1e-8), row by row."""
    return features / (features.norm(dim=-1, keepdim=True) + 1e-8)


def exemplar_means(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """(classes, d): for each class the mean of its exemplars' unit features (m, d), at unit length again."""
    return torch.stack([F.normalize(unit(own).mean(dim=0), dim=0, eps=0.0) for own in features])


def negative_squared_distances(features: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """(b, classes): -||v(x) - mean_c||^2, largest for the nearest mean."""
    return -torch.cdist(unit(features), means, compute_mode="donot_use_mm_for_euclid_dist").square()
