"""MaPLe's prompts: learned tokens in the first blocks of both towers, those of the image tower projected from the text's.

With n tokens and depth J, w_t and w_v the widths of the text and the image tower, trained are

    P_0 (n, w_t)   in the place of the first n words of the prompt, at the text tower's input
    P_j (n, w_t)   j = 1 .. J-1: in the same place before text block j; the blocks from J on keep what they get
    F_j            j = 0 .. J-1: linear maps w_t -> w_v with bias

The image tower gets F_0(P_0) appended to its class and patch tokens, without a position; before its block j the last n
tokens are replaced by F_j(P_j).
"""

import copy
from collections.abc import Sequence

import torch

from bench import Backbone, BenchError, Draws
from bench.clip.image_tower import blocks, image_tokens, pool_image, project_image
from bench.clip.text_tower import read_text
from bench.clip.tower_types import vision_transformer
from methods.shared.modules import ModulesOf
from methods.shared.prompts import ContextPrompts, context_from_words

DEVIATION = 0.02  # of the normal draws that deeper prompts (and an input prompt without words) start from


class DeepPrompts(torch.nn.Module):
    """P_j and F_j of a frozen CLIP, and its two towers with them inside.

    `words` is a phrase before every class name, "a photo of a". If it has at least `length` tokens, P_0 starts as the
    embeddings of its first ones, and its other words stay in the prompt as they are. A longer P_0, or no words, starts
    from a normal draw, and only placeholders stand before the name.

    `only_shallow` leaves P_0 trainable and freezes everything else at its random start.
    """

    def __init__(
        self, backbone: Backbone, draws: Draws, length: int = 2, depth: int = 9, words: str | None = "a photo of a",
        only_shallow: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.length, self.depth = length, depth
        available = min(len(blocks(backbone.clip)), len(blocks(backbone.clip.visual)))
        if length < 1:
            raise BenchError(f"prompt length {length}: at least one prompt token is needed")
        if not 1 <= depth <= available:
            raise BenchError(f"prompt depth {depth}: choose 1 to {available}, the blocks of {backbone.name}'s shorter tower")
        w_t, w_v = backbone.text_width, vision_transformer(backbone.clip.visual).ln_post.normalized_shape[0]
        start = context_from_words(backbone, words) if words else None
        if start is not None and len(start) >= length:
            self.words, context = words, start[:length]
        else:
            self.words, context = None, DEVIATION * draws.normal((length, w_t), "input prompt")
        self.context = torch.nn.Parameter(context.to(backbone.device))  # P_0
        deeper = DEVIATION * draws.normal((depth - 1, length, w_t), "deeper prompts")
        self.deeper = torch.nn.Parameter(deeper.to(backbone.device))  # P_1 .. P_{J-1}
        with draws.initialising("input projection"):
            self.projection = torch.nn.Linear(w_t, w_v)  # F_0
        with draws.initialising("deeper projections"):
            first = torch.nn.Linear(w_t, w_v)
        self.deeper_projections = ModulesOf(copy.deepcopy(first) for _ in range(depth - 1))  # F_1 .. F_{J-1}
        self.to(backbone.device)
        if only_shallow:
            self.requires_grad_(False)
            self.context.requires_grad_(True)

    def prompts(self, names: Sequence[str]) -> ContextPrompts:
        """The classes' prompts, tokenised, with P_0's place in them."""
        return ContextPrompts(self.backbone, names, self.length, "end", self.words or "X")

    def text_features(self, prompts: ContextPrompts) -> torch.Tensor:
        """(c, d) un-normalised features of the prompts, with gradients to P."""
        clip = self.backbone.clip
        x = self._with_prompt(prompts.embeddings, self.context)  # (c, length, w_t)
        length = x.shape[1]
        x = x + clip.positional_embedding[:length]
        for index, block in enumerate(blocks(clip)):
            if 1 <= index < self.depth:
                x = self._with_prompt(x, self.deeper[index - 1])
            x = block(x, attn_mask=clip.attn_mask[:length, :length])
        return read_text(clip, x[torch.arange(len(x), device=x.device), prompts.end])

    def _with_prompt(self, x: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """x (c, length, w_t) with the tokens after the start replaced by `prompt` (n, w_t)."""
        return torch.cat([x[:, :1], prompt.expand(len(x), -1, -1), x[:, 1 + self.length :]], dim=1)

    def image_prompts(self) -> list[torch.Tensor]:
        """F_j(P_j), (n, w_v) for each of the J depths."""
        maps = [self.projection, *self.deeper_projections]
        return [linear(prompt) for linear, prompt in zip(maps, [self.context, *self.deeper])]

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) -> (b, d) un-normalised, with gradients to P and F."""
        visual = vision_transformer(self.backbone.clip.visual)
        prompts = [prompt.expand(len(pixels), -1, -1) for prompt in self.image_prompts()]  # (b, n, w_v) each
        # the layer norm in front of the first block works token by token: the prompt may join after it
        x = torch.cat([image_tokens(visual, pixels), visual.ln_pre(prompts[0])], dim=1)
        for index, block in enumerate(blocks(visual)):
            if 1 <= index < self.depth:
                x = torch.cat([x[:, : -self.length], prompts[index]], dim=1)
            x = block(x)
        return project_image(visual, pool_image(visual, x))
