"""AdaptFormer's adapters: a narrow branch beside the MLP of every block of a frozen tower.

    x' = x + attention(ln_1(x))
    x  = x' + MLP(ln_2(x')) + scale * Up(relu(Down(x')))        Down: w -> bottleneck, Up: bottleneck -> w, both with bias

Up starts at zero, so an untrained adapter changes nothing. The `own` form, LADA's, has a layer norm of its own before Down, and
beside the fixed scale a trained factor, 1 at first; its Down starts normal, with a variance of 1 / (3 w).
"""

import math

import torch
import torch.nn.functional as F

from bench import Draws
from bench.clip.image_tower import blocks, image_tokens, pool_image
from bench.clip.precision import computing_like
from bench.clip.text_tower import prompt_length, read_text
from bench.clip.tower_types import ClipModel


class ParallelAdapters(torch.nn.Module):
    """The adapters of all blocks of a tower. The tower itself is given with each call: it is not part of the state.

    width: of the tower's tokens. own: with a layer norm and a factor of each adapter's own.
    """

    down: torch.nn.ModuleList
    up: torch.nn.ModuleList

    def __init__(self, n_blocks: int, width: int, bottleneck: int, scale: float, draws: Draws, own: bool = False):
        super().__init__()
        self.scale = scale
        with draws.initialising("adapters"):
            downs = [torch.nn.Linear(width, bottleneck) for _ in range(n_blocks)]
            for down in downs if own else ():
                torch.nn.init.kaiming_normal_(down.weight, a=math.sqrt(5))
        ups = [torch.nn.Linear(bottleneck, width) for _ in range(n_blocks)]
        for down, up in zip(downs, ups):
            torch.nn.init.zeros_(down.bias)
            torch.nn.init.zeros_(up.weight)
            torch.nn.init.zeros_(up.bias)
        self.down, self.up = torch.nn.ModuleList(downs), torch.nn.ModuleList(ups)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(n_blocks if own else 0))
        self.factors = torch.nn.ParameterList(torch.nn.Parameter(torch.ones(1)) for _ in range(n_blocks if own else 0))

    def branch(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """(n, tokens, w) what the adapter of one block adds, of the stream (n, tokens, w) after attention."""
        if not self.norms:
            return self.scale * self.up[index](F.relu(self.down[index](x)))
        narrow = F.relu(self.down[index](self.norms[index](x)))
        return self.scale * self.factors[index] * self.up[index](narrow)

    def pooled(self, visual: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) -> (b, w): the image tower with the adapters in it, before its projection."""
        return pool_image(visual, self.through(visual, image_tokens(visual, pixels)))

    def text_features(self, clip: ClipModel, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids (n, 77) -> (n, d): the text tower with the adapters in it, un-normalised; cut at the longest prompt."""
        length = prompt_length(tokens)
        x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        x = self.through(clip, x, clip.attn_mask[:length, :length])
        return read_text(clip, x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)])

    def through(self, tower: torch.nn.Module, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x (n, tokens, w) through all blocks, each with its adapter; what runs between the blocks keeps its precision."""
        for index, block in enumerate(blocks(tower)):
            with computing_like(block):
                x = x + block.ls_1(block.attention(block.ln_1(x), attn_mask=mask))
                x = x + block.ls_2(block.mlp(block.ln_2(x))) + self.branch(index, x)
        return x
