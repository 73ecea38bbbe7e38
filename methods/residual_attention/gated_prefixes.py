"""DPW's additions to one tower: prefix values weighed by sigmoid gates of each token, and an adapter that their excess opens.

With x (n, L, D) the input of a block's attention after ln_1, and for gate head i of h: a_i (D, p), beta_i (L, p), prefix V (p, D)

    z = x a_i + beta_i      s = sigmoid(z)      q = sum_j s_j      N = max(q, 1)      gamma = s / N                (n, h, L, p)
    e = 0.05 (dropout(x F) W_up^T + b_up)                                        F (D, r) fixed, W_up (D, r), b_up (D,)
    R = gamma V + (N - 1) e                          gate head i gives the columns i D/h .. (i+1) D/h - 1 of both products

A token may take nothing of the prefix, unlike with a softmax. While its gates sum to at most 1 the adapter is closed, and gets no
gradient. In the reduced form a_i is (D/h, p) and reads only the columns that the gate head gives.

At test, where the mean weight of the batch is below `certainty`, a gate is kept only if it is large enough, else it is 0:

    image tower   gamma > 1 - sigmoid(log N(z of the class token; m, max(v, 1e-6))), at every position of the image
    text tower    gamma > 1 - w

m and v (h, p) are mean and variance of the class token's z over the images that passed at full weight, epoch by epoch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from methods.residual_attention.towers import Strength, TowerAdditions, merged

SMALLEST_VARIANCE = 1e-6


class Sizes(NamedTuple):
    depth: int
    width: int  # D
    positions: int  # L: the longest input
    heads: int  # h
    rows: int  # p
    rank: int  # r


class Rules(NamedTuple):
    """What does not belong to a task."""

    reduced: bool
    scale: float  # of the adapter
    dropout: float  # of the adapter's narrow channels
    certainty: float
    statistics: bool  # collected of the class token: the image tower alone
    count_validation: bool  # as released: passes of the validation go into the statistics of the next epoch


class GatedPrefixes(TowerAdditions):
    """One task's part of one tower. `basis` gives F (depth, D, r), which all tasks share.

    All is 0 until `begin`: how many gate heads a task has is known when it comes.
    """

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, sizes: Sizes, rules: Rules, basis: Callable[[], torch.Tensor]):
        super().__init__()
        depth, width, positions, heads, rows, rank = sizes
        self.depth, self.rules, self.basis = depth, rules, basis
        self.prefix = torch.nn.Parameter(torch.zeros(depth, rows, width))  # V
        self.gate = torch.nn.Parameter(torch.zeros(depth, heads, width // heads if rules.reduced else width, rows))  # a
        self.bias = torch.nn.Parameter(torch.zeros(depth, heads, positions, rows))  # beta
        self.up_w = torch.nn.Parameter(torch.zeros(depth, width, rank))
        self.up_b = torch.nn.Parameter(torch.zeros(depth, width))
        if rules.statistics:
            self.register_buffer("mean", torch.zeros(depth, heads, rows))  # m
            self.register_buffer("variance", torch.ones(depth, heads, rows))  # v
        self.generator: torch.Generator | None = None  # of the dropout in this task's training
        self.collected: dict[int, list[torch.Tensor]] = {}  # by block: count, sum and sum of squares, of the epoch so far

    def begin(self, prefix: torch.Tensor, gate: torch.Tensor, bias: float, up: torch.Tensor, generator: torch.Generator) -> None:
        """The values with which a task starts."""
        for parameter, start in ((self.prefix, prefix), (self.gate, gate), (self.up_w, up)):
            parameter.data.copy_(start)
        self.bias.data.fill_(bias)
        self.generator, self.collected = generator, {}

    def added(self, index: int, x: torch.Tensor, queries: torch.Tensor, strength: Strength | None) -> torch.Tensor:
        heads = self.gate.shape[1]
        z = self.gate_inputs(index, x)
        open_gates = torch.sigmoid(z)
        total = open_gates.sum(dim=-1, keepdim=True).clamp_min(1)  # N (n, h, L, 1)
        shares = open_gates / total  # gamma
        if strength is None:
            self.collect(index, z)
        elif bool(strength.of_batch < self.rules.certainty):
            shares = shares * (shares > 1 - self.sureness(index, z, strength))
        prefix = self.prefix[index].unflatten(-1, (heads, -1)).transpose(0, 1)  # (h, p, D / h)
        adapter = self.adapter(index, x).unflatten(-1, (heads, -1)).transpose(1, 2)  # (n, h, L, D / h)
        found = merged(shares @ prefix.to(shares.dtype) + (total - 1) * adapter)
        return found if strength is None else found * strength.own.to(found.dtype).view(-1, 1, 1)

    def gate_inputs(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """z (n, h, L, p)"""
        gate, bias = self.gate[index], self.bias[index, :, : x.shape[1]]
        if self.rules.reduced:
            return x.unflatten(-1, (len(gate), -1)).transpose(1, 2) @ gate + bias
        of_all = x @ gate.transpose(0, 1).flatten(1)  # (n, L, h p)
        return of_all.unflatten(-1, (len(gate), -1)).transpose(1, 2) + bias

    def adapter(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """e (n, L, D)"""
        narrow = self.dropped(index, x @ self.basis()[index])
        return self.rules.scale * (narrow @ self.up_w[index].T + self.up_b[index])

    def dropped(self, index: int, narrow: torch.Tensor) -> torch.Tensor:
        """Drawn on the CPU, so that a GPU run drops the same channels."""
        if not (self.training and self.rules.dropout):
            return narrow
        kept = torch.rand(narrow.shape, generator=self.generator) >= self.rules.dropout
        return narrow * kept.to(narrow.device, narrow.dtype) / (1 - self.rules.dropout)

    def sureness(self, index: int, z: torch.Tensor, strength: Strength) -> torch.Tensor:
        """What a gate is compared with 1 minus of: (n, h, 1, p) of images, (n, 1, 1, 1) of texts."""
        if not self.rules.statistics:
            return strength.own.to(z.dtype).view(-1, 1, 1, 1)
        variance = self.variance[index].clamp_min(SMALLEST_VARIANCE)
        distance = (z[:, :, 0] - self.mean[index]).square() / variance
        return torch.sigmoid(-(distance + variance.log() + math.log(2 * math.pi)) / 2).unsqueeze(2)

    # -- statistics -----------------------------------------------------------------------------------------------

    def collect(self, index: int, z: torch.Tensor) -> None:
        if self.rules.statistics and (self.training or self.rules.count_validation):
            own = z[:, :, 0].detach().to(self.mean)
            sums = [torch.full((), len(own), device=own.device), own.sum(dim=0), own.square().sum(dim=0)]
            before = self.collected.get(index)
            self.collected[index] = sums if before is None else [old + new for old, new in zip(before, sums)]

    def close_epoch(self) -> None:
        """m and v of what has been collected since the last time."""
        for index, (count, total, squares) in self.collected.items():
            self.mean[index] = total / count
            self.variance[index] = squares / count - self.mean[index].square()
        self.collected = {}
