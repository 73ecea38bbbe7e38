"""Exemplar memory: which training images of earlier classes may be kept, and keeping them."""

import torch

from bench.stream import Scenario


def exemplars_per_class(scenario: Scenario, classes_seen: int) -> int:
    """How many images of each class the protocol allows when so many classes have been seen.

    A fixed total is divided among the seen classes, rounded down: 2000 for 30 classes are 66 each.
    """
    if scenario.exemplars_per_class is not None:
        return scenario.exemplars_per_class
    if scenario.exemplars_total is not None:
        return scenario.exemplars_total // max(classes_seen, 1)
    return 0


def first_of_each_class(labels: torch.Tensor, per_class: int) -> torch.Tensor:
    """Rows (in order) of the first `per_class` images of every class in `labels` (n,)."""
    kept = [torch.nonzero(labels == label).flatten()[:per_class] for label in labels.unique()]
    return torch.cat(kept).sort().values if kept else torch.zeros(0, dtype=torch.long)
