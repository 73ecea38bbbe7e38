"""CLIP's frozen towers with learned values added to what the heads of a block gather, before its output projection.

With x (n, L, D) the input of a block's attention after ln_1, and q, k, v its frozen queries, keys and values:

    y = W_o (softmax(q k^T / sqrt(d)) v + w R) + b_o          w: one number per image or text; absent in training, as if it were 1

What R (n, L, D) is, the subclasses of `TowerAdditions` say. Its weights come from a second attention or from gates, so the
frozen attention stays as it was: with w = 0 (or R = 0) a tower is CLIP's, and no prompt can push that attention aside.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F

from bench.clip.image_tower import blocks, image_tokens, pool_image, project_image
from bench.clip.precision import computing_like
from bench.clip.text_tower import finish_block, prompt_length, read_text
from bench.clip.tower_types import Block, ClipModel


class Strength(NamedTuple):
    """How strongly a bank acts on each image or text of a test batch."""

    own: torch.Tensor  # w (n,)
    of_batch: torch.Tensor  # () the mean over the images of the batch


class TowerAdditions(torch.nn.Module):
    """What one task adds to the first `depth` blocks of one tower."""

    depth: int

    @abstractmethod
    def added(self, index: int, x: torch.Tensor, queries: torch.Tensor, strength: Strength | None) -> torch.Tensor:
        """w R (n, L, D) of block `index`; x (n, L, D) is after ln_1, queries (n, H, L, d). Without a strength w is 1."""


class Bank(torch.nn.Module):
    """What one task adds to both towers."""

    def __init__(self, image: TowerAdditions, text: TowerAdditions):
        super().__init__()
        self.image, self.text = image, text


def image_features(
    visual: torch.nn.Module, pixels: torch.Tensor, additions: TowerAdditions, strength: Strength | None = None
) -> torch.Tensor:
    """(b, 3, size, size) -> (b, d), un-normalised."""
    tokens = through(visual, image_tokens(visual, pixels), additions, strength, causal=False)
    return project_image(visual, pool_image(visual, tokens))


def text_features(
    clip: ClipModel, tokens: torch.Tensor, additions: TowerAdditions, strength: Strength | None = None
) -> torch.Tensor:
    """Token ids (n, 77) -> (n, d), un-normalised; cut at the longest prompt, which changes nothing in a causal tower."""
    length = prompt_length(tokens)
    x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
    x = through(clip, x, additions, strength, causal=True)
    return read_text(clip, x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)])


def through(
    tower: torch.nn.Module, x: torch.Tensor, additions: TowerAdditions, strength: Strength | None, causal: bool
) -> torch.Tensor:
    """x (n, L, D) through all blocks of a tower."""
    for index, block in enumerate(blocks(tower)):
        with computing_like(block):
            x = _block(block, x, additions if index < additions.depth else None, index, strength, causal)
    return x


def _block(
    block: Block, x: torch.Tensor, additions: TowerAdditions | None, index: int, strength: Strength | None, causal: bool
) -> torch.Tensor:
    attention, normed = block.attn, block.ln_1(x)
    projected = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    queries, keys, values = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in projected)  # (n, H, L, d)
    gathered = merged(F.scaled_dot_product_attention(queries, keys, values, is_causal=causal))
    if additions is not None:
        gathered = gathered + additions.added(index, normed, queries, strength)
    return finish_block(block, x, gathered)


def merged(heads: torch.Tensor) -> torch.Tensor:
    """(n, H, L, d) -> (n, L, H d): head h owns the columns from h d on."""
    return heads.transpose(1, 2).flatten(2)
