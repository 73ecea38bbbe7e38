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


class ParallelAdapters(torch.nn.Module):
    """The adapters of all blocks of an image tower. The tower itself is given with each call: it is not part of the state."""

    def __init__(self, visual: torch.nn.Module, bottleneck: int, scale: float, draws: Draws):
        super().__init__()
        width = visual.ln_post.normalized_shape[0]
        self.scale = scale
        with draws.initialising("adapters"):
            self.down = torch.nn.ModuleList(torch.nn.Linear(width, bottleneck) for _ in blocks(visual))
        self.up = torch.nn.ModuleList(torch.nn.Linear(bottleneck, width) for _ in blocks(visual))
        for down, up in zip(self.down, self.up):
            torch.nn.init.zeros_(down.bias)
            torch.nn.init.zeros_(up.weight)
            torch.nn.init.zeros_(up.bias)

    def pooled(self, visual: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) -> (b, w): the tower with the adapters in it, before its projection."""
        x = image_tokens(visual, pixels)  # (b, tokens, w)
        for block, down, up in zip(blocks(visual), self.down, self.up):
            with computing_like(block):
                x = x + block.ls_1(block.attention(block.ln_1(x)))
                x = x + block.ls_2(block.mlp(block.ln_2(x))) + self.scale * up(F.relu(down(x)))
        return pool_image(visual, x)
