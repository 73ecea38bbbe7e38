"""What we use of open_clip's models, by name and type: the parts that torch's own types call "Tensor or Module".

open_clip says nothing about its types, and of an attribute of a module torch knows only that it is one of the two. The
classes here write down what stands there. They are never made: `clip_model` and `vision_transformer` give back the very
module they were given, seen as one of these classes, after a look at whether its parts are there. So no weight gets
another name, and no number changes.

    clip = clip_model(module)                          # token_embedding, transformer, ln_final, text_projection, visual ...
    visual = vision_transformer(clip.visual)           # conv1, class_embedding, transformer, ln_post, proj ...
    for block in visual.transformer.resblocks:         # ln_1, attn, ls_1, ln_2, mlp, ls_2
        x = block(x)
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch

from bench.errors import BenchError


class Attention(torch.nn.Module):
    """The attention of a block; `in_proj_weight` (3w, w) holds the rows of queries, keys and values, in this order."""

    in_proj_weight: torch.nn.Parameter
    in_proj_bias: torch.nn.Parameter
    out_proj: torch.nn.Linear
    num_heads: int


class Block(torch.nn.Module):
    """x + ls_1(attention(ln_1(x))), then x + ls_2(mlp(ln_2(x))): (b, tokens, w) to the same."""

    ln_1: torch.nn.LayerNorm
    attn: Attention
    ls_1: torch.nn.Module
    ln_2: torch.nn.LayerNorm
    mlp: torch.nn.Sequential
    ls_2: torch.nn.Module
    attention: Callable[..., torch.Tensor]  # (x, attn_mask=None)


class Transformer(torch.nn.Module):
    """(b, tokens, w) to the same, through all blocks."""

    resblocks: Sequence[Block]  # a ModuleList; torch would forget of what
    width: int
    batch_first: bool


class ImageTower(torch.nn.Module):
    """An image tower of any kind: a vision transformer, a residual network, a model of timm."""

    image_size: int | tuple[int, int]


class VisionTransformer(ImageTower):
    """An image tower that is a transformer: (b, 3, size, size) -> (b, d)."""

    conv1: torch.nn.Module  # pixels -> patches (b, w, rows, columns)
    class_embedding: torch.nn.Parameter  # (w,)
    positional_embedding: torch.nn.Parameter  # (1 + patches, w)
    ln_pre: torch.nn.Module
    transformer: Transformer
    ln_post: torch.nn.LayerNorm
    proj: torch.nn.Parameter | None  # (w, d)
    _embeds: Callable[[torch.Tensor], torch.Tensor]
    _pool: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class ClipModel(torch.nn.Module):
    """A CLIP: its image tower, and, as parts of the model itself, its text tower."""

    visual: ImageTower
    token_embedding: torch.nn.Embedding
    positional_embedding: torch.nn.Parameter  # (77, w)
    transformer: Transformer
    attn_mask: torch.Tensor  # (77, 77), 0 where a token sees another, else -inf
    ln_final: torch.nn.LayerNorm
    text_projection: torch.nn.Parameter | torch.nn.Linear  # (w, d)
    logit_scale: torch.nn.Parameter  # the logarithm of what cosines are multiplied by
    context_length: int
    encode_image: Callable[[torch.Tensor], torch.Tensor]
    encode_text: Callable[[torch.Tensor], torch.Tensor]
    set_grad_checkpointing: Callable[[bool], None]


def clip_model(module: torch.nn.Module) -> ClipModel:
    """open_clip's CLIP with its parts typed; the module itself."""
    missing = [name for name in ("transformer", "token_embedding", "ln_final", "text_projection") if not hasattr(module, name)]
    if missing:
        raise TypeError(f"not a CLIP in open_clip's layout: {type(module).__name__} has no {missing[0]}")
    return cast(ClipModel, module)  # open_clip's class is none of ours; its parts have just been looked at


def is_vision_transformer(module: torch.nn.Module) -> bool:
    """Is an image tower a transformer of the kind that methods know?"""
    return hasattr(module, "transformer") and hasattr(module, "_embeds") and getattr(module, "attn_pool", None) is None


def vision_transformer(module: torch.nn.Module) -> VisionTransformer:
    """The image tower of a CLIP with its parts typed; the module itself. Towers of another kind are refused."""
    if not is_vision_transformer(module):
        raise BenchError("this method needs a vision transformer as image tower (mini, ViT-B-32, ViT-B-16, ViT-L-14, ...)")
    return cast(VisionTransformer, module)  # as above
