"""AdaptFormer's adapters: a narrow branch beside the MLP of every block of a frozen image tower.

    x' = x + attention(ln_1(x))
    x  = x' + MLP(ln_2(x')) + scale * Up(relu(Down(x')))        Down: w -> bottleneck, Up: bottleneck -> w, both with bias

Up starts at zero, so an untrained adapter changes nothing.
"""

import torch
import torch.nn.functional as F

from bench import Draws
from bench.clip.image_tower import blocks, image_tokens, pool_image
from bench.clip.precision import computing_like
from bench.clip.tower_types import vision_transformer


class ParallelAdapters(torch.nn.Module):
    """The adapters of all blocks of an image tower. The tower itself is given with each call: it is not part of the state."""

    def __init__(self, visual: torch.nn.Module, bottleneck: int, scale: float, draws: Draws):
        super().__init__()
        width, n = vision_transformer(visual).ln_post.normalized_shape[0], len(blocks(visual))
        self.scale = scale
        with draws.initialising("adapters"):
            down = [torch.nn.Linear(width, bottleneck) for _ in range(n)]
        up = [torch.nn.Linear(bottleneck, width) for _ in range(n)]
        for layer in (*down, *up):
            torch.nn.init.zeros_(layer.bias)
        for layer in up:
            torch.nn.init.zeros_(layer.weight)
        self.down, self.up = torch.nn.ModuleList(down), torch.nn.ModuleList(up)

    def pooled(self, visual: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) -> (b, w): the tower with the adapters in it, before its projection."""
        x = image_tokens(visual, pixels)  # (b, tokens, w)
        for block, down, up in zip(blocks(visual), self.down, self.up):
            with computing_like(block):
                x = x + block.ls_1(block.attention(block.ln_1(x)))
                x = x + block.ls_2(block.mlp(block.ln_2(x))) + self.scale * up(F.relu(down(x)))
        return pool_image(visual, x)
