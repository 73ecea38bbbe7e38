"""Prefixes: learned keys and values in front of those of a frozen block's attention (DualPrompt, CODA-Prompt)."""

import torch
import torch.nn.functional as F

from bench.clip.precision import computing_like
from bench.clip.text_tower import finish_block, project
from bench.clip.tower_types import Block


def block_with_prefix(block: Block, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One residual block of a CLIP tower, x (b, n, w) -> (b, n, w), with prefixes (b or 1, m, w) in its attention.

    With q, k, v the projections of ln_1(x), split into heads:

        attention = softmax(q [keys; k]^T / sqrt(head width)) [values; v]

    The prefixes pass through neither ln_1 nor the projections; the number of tokens does not change.
    """
    with computing_like(block):
        q, k, v = project(block, x, "qkv")  # (b, n, w) each
        k = torch.cat([keys.expand(len(x), -1, -1).to(k.dtype), k], dim=1)  # (b, m + n, w)
        v = torch.cat([values.expand(len(x), -1, -1).to(v.dtype), v], dim=1)
        q, k, v = (part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v))  # (b, heads, ., e)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)  # (b, n, w)
        return finish_block(block, x, mixed)
