"""CLIP's two transformers taken apart, for methods that put something into or between their blocks.

    x = image_tokens(visual, pixels)                   # (b, 1 + patches, w), class token first, after ln_pre
    for block in blocks(visual):                       # or something else in a block's place
        x = block(x)
    pooled = pool_image(visual, x)                     # (b, w): ln_post of the class token
    features = project_image(visual, pooled)           # (b, d)

Only towers in open_clip's vision-transformer layout can be taken apart; a residual network or a timm model cannot.
"""

from collections.abc import Sequence
from typing import cast

import torch

from bench.clip.tower_types import Block, Transformer, vision_transformer
from bench.errors import BenchError


def blocks(tower: torch.nn.Module) -> Sequence[Block]:
    """The residual blocks of `clip.visual` or of `clip` (its text tower), in order; each maps (b, tokens, w) to the same."""
    transformer = cast(Transformer, tower.transformer)  # under this name both towers of open_clip have theirs
    if not transformer.batch_first:
        raise BenchError("only towers that take (batch, tokens, width) can be taken apart; use a newer open_clip_torch")
    return transformer.resblocks


def image_tokens(visual: torch.nn.Module, pixels: torch.Tensor, inserted: torch.Tensor | None = None) -> torch.Tensor:
    """(b, 3, size, size) -> (b, 1 + patches, w): what enters the first block.

    `inserted` (b, m, w) are tokens that come between the class token and the patches, before ln_pre; each gets the class
    token's positional embedding.
    """
    tower = vision_transformer(visual)
    if inserted is None:
        return tower._embeds(pixels)
    patches = tower.conv1(pixels).flatten(2).transpose(1, 2)  # (b, patches, w)
    position = tower.positional_embedding
    first = (tower.class_embedding + position[0]).expand(len(pixels), 1, -1)
    return tower.ln_pre(torch.cat([first, inserted + position[0], patches + position[1:]], dim=1))


def pool_image(visual: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """What leaves the last block (b, tokens, w) -> (b, w): pooled and normalised, before the projection."""
    return vision_transformer(visual)._pool(tokens)[0]


def project_image(visual: torch.nn.Module, pooled: torch.Tensor) -> torch.Tensor:
    """(b, w) -> (b, d), un-normalised embeddings."""
    projection = vision_transformer(visual).proj
    return pooled if projection is None else pooled @ projection


def pooled_images(visual: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """(b, 3, size, size) -> (b, w): the image tower without its projection into the space shared with text."""
    tokens = image_tokens(visual, pixels)
    return pool_image(visual, vision_transformer(visual).transformer(tokens))
