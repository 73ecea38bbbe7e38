"""Text features of every (context, class) pair, for methods whose context differs from image to image or draw to draw.

The text tower is causal: what happens at the start token and the context does not depend on the class name behind them. So
these positions are computed once per context, and only name, full stop and end-of-text once per pair; the last block is
evaluated at end-of-text alone. The same numbers as encoding b * c whole prompts, for a fraction of the work.
"""

import torch
from torch.utils.checkpoint import checkpoint

from bench import Backbone
from bench.clip.image_tower import blocks
from bench.clip.precision import computing_like
from bench.clip.text_tower import finish_block, project, read_text
from bench.clip.tower_types import Block
from methods.shared.prompts import ContextPrompts


def encode_contexts_by_classes(prompts: ContextPrompts, contexts: torch.Tensor, pairs_at_once: int = 1024) -> torch.Tensor:
    """(b, c, d) un-normalised text features of contexts (b, M, w) before each of the c names of `prompts`.

    Gradients flow to the contexts. More than `pairs_at_once` pairs are encoded in parts; where gradients are wanted, the
    activations of each part are computed again in the backward pass, so memory stays that of one part.
    """
    if prompts.context_before_name != prompts.context_length:
        raise ValueError("the context must stand in front of the name")
    start, names = prompts.embeddings[:1, :1], prompts.embeddings[:, 1 + prompts.context_length :]  # (1, 1, w), (c, s, w)
    ends = prompts.end - (1 + prompts.context_length)  # (c,) position of end-of-text in `names`
    parts = []
    for context in contexts.split(max(1, pairs_at_once // len(names))):
        prefix = torch.cat([start.expand(len(context), -1, -1), context], dim=1)  # (b, 1 + M, w)
        row = []
        for name, end in zip(names.split(pairs_at_once), ends.split(pairs_at_once)):
            if torch.is_grad_enabled() and len(contexts) * len(names) > pairs_at_once:
                row.append(checkpoint(_encode, prompts.backbone, prefix, name, end, use_reentrant=False))
            else:
                row.append(_encode(prompts.backbone, prefix, name, end))
        parts.append(torch.cat(row, dim=1))
    return torch.cat(parts)


def _encode(backbone: Backbone, prefix: torch.Tensor, names: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Prefixes (b, p, w), names (c, s, w), their end-of-text positions (c,) -> (b, c, d)."""
    clip, p, s = backbone.clip, prefix.shape[1], names.shape[1]
    every_class = torch.arange(len(names), device=names.device)
    x = prefix + clip.positional_embedding[:p]  # (b, p, w)
    y = (names + clip.positional_embedding[p : p + s]).unsqueeze(0)  # (1, c, s, w): the same for all, up to the first block
    mask = clip.attn_mask[: p + s, : p + s]
    *earlier, last = blocks(clip)
    with computing_like(last):
        for block in earlier:
            q, k, v = _projected(block, x, "qkv")  # (b, 1, heads, p, e)
            name_q, name_k, name_v = _projected(block, y, "qkv")  # (b or 1, c, heads, s, e)
            y = _residual(block, y, _attend(name_q, k, v, name_k, name_v, mask[p:]))
            own = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask[:p, :p], dim=-1) @ v
            x = _residual(block, x.unsqueeze(1), own).squeeze(1)
        k, v = _projected(last, x, "kv")
        name_k, name_v = _projected(last, y, "kv")
        y = y[:, every_class, end].unsqueeze(2)  # (b or 1, c, 1, w): of the last block's output only this is read
        (name_q,) = _projected(last, y, "q")
        y = _residual(last, y, _attend(name_q, k, v, name_k, name_v, mask[p + end].view(-1, 1, 1, p + s)))
    return read_text(clip, y.to(prefix.dtype).squeeze(2))  # (b, c, d)


def _projected(block: Block, x: torch.Tensor, which: str) -> list[torch.Tensor]:
    """Queries, keys and values of (b, p, w) or (b, c, s, w), each (b, 1 or c, heads, tokens, e)."""
    parts = project(block, x if x.dim() == 4 else x.unsqueeze(1), which)
    return [part.unflatten(-1, (block.attn.num_heads, -1)).transpose(2, 3) for part in parts]


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, name_k: torch.Tensor, name_v: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Name tokens look at the prefix (keys (b, 1, heads, p, e)) and at the name (keys (b or 1, c, heads, s, e))."""
    p = k.shape[-2]
    b, (c, heads, tokens, e) = max(len(q), len(k)), q.shape[1:]
    # all names of a context share its keys: one product of (c * tokens, e) with (e, p) for each context and head
    flat = q.transpose(1, 2).reshape(len(q), heads, c * tokens, e)
    to_prefix = (flat @ k[:, 0].transpose(-1, -2)).reshape(b, heads, c, tokens, p).transpose(1, 2)
    to_name = (q @ name_k.transpose(-1, -2)).expand(b, -1, -1, -1, -1)
    weights = torch.softmax(torch.cat([to_prefix, to_name], dim=-1) * e**-0.5 + mask, dim=-1)  # (b, c, heads, tokens, p + s)
    on_prefix = weights[..., :p].transpose(1, 2).reshape(b, heads, c * tokens, p) @ v[:, 0]
    return on_prefix.reshape(b, heads, c, tokens, e).transpose(1, 2) + weights[..., p:] @ name_v


def _residual(block: Block, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """The rest of a block: x (b or 1, c, tokens, w) and what its heads have gathered (b, c, heads, tokens, e)."""
    return finish_block(block, x, attended.transpose(2, 3).flatten(-2))
