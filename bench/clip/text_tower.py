"""CLIP's text tower, computed only where its output depends on it.

A feature is read at the end-of-text token of a prompt, and the tower is causal: no token sees what stands behind it. So

    - nothing behind end-of-text is computed, for every prompt by itself: prompts of one length form a block without padding;
    - tokens that all prompts start with (start-of-text; a context that all classes share) are computed once;
    - of the last block, only end-of-text is computed.

With so many prompts that what the backward pass needs would take more than KEPT_BYTES, prompts run in chunks, whose
activations are computed once more in the backward pass.

Gradients flow through all of it. The numbers are those of the whole tower up to the rounding of another order of summation.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from bench.clip.acceleration import compilable
from bench.clip.precision import computing_like
from bench.clip.tower_sizes import ROWS_KEPT
from bench.clip.tower_types import Block, ClipModel

KEPT_BYTES = 4 << 30  # of activations for the backward pass; a thousand classes would fill a GPU without this


def prompt_length(tokens: torch.Tensor) -> int:
    """Tokens up to and including the last end-of-text of the batch; end-of-text has the largest id."""
    return int(tokens.argmax(dim=-1).max()) + 1


def encode_tokens(clip: ClipModel, tokens: torch.Tensor) -> torch.Tensor:
    """Token ids (n, 77) -> text features (n, d), un-normalised, with gradients to the tower's weights."""
    end = tokens.argmax(dim=-1).cpu()  # the one wait for a GPU
    embeddings = clip.token_embedding(tokens[:, : int(end.max()) + 1])
    return encode_embedded(clip, embeddings, end)


def encode_embedded(clip: ClipModel, embeddings: torch.Tensor, end: torch.Tensor, shared: int = 1) -> torch.Tensor:
    """The text tower of `clip` on token embeddings (n, length, w), read at `end` (n,): (n, d).

    `shared`: so many tokens are the same at the start of all prompts; start-of-text always is. A loop that keeps `end` on the
    CPU spares a GPU a wait in every step.
    """
    x = embeddings + clip.positional_embedding[: embeddings.shape[1]]
    if not has_plain_blocks(clip):
        mask = clip.attn_mask[: x.shape[1], : x.shape[1]]
        x = clip.transformer(x, attn_mask=mask)  # (n, length, w)
        return read_text(clip, x[torch.arange(len(x), device=x.device), end.to(x.device)])
    ends = end.tolist()
    chunks = _chunks(clip, x, ends)
    if len(chunks) == 1:
        return read_text(clip, _only_what_is_read(clip, x, ends, shared))
    read = [
        checkpoint(_only_what_is_read, clip, x[rows], ends[rows], shared, use_reentrant=False, preserve_rng_state=False)
        for rows in chunks
    ]
    return read_text(clip, torch.cat(read))


def _chunks(clip: ClipModel, x: torch.Tensor, ends: list[int]) -> list[slice]:
    """Prompts in a row whose activations fit KEPT_BYTES; all of them where nothing is kept."""
    if not torch.is_grad_enabled():
        return [slice(0, len(ends))]
    of_a_token = ROWS_KEPT * x.shape[-1] * x.element_size() * len(clip.transformer.resblocks)
    starts, held = [0], 0
    for row, end in enumerate(ends):
        own = (end + 1) * of_a_token
        if held and held + own > KEPT_BYTES:
            starts.append(row)
            held = 0
        held += own
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(ends)])]


def read_text(clip: ClipModel, x: torch.Tensor) -> torch.Tensor:
    """What leaves the last block at end-of-text (n, w) -> (n, d): normalised and projected."""
    x = clip.ln_final(x)
    projection = clip.text_projection
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def has_plain_blocks(clip: ClipModel) -> bool:
    """Whether every text block is x + attention(ln_1(x)), then x + mlp(ln_2(x)), and may be computed in parts."""
    from open_clip.transformer import ResidualAttentionBlock

    tower = clip.transformer
    blocks = getattr(tower, "resblocks", [])
    plain = all(type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv") for block in blocks)
    return len(blocks) > 0 and plain and not getattr(tower, "grad_checkpointing", False)


def project(block: Block, x: torch.Tensor, which: str) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values ("qkv" or some of them, in a row) of x (..., w), each (..., w), all heads side by side."""
    attention, w, first = block.attn, x.shape[-1], "qkv".index(which[0])
    rows = slice(first * w, (first + len(which)) * w)
    return F.linear(block.ln_1(x), attention.in_proj_weight[rows], attention.in_proj_bias[rows]).split(w, dim=-1)


@compilable
def finish_block(block: Block, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """The rest of a block: its input x (..., w), and what its heads have gathered (..., w)."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _only_what_is_read(clip: ClipModel, x: torch.Tensor, ends: list[int], shared: int) -> torch.Tensor:
    """x (n, length, w) with positions added -> what leaves the last block at end-of-text (n, w)."""
    shared = min(shared, *ends) if len(ends) else shared  # end-of-text belongs to the prompt itself
    groups, chosen, tokens, place = _order(tuple(ends), shared, x.shape[1], x.device)
    own = [x[:, shared:]] if chosen is None else [x[rows, shared : shared + s] for rows, (_, s) in zip(chosen, groups)]
    rows = torch.cat([x[0, :shared], *(part.flatten(0, 1) for part in own)])  # (all tokens that count, w)
    *earlier, last = clip.transformer.resblocks
    for block in earlier:
        with computing_like(block):
            q, k, v = project(block, rows, "qkv")
            rows = finish_block(block, rows, _attend(q, k, v, shared, groups, block.attn.num_heads))
        rows = rows.float() if x.dtype == torch.float32 else rows
    with computing_like(last):
        k, v = project(last, rows, "kv")
        rows = rows[tokens]  # (n, w), the prompts by length
        (q,) = project(last, rows, "q")
        rows = finish_block(last, rows, _attend_at_end(q, k, v, shared, groups, last.attn.num_heads))
    rows = rows.float() if x.dtype == torch.float32 else rows
    return rows if place is None else rows[place]


class _Order(NamedTuple):
    """Prompts by their length: those of one length form a block."""

    groups: list[tuple[int, int]]  # (prompts, own tokens of each) of every block
    chosen: list[torch.Tensor] | None  # which prompts a block has; None: there is one block, of all prompts as they are
    tokens: torch.Tensor  # (n,) where end-of-text stands among all tokens that count
    place: torch.Tensor | None  # (n,) where a prompt stands among those by length; None: where it stood before


@functools.lru_cache(maxsize=16)  # steps of a training loop have the same prompts: their places go to a GPU once
@torch.inference_mode(False)  # what is kept here serves passes with gradients, too
def _order(ends: tuple[int, ...], shared: int, length: int, device: torch.device) -> _Order:
    by_length: dict[int, list[int]] = {}
    for row, end in enumerate(ends):
        by_length.setdefault(end + 1 - shared, []).append(row)
    lengths = sorted(by_length)
    groups = [(len(by_length[length]), length) for length in lengths]
    tokens = (torch.tensor([s for n, s in groups for _ in range(n)]).cumsum(0) + (shared - 1)).to(device)
    if groups == [(len(ends), length - shared)]:
        return _Order(groups, None, tokens, None)
    rows = torch.tensor([row for s in lengths for row in by_length[s]], dtype=torch.long)
    place = torch.empty(len(rows), dtype=torch.long)
    place[rows] = torch.arange(len(rows))
    chosen = [torch.tensor(by_length[s]).to(device) for s in lengths]
    return _Order(groups, chosen, tokens, place.to(device))


def _heads(x: torch.Tensor, n: int, heads: int) -> torch.Tensor:
    """(n * tokens, w) -> (n, heads, tokens, e)"""
    return x.view(n, -1, heads, x.shape[-1] // heads).transpose(1, 2)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shared: int, groups: list[tuple[int, int]], heads: int
) -> torch.Tensor:
    """Every token looks at the shared ones before it and at its own prompt's before it: rows (tokens, w) -> the same."""
    sizes = [shared, *(n * s for n, s in groups)]
    (q_0, *qs), (k_0, *ks), (v_0, *vs) = (x.split(sizes) for x in (q, k, v))
    k_0, v_0 = _heads(k_0, 1, heads), _heads(v_0, 1, heads)
    gathered = [F.scaled_dot_product_attention(_heads(q_0, 1, heads), k_0, v_0, is_causal=True).transpose(1, 2).flatten(2)[0]]
    for (n, s), q, k, v in zip(groups, qs, ks, vs):
        seen = torch.ones(s, shared + s, dtype=torch.bool, device=q.device).tril(shared)
        k = torch.cat([k_0.expand(n, -1, -1, -1), _heads(k, n, heads)], dim=2)
        v = torch.cat([v_0.expand(n, -1, -1, -1), _heads(v, n, heads)], dim=2)
        out = F.scaled_dot_product_attention(_heads(q, n, heads), k, v, attn_mask=seen)  # (n, heads, s, e)
        gathered.append(out.transpose(1, 2).reshape(n * s, -1))
    return torch.cat(gathered)


def _attend_at_end(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, shared: int, groups: list[tuple[int, int]], heads: int
) -> torch.Tensor:
    """The same for end-of-text alone, which looks at its whole prompt: q (n, w) -> (n, w)."""
    sizes = [shared, *(n * s for n, s in groups)]
    (k_0, *ks), (v_0, *vs) = k.split(sizes), v.split(sizes)
    k_0, v_0 = _heads(k_0, 1, heads), _heads(v_0, 1, heads)
    gathered = []
    for (n, _), q_own, k_own, v_own in zip(groups, q.split([n for n, _ in groups]), ks, vs):
        k_all = torch.cat([k_0.expand(n, -1, -1, -1), _heads(k_own, n, heads)], dim=2)
        v_all = torch.cat([v_0.expand(n, -1, -1, -1), _heads(v_own, n, heads)], dim=2)
        out = F.scaled_dot_product_attention(_heads(q_own, n, heads), k_all, v_all)  # (n, heads, 1, e)
        gathered.append(out.flatten(1))
    return torch.cat(gathered)
