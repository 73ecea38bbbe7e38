"""PROOF's cross-modal fusion: an image, the texts, the prototypes and free prompts look at each other.

For every image i of a batch one self-attention layer with a single head runs over the sequence

    X_i = [x_i ; S],      x_i (d,) the image,  S (R, d) rows that all images of the batch share

    Z_i = softmax(X_i W_q^T (X_i W_k^T)^T / sqrt(d)) X_i W_v^T           (1 + R, d), dropout on the softmax
    Y_i = LayerNorm(X_i + dropout(W_o Z_i + b_o))                        (1 + R, d)

The shared rows enter the queries, keys and values of every image alike, so these are computed once and not per image, and
rows whose output nobody reads get no query. Without dropout, the attention of a shared row r to the shared rows is the same
for every image but for the share that the image itself takes:

    p_ir = sigmoid(q_r k_i^T / sqrt(d) - logsumexp_s(q_r k_s^T / sqrt(d)))
    W_o Z_ir = (1 - p_ir) W_o softmax_s(q_r k_s^T / sqrt(d)) v_s + p_ir W_o v_i

so a batch of b images costs b R d + R^2 d instead of b R^2 d. All this is exact. In training, dropout strikes every
(image, row, row) apart, and nothing can be shared.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from bench import Draws


class Scores(NamedTuple):
    """q k^T / sqrt(d) of the batch's images, the shared rows and those of them that are wanted."""

    image_image: torch.Tensor  # (b, 1) of every image and itself
    image_shared: torch.Tensor  # (b, R)
    row_image: torch.Tensor  # (b, wanted)
    row_shared: torch.Tensor  # (wanted, R)


class CrossModalFusion(torch.nn.Module):
    """W_q, W_k, W_v (d, d) ~ N(0, 1 / d), W_o Xavier-normal with a bias, all drawn for the given purpose."""

    def __init__(self, width: int, dropout: float, draws: Draws, *purpose: object):
        super().__init__()
        with draws.initialising(*purpose):
            self.queries, self.keys, self.values = (torch.nn.Linear(width, width, bias=False) for _ in range(3))
            self.output = torch.nn.Linear(width, width)
            for linear in (self.queries, self.keys, self.values):
                torch.nn.init.normal_(linear.weight, std=1 / math.sqrt(width))
            torch.nn.init.xavier_normal_(self.output.weight)
        self.norm = torch.nn.LayerNorm(width)
        self.dropout = dropout

    def forward(self, images: torch.Tensor, shared: torch.Tensor, wanted: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Row 0 of every image (b, d), and the first `wanted` shared rows averaged over the batch (wanted, d)."""
        rows, scale = shared[:wanted], 1 / math.sqrt(images.shape[1])
        row_queries, shared_keys = self.queries(rows), self.keys(shared)
        image_queries, image_keys = self.queries(images), self.keys(images)
        scores = Scores(
            (image_queries * image_keys).sum(dim=-1, keepdim=True) * scale,
            image_queries @ shared_keys.T * scale,
            image_keys @ row_queries.T * scale,
            row_queries @ shared_keys.T * scale,
        )
        added = self._added_with_dropout if self.training and self.dropout else self._added
        to_images, to_rows = added(scores, self.values(images), self.values(shared))
        return self.norm(images + to_images), self.norm(rows + to_rows).mean(dim=0)

    def _added(self, scores: Scores, of_images: torch.Tensor, of_shared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the layer adds to the images, (b, d), and to the wanted rows beside each image, (b, wanted, d), from values."""
        weights = torch.cat([scores.image_image, scores.image_shared], dim=1).softmax(dim=-1)  # (b, 1 + R)
        to_images = self.output(weights[:, :1] * of_images + weights[:, 1:] @ of_shared)
        among_shared = self.output(scores.row_shared.softmax(dim=-1) @ of_shared)  # (wanted, d)
        share = (scores.row_image - scores.row_shared.logsumexp(dim=-1)).sigmoid()  # (b, wanted)
        return to_images, torch.lerp(among_shared, self.output(of_images).unsqueeze(1), share.unsqueeze(2))

    def _added_with_dropout(
        self, scores: Scores, of_images: torch.Tensor, of_shared: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_added`, with dropout on the attention and on the output."""
        to_image = torch.cat([scores.image_image, scores.row_image], dim=1)  # (b, 1 + wanted)
        rows_to_shared = scores.row_shared.expand(len(of_images), -1, -1)
        to_shared = torch.cat([scores.image_shared.unsqueeze(1), rows_to_shared], dim=1)  # (b, 1 + wanted, R)
        weights = torch.cat([to_image.unsqueeze(2), to_shared], dim=2).softmax(dim=-1)  # (b, 1 + wanted, 1 + R)
        weights = F.dropout(weights, self.dropout)
        mixed = weights[:, :, :1] * of_images.unsqueeze(1) + weights[:, :, 1:] @ of_shared  # (b, 1 + wanted, d)
        added = F.dropout(self.output(mixed), self.dropout)
        return added[:, 0], added[:, 1:]
