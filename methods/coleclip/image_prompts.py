"""The frozen image tower with the prompts of all tasks beside an image's own tokens.

    tokens      [P_0, .., P_{m-1}, class token, patches],  P_j (p, w)
    attention   class token and patches look at no prompt; a token of P_j looks at those of P_0 .. P_j, at the class token and
                at the patches

So an image's own tokens are exactly those of frozen CLIP, and an old prompt's output never changes when others join: one pass
gives the outputs of all tasks. An image's own tokens are computed without gradients, and only prompts go backward, which is
p tokens for each task instead of all.
"""

from typing import Any

import torch
import torch.nn.functional as F

from bench.clip.image_tower import blocks, image_tokens, pool_image, project_image
from bench.clip.precision import computing_like
from bench.clip.text_tower import finish_block, project


def prompted_images(visual: Any, pixels: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """(b, m + 1, d) outputs of m prompts (m, p, w), each the mean of its p tokens, then that of the class token.

    All are un-normalised. Prompts stand in front of the image's tokens, without a positional embedding and before ln_pre.
    """
    m, p, _ = prompts.shape
    with torch.no_grad():
        own = image_tokens(visual, pixels)  # (b, n, w)
    added = visual.ln_pre(prompts.flatten(0, 1)).expand(len(pixels), -1, -1)  # (b, m p, w)
    visible = visible_tokens(m, p, own.shape[1]).to(pixels.device)
    for block in blocks(visual):
        with torch.no_grad(), computing_like(block):
            of_own = project(block, own, "qkv")
        if m:
            with computing_like(block):
                queries, *others = project(block, added, "qkv")
                keys, values = (torch.cat([ours, theirs], dim=1) for ours, theirs in zip(others, of_own[1:]))
                added = finish_block(block, added, attend(block, queries, keys, values, visible))
        with torch.no_grad(), computing_like(block):
            own = finish_block(block, own, attend(block, *of_own))
    of_class_token = project_image(visual, pool_image(visual, own)).unsqueeze(1)  # (b, 1, d)
    if not m:
        return of_class_token
    of_prompts = project_image(visual, visual.ln_post(added)).unflatten(1, (m, p)).mean(dim=2)  # (b, m, d)
    return torch.cat([of_prompts, of_class_token], dim=1)


def visible_tokens(m: int, p: int, own: int) -> torch.Tensor:
    """(m p, m p + own) which tokens those of prompts look at."""
    task = torch.arange(m).repeat_interleave(p)
    return torch.cat([task.unsqueeze(1) >= task, torch.ones(m * p, own, dtype=torch.bool)], dim=1)


def attend(block: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
    """What the heads gather: queries (b, n, w), keys and values (b, k, w) -> (b, n, w)."""
    q, k, v = (part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (q, k, v))  # (b, heads, ., e)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2).flatten(-2)
