"""How familiar test images are: log-densities under one Gaussian per task, and what follows from them for a batch.

With l_it the log-density of the unit feature of image i under the Gaussian of task t, E (512) and 1 the settings' divisor and
offset:

    w_it = sigmoid(l_it / E - 1)      own task a_i = argmax_t l_it, own weight w_i = w_{i, a_i}

Far from every Gaussian l is very negative and w goes to 0, hence to CLIP without any bank. That is what protects data sets that
are not learned. On images of a learned task l / E - 1 is about 1, so w is about 0.8 at most.
"""

from typing import NamedTuple

import torch


class Familiarity(NamedTuple):
    """Of the images of a batch, to the tasks learned; in double precision, for densities magnify rounding."""

    log_densities: torch.Tensor  # l (b, T)
    weights: torch.Tensor  # w_it (b, T)

    @property
    def own_tasks(self) -> torch.Tensor:
        """a_i (b,)"""
        return self.log_densities.argmax(dim=1)

    @property
    def own_weights(self) -> torch.Tensor:
        """w_i (b,), by each image's own task and not by the batch's"""
        return self.weights.gather(1, self.own_tasks.unsqueeze(1)).squeeze(1)

    @property
    def voted_task(self) -> int:
        """The own task of most images; of equally many the lowest number, which the authors leave open."""
        votes = torch.bincount(self.own_tasks)
        return int(torch.nonzero(votes == votes.max())[0])


def familiarity(log_densities: torch.Tensor, divisor: float, offset: float) -> Familiarity:
    return Familiarity(log_densities, torch.sigmoid(log_densities / divisor - offset))
