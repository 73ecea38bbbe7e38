"""PROOF's cross-modal fusion: an image, the texts, the prototypes and free prompts look at each other.

For every image i of a batch one self-attention layer with a single head runs over the sequence

    X_i = [x_i ; S],      x_i (d,) the image,  S (R, d) rows that all images of the batch share

    Z_i = softmax(X_i W_q^T (X_i W_k^T)^T / sqrt(d)) X_i W_v^T           (1 + R, d), dropout on the softmax
    Y_i = LayerNorm(X_i + dropout(W_o Z_i + b_o))                        (1 + R, d)

The shared rows enter the queries, keys and values of every image alike, so these are computed once and not per image, and
rows whose output nobody reads get no query. Both are exact.
"""

import math

import torch
import torch.nn.functional as F

from bench.randomness import Draws


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
        b, scale = len(images), 1 / math.sqrt(images.shape[1])
        asking = shared[:wanted]
        queries, shared_keys, shared_values = self.queries(asking), self.keys(shared), self.values(shared)
        own_queries, own_keys, own_values = self.queries(images), self.keys(images), self.values(images)  # (b, d)
        to_image = torch.cat([(own_queries * own_keys).sum(dim=-1, keepdim=True), own_keys @ queries.T], dim=1)  # (b, 1 + wanted)
        to_shared = torch.cat(  # (b, 1 + wanted, R)
            [(own_queries @ shared_keys.T).unsqueeze(1), (queries @ shared_keys.T).expand(b, -1, -1)], dim=1
        )
        weights = torch.cat([to_image.unsqueeze(2), to_shared], dim=2).mul(scale).softmax(dim=-1)  # (b, 1 + wanted, 1 + R)
        weights = F.dropout(weights, self.dropout, self.training)
        mixed = weights[:, :, :1] * own_values.unsqueeze(1) + weights[:, :, 1:] @ shared_values  # (b, 1 + wanted, d)
        rows = torch.cat([images.unsqueeze(1), asking.expand(b, -1, -1)], dim=1)
        fused = self.norm(rows + F.dropout(self.output(mixed), self.dropout, self.training))
        return fused[:, 0], fused[:, 1:].mean(dim=0)
