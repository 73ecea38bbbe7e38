"""Low-rank changes (LoRA) of the key and value projections in the attention of every block of a transformer.

With W_k, W_v (w, w) the frozen projections of a block of width w, and rank r:

    keys   = (W_k + g_k B_k A_k) x + b_k        A (r, w), B (w, r); queries and biases stay as they are
    values = (W_v + g_v B_v A_v) x + b_v        g: a number, or one for each block

B starts at 0, so a tower starts as it was, and the first gradient of every A is exactly 0.

The change is added to the weights, not to what comes out of them. So whatever runs a tower's blocks, here or in open_clip,
runs changed ones, at the cost of a block's whole key and value gradients: about an eighth of a backward pass.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch

from bench import BenchError, Draws
from bench.clip.tower_types import ClipModel

Scale = float | torch.Tensor  # one number, or (blocks,)


class AttentionLoRA(torch.nn.Module):
    """A and B of the keys and values of a tower's blocks; `blocks` are only measured, and no part of the state."""

    def __init__(self, blocks: Sequence[torch.nn.Module], rank: int):
        super().__init__()
        if rank < 1:
            raise BenchError(f"rank={rank}: choose 1 or more")
        n, width = len(blocks), projections(blocks[0]).shape[1]
        self.k_A, self.v_A = (torch.nn.Parameter(torch.zeros(n, rank, width)) for _ in range(2))
        self.k_B, self.v_B = (torch.nn.Parameter(torch.zeros(n, width, rank)) for _ in range(2))

    def start(self, bound: float, draws: Draws, *purpose: object) -> None:
        """A uniform within +-bound, B 0."""
        for name, down, up in (("keys", self.k_A, self.k_B), ("values", self.v_A, self.v_B)):
            down.data.copy_((2 * draws.uniform(down.shape, *purpose, name) - 1) * bound)
            up.data.zero_()

    @property
    def xavier_bound(self) -> float:
        """Half the width of Xavier's uniform distribution of A."""
        rank, width = self.k_A.shape[1:]
        return math.sqrt(6 / (rank + width))

    @property
    def kaiming_bound(self) -> float:
        """Half the width of the distribution from which torch draws a linear layer that is as A is."""
        return 1 / math.sqrt(self.k_A.shape[2])

    def changes(self, key_scale: Scale, value_scale: Scale) -> torch.Tensor:
        """(blocks, 2 w, w) what is added to the projections of keys and values."""
        parts = ((key_scale, self.k_B, self.k_A), (value_scale, self.v_B, self.v_A))
        return torch.cat([_for_each_block(scale) * (up @ down) for scale, up, down in parts], dim=1)


class ChangedTowers:
    """A CLIP with the backbone's own weights, all but the projections of keys and values in those blocks that are changed.

    Not a module: what is changed belongs to somebody else's state. `clip` can be used wherever a CLIP can.
    """

    def __init__(self, clip: ClipModel):
        shared = {id(weights): weights for weights in (*clip.parameters(), *clip.buffers())}
        self.clip = copy.deepcopy(clip, shared)
        self.frozen: dict[int, torch.Tensor] = {}  # of each changed block, what its weights were

    def change(self, blocks: Sequence[torch.nn.Module], changes: torch.Tensor) -> None:
        """Let these blocks of `clip` compute with their frozen weights plus the changes (blocks, 2 w, w)."""
        for block, change in zip(blocks, changes, strict=True):
            attention: Any = block.attn
            if id(block) not in self.frozen:
                self.frozen[id(block)] = projections(block)
                del attention.in_proj_weight  # as a parameter; below it is a tensor, through which gradients flow
            queries, others = self.frozen[id(block)].split([change.shape[1], change.shape[0]])
            attention.in_proj_weight = torch.cat([queries, others + change])


def projections(block: torch.nn.Module) -> torch.Tensor:
    """(3 w, w) weights that make queries, keys and values of a block; BenchError where a block does not have them in one."""
    weights = getattr(getattr(block, "attn", None), "in_proj_weight", None)
    if weights is None:
        raise BenchError("this method changes the attention of CLIP's own transformers (mini, ViT-B-32, ViT-B-16, ViT-L-14, ...)")
    return weights


def _for_each_block(scale: Scale) -> Scale:
    return scale.view(-1, 1, 1) if isinstance(scale, torch.Tensor) else scale
