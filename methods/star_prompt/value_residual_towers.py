"""Frozen image towers that take a residual in every block: v <- v + s for the attention's values v of all tokens of an image.

Attention averages values with weights that sum to one, so adding s to each of them adds s to what comes out of every head:

    out_proj(softmax(q k^T / sqrt(head width)) (v + s)) = out_proj(softmax(q k^T / sqrt(head width)) v) + W_out s

The block's own attention is used, and W_out s is added to its output. Two layouts: CLIP's own image tower, and a vision
transformer of timm, which has been pretrained on images alone.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

import torch
import torch.nn.functional as F

from bench import Backbone, BenchError, Draws, one_line
from bench.clip.image_tower import blocks, image_tokens, pool_image
from bench.clip.precision import computing_like
from bench.clip.tower_types import Block

PAPER_VIT = "vit_base_patch16_224.augreg_in21k"
AnyBlock = TypeVar("AnyBlock", bound=torch.nn.Module)


class ValueResidualTower(ABC, Generic[AnyBlock]):
    """No module: it is frozen and shared, and does not belong to the state of the method that uses it."""

    width: int  # D
    blocks: Sequence[AnyBlock]

    @abstractmethod
    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size), preprocessed for CLIP -> (b, tokens, D): what enters the first block."""

    @abstractmethod
    def block(self, block: AnyBlock, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """One block, x (b, tokens, D) -> the same, with a residual (b, D) on the values of its attention."""

    @abstractmethod
    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """(b, tokens, D) -> (b, D): the normalised class token."""

    def pooled(self, pixels: torch.Tensor, residuals: Iterable[torch.Tensor]) -> torch.Tensor:
        """(b, D) of images, with residuals (L, b, D)."""
        x = self.tokens(pixels)
        for block, residual in zip(self.blocks, residuals, strict=True):
            x = self.block(block, x, residual)
        return self.pool(x)


class CLIPTower(ValueResidualTower[Block]):
    """The backbone's own image tower, up to ln_post of the class token."""

    def __init__(self, backbone: Backbone):
        self.visual = backbone.clip.visual
        self.blocks = blocks(self.visual)
        self.width = backbone.pooled_width

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        return image_tokens(self.visual, pixels)

    def block(self, block: Block, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        with computing_like(block):
            attended = block.attention(block.ln_1(x)) + F.linear(residual, block.attn.out_proj.weight).unsqueeze(1)
            x = x + block.ls_1(attended)
            return x + block.ls_2(block.mlp(block.ln_2(x)))

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return pool_image(self.visual, x)


class TimmAttention(torch.nn.Module):
    proj: torch.nn.Linear


class TimmBlock(torch.nn.Module):
    """x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x)))."""

    norm1: torch.nn.Module
    attn: TimmAttention
    ls1: torch.nn.Module
    norm2: torch.nn.Module
    mlp: torch.nn.Module
    ls2: torch.nn.Module


class TimmTransformer(torch.nn.Module):
    """What is used of timm's VisionTransformer, which says of its parts only that they are modules."""

    embed_dim: int
    pretrained_cfg: dict[str, Any]
    patch_embed: "TimmPatches"
    _pos_embed: Callable[[torch.Tensor], torch.Tensor]
    norm_pre: torch.nn.Module
    blocks: Sequence[TimmBlock]  # a Sequential
    norm: torch.nn.Module
    forward_head: Callable[..., torch.Tensor]  # (x, pre_logits=False)


class TimmPatches(torch.nn.Module):
    img_size: tuple[int, int]


class TimmTower(ValueResidualTower[TimmBlock]):
    """A vision transformer of timm. It gets the pixels at its own size and with its own mean and deviation.

    Raises BenchError for a model that is not a plain vision transformer read at its class token.
    """

    def __init__(self, name: str, model: torch.nn.Module, backbone: Backbone):
        self.model = plain_transformer(name, model).to(backbone.device).eval().requires_grad_(False)
        self.blocks = self.model.blocks
        self.width = self.model.embed_dim
        self.backbone = backbone
        self.mean, self.std = (
            torch.as_tensor(self.model.pretrained_cfg[name], dtype=torch.float32, device=backbone.device).view(3, 1, 1)
            for name in ("mean", "std")
        )

    def convert(self, pixels: torch.Tensor) -> torch.Tensor:
        """CLIP's pixels (b, 3, size, size) as this model wants them."""
        pixels = pixels * self.backbone.std + self.backbone.mean  # CLIP's own normalisation undone: in [0, 1]
        size = tuple(self.model.patch_embed.img_size)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return (pixels - self.mean) / self.std

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        self.backbone.image_passes += len(pixels)
        return self.model.norm_pre(self.model._pos_embed(self.model.patch_embed(self.convert(pixels))))

    def block(self, block: TimmBlock, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        attended = block.attn(block.norm1(x)) + F.linear(residual, block.attn.proj.weight).unsqueeze(1)
        x = x + block.ls1(attended)
        return x + block.ls2(block.mlp(block.norm2(x)))

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.forward_head(self.model.norm(x), pre_logits=True)


def plain_transformer(name: str, model: torch.nn.Module) -> TimmTransformer:
    """The model itself, with its parts typed.

    Refuses what would not be the formula above: other blocks, attention with a gate or a norm before its projection.
    """
    from timm.layers import Attention
    from timm.models.vision_transformer import Block, VisionTransformer

    def plain(block: torch.nn.Module) -> bool:
        attention = getattr(block, "attn", None)
        if type(block) is not Block or type(attention) is not Attention or getattr(attention, "gate", None) is not None:
            return False
        return isinstance(getattr(attention, "norm", None), type(None) | torch.nn.Identity)

    if not (type(model) is VisionTransformer and model.global_pool == "token" and all(plain(block) for block in model.blocks)):
        raise BenchError(f"vit={name}: a plain vision transformer read at its class token is needed, e.g. {PAPER_VIT}")
    return cast(TimmTransformer, model)  # timm's class is none of ours; its parts have just been looked at


def open_timm(name: str, pretrained: bool, backbone: Backbone, draws: Draws) -> TimmTower:
    """The model of that name with the weights that its tag names, or with random ones.

    Raises BenchError for an unknown model, a name without a tag, and weights that cannot be had.
    """
    if pretrained:
        return TimmTower(name, pretrained_timm(name), backbone)
    with draws.initialising("random vit", name):
        return TimmTower(name, create_timm(name, pretrained=False), backbone)


@functools.lru_cache(maxsize=1)
def pretrained_timm(name: str) -> torch.nn.Module:
    """Loaded once per process, with the weights that the name's tag stands for."""
    if "." not in name:
        raise BenchError(
            f"vit={name}: name its weights too, as in {PAPER_VIT}; those of a bare name change with timm's version"
        )
    return create_timm(name, pretrained=True)


def create_timm(name: str, pretrained: bool) -> torch.nn.Module:
    import timm

    if not timm.is_model(name):
        raise BenchError(f"vit={name}: timm {timm.__version__} has no such model; use clip, or one that it has: {PAPER_VIT}")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # the hub and its network library each have their own
        reason = one_line(error)
        raise BenchError(f"vit={name}: its weights are not on this machine and cannot be downloaded ({reason})") from error
