"""Canonical correlation of image features with the text features of their classes, from statistics that arrive batch by batch.

With z (D,) the feature of an image and t_c (D,) that of its class's text, over batches of images of which N_c are of class c:

    Szz = sum (z - zbar)(z - zbar)^T        Stt, Szt likewise, with t of the image's class in the place of one z or of both

zbar and tbar are the means of the **batch**, so scatter between batches does not count, nor between tasks: so does the authors'
code (`pooled` counts it). t takes one value for each class, so two small matrices hold what Stt and Szt do, with the rows of
P (C, D) the texts of the classes:

    Stt = P^T A P,   A (C, C) = sum over batches diag(N) - N N^T / B          Szt = R^T P,   R (C, D) = sums of z - zbar by class

In closed form, with n images so far, and inverse roots by eigenvalues that are at least `floor`:

    Wz = (Szz / (n - 1) + ridge I)^-1/2,   Wt likewise,   C = Wz Szt / (n - 1) Wt,   C C^T = V diag(kappa) V^T, kappa descending
    r = number of leading kappa whose share of the sum, cumulated, is at most `energy`,  rho = sqrt(kappa_1 .. r),  V_r = V[:, :r]
    an image lies at  rho * V_r^T Wz (z - mu_z),   a text at  rho * U^T Wt (t - mu_t),   U = Wt C^T V_r / rho

Wt stands there twice: the textbook's U is C^T V_r / rho (`whiten_once`). Signs of V cancel between images and texts. The rule for
r leaves out the direction that crosses the threshold, so with two classes, which have one direction, it would leave none.
Here the first one always stays.

Everything is in double precision, for the inverse roots divide by 1e-2. Only Wz needs a decomposition of D x D, or of as many
rows as there are images if those are few (scatter.py); St differs from ridge I in the span of P alone, and C C^T has the spectrum
of a matrix of C x C.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from methods.closed_form.scatter import Scatter


class Directions(NamedTuple):
    """Where images and texts lie: (feature - mean) @ map. The number of directions is 0 where nothing could be correlated."""

    image_mean: torch.Tensor  # mu_z (D,)
    image_map: torch.Tensor  # Wz V_r diag(rho) (D, r)
    text_mean: torch.Tensor  # mu_t (D,)
    text_map: torch.Tensor  # Wt U diag(rho) (D, r)
    correlations: torch.Tensor  # rho (r,)


class RunningCorrelation(torch.nn.Module):
    """The statistics so far, and their canonical directions. Classes are numbered as they come."""

    counts: torch.Tensor
    image_mean: torch.Tensor
    text_scatter: torch.Tensor
    cross_scatter: torch.Tensor

    def __init__(self, width: int, pooled: bool = False):
        super().__init__()
        self.pooled = pooled
        double = torch.float64
        self.register_buffer("counts", torch.zeros(0, dtype=double))  # images of each class (C,)
        self.register_buffer("image_mean", torch.zeros(width, dtype=double))  # mu_z (D,)
        self.image_scatter = Scatter(width)  # Szz (D, D)
        self.register_buffer("text_scatter", torch.zeros(0, 0, dtype=double))  # A (C, C)
        self.register_buffer("cross_scatter", torch.zeros(0, width, dtype=double))  # R (C, D)

    @torch.no_grad()
    def add(self, images: torch.Tensor, labels: torch.Tensor, n_classes: int, batch_size: int) -> None:
        """Images (b, D) with labels (b,) among the n_classes classes so far, in batches of this size, the last one smaller."""
        new = n_classes - len(self.counts)
        self.counts, self.text_scatter = F.pad(self.counts, (0, new)), F.pad(self.text_scatter, (0, new, 0, new))
        self.cross_scatter = F.pad(self.cross_scatter, (0, 0, 0, new))
        images = images.double()
        centred = torch.cat([self._add_batch(*batch) for batch in zip(images.split(batch_size), labels.split(batch_size))])
        self.image_scatter.add(centred)  # one product for all batches
        self.cross_scatter.index_add_(0, labels, centred)

    def _add_batch(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Everything but the products of the centred images (b, D), which are returned."""
        size, n, mean = len(images), self.counts.sum(), images.mean(dim=0)
        counts = labels.bincount(minlength=len(self.counts)).to(images)  # N (C,)
        self.text_scatter += counts.diag() - counts.outer(counts) / size
        if self.pooled and n:
            weight = size * n / (size + n)
            image_gap, text_gap = mean - self.image_mean, counts / size - self.counts / n  # of the means; texts in terms of P
            self.image_scatter.add(weight.sqrt() * image_gap[None])
            self.cross_scatter.addr_(weight * text_gap, image_gap)
            self.text_scatter.addr_(text_gap, weight * text_gap)
        self.image_mean += (mean - self.image_mean) * (size / (n + size))
        self.counts += counts
        return images - mean

    @torch.no_grad()
    def directions(
        self, texts: torch.Tensor, ridge: float, floor: float, energy: float, least_rho: float, whiten_once: bool
    ) -> Directions:
        """The canonical directions, given the texts P (C, D) of all classes so far. `least_rho`: least that is divided by."""
        texts, n = texts.double(), self.counts.sum()
        text_mean = self.counts @ texts / n
        if not self.text_scatter.any():  # no batch held images of two classes: their texts did not vary
            none = texts.new_zeros(texts.shape[1], 0)
            return Directions(self.image_mean.clone(), none, text_mean, none, none[0])
        whiten = self.image_scatter.inverse_root(n, ridge, floor)  # x Wz (b, D) of x
        cross = whiten(self.cross_scatter / (n - 1))  # (C, D): C is Wt P^T times this, transposed

        basis, corner = torch.linalg.qr(texts.T)  # P^T = basis (D, k) corner (k, C)
        within = corner @ self.text_scatter @ corner.T / (n - 1)
        spread, turns = torch.linalg.eigh(within + ridge * _identity(within))  # of St in the span of P; ridge everywhere else
        spread = spread.clamp_min(floor)
        _, roots, right = torch.linalg.svd(spread.rsqrt().unsqueeze(1) * (turns.T @ corner @ cross), full_matrices=False)
        kappa = roots.square()
        r = max(1, int((kappa.cumsum(0) / kappa.sum() <= energy).sum()))
        rho, chosen = roots[:r], right[:r].T  # V_r (D, r)

        power = -1.0 if whiten_once else -1.5
        text_directions = basis @ (turns * spread**power) @ turns.T @ corner @ (cross @ chosen)  # St^power P^T cross V_r
        image_map = whiten(chosen.T).T * rho
        return Directions(self.image_mean.clone(), image_map, text_mean, text_directions / rho.clamp_min(least_rho) * rho, rho)


def _identity(matrix: torch.Tensor) -> torch.Tensor:
    return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
