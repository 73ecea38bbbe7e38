"""Prefixes: learned keys and values in front of those of a frozen block's attention (DualPrompt, CODA-Prompt)."""

import torch
import torch.nn.functional as F


def block_with_prefix(block: torch.nn.Module, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """One residual block of a CLIP tower, x (b, n, w) -> (b, n, w), with prefixes (b or 1, m, w) in its attention.

    With q, k, v the projections of ln_1(x), split into heads:

        attention = softmax(q [keys; k]^T / sqrt(head width)) [values; v]

    The prefixes pass through neither ln_1 nor the projections; the number of tokens does not change.
    """
    attention = block.attn
    weights = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = weights.chunk(3, dim=-1)  # (b, n, w) each
    k = torch.cat([keys.expand(len(x), -1, -1), k], dim=1)  # (b, m + n, w)
    v = torch.cat([values.expand(len(x), -1, -1), v], dim=1)
    q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (q, k, v))  # (b, heads, ., w / heads)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)  # (b, n, w)
    x = x + block.ls_1(attention.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
