"""MoE-Adapters: in every block of both towers a router sends each sample to a few adapters.

With h = x + attention(ln_1(x)) (n, tokens, w) and h_0 (n, w) its first token (class token, start of text):

    z       = h_0 W_r + eps * (softplus(h_0 W_n) + 0.01)         (n, E) logits of the experts; eps is noise or absent
    gate    = softmax over the k largest z, 0 for the others     (n, E)
    A_e(h)  = scale * (U_e dropout(relu(D_e h + b_e)) + b'_e)    D_e: w -> bottleneck, U_e back; every token of the sample
    block   = h + MLP(ln_2(h)) + sum_e gate_e A_e(h)

W_r and W_n (w, E) belong to a router; there may be several, which share the experts. U_e and both biases start at zero, so an
untrained adapter changes nothing; so do W_r and W_n. The load-balancing terms of the authors' code enter none of their
losses and are left out.

An expert that no sample of a batch chooses takes no part in its graph: its gradients stay None, and no optimiser moves it.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F

from bench import Backbone, Draws
from bench.clip.image_tower import blocks, image_tokens, pool_image, project_image
from bench.clip.precision import computing_like
from bench.clip.text_tower import prompt_length, read_text
from bench.clip.tower_types import Block, ClipModel
from methods.shared.modules import ModulesOf

MINIMUM_NOISE = 0.01


class Adapter(torch.nn.Module):
    """One expert: a narrow branch without layer norm."""

    def __init__(self, width: int, bottleneck: int, scale: float, dropout: float):
        super().__init__()
        self.down = torch.nn.Linear(width, bottleneck)
        self.up = torch.nn.Linear(bottleneck, width)
        torch.nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(zero)
        self.scale = scale
        self.dropout = dropout

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        hidden = F.dropout(F.relu(self.down(h)), self.dropout, self.training)
        return self.scale * self.up(hidden)


class MixtureOfAdapters(torch.nn.Module):
    """The experts and routers of one block. `counts` (E,) says how many samples chose each expert while training."""

    counts: torch.Tensor

    def __init__(self, width: int, experts: int, chosen: int, bottleneck: int, scale: float, dropout: float):
        super().__init__()
        self.experts = ModulesOf(Adapter(width, bottleneck, scale, dropout) for _ in range(experts))
        self.routers = torch.nn.ParameterList()  # W_r (w, E) of each router
        self.noise_weights = torch.nn.ParameterList()  # W_n (w, E)
        self.width = width
        self.chosen = chosen
        self.register_buffer("counts", torch.zeros(experts), persistent=False)

    def add_router(self) -> None:
        for weights in (self.routers, self.noise_weights):
            weights.append(torch.nn.Parameter(torch.zeros(self.width, len(self.experts), device=self.counts.device)))

    def gates(self, first: torch.Tensor, router: int, noise: torch.Tensor | None) -> torch.Tensor:
        """(n, E) gate values from the samples' first tokens (n, w); of equal logits the expert of smaller index is chosen."""
        with torch.autocast(first.device.type, enabled=False):  # in a half type many logits would be equal
            return self._gates(first.float(), router, noise)

    def _gates(self, first: torch.Tensor, router: int, noise: torch.Tensor | None) -> torch.Tensor:
        logits = first @ self.routers[router]
        if noise is not None:
            logits = logits + noise * (F.softplus(first @ self.noise_weights[router]) + MINIMUM_NOISE)
        values, chosen = logits.sort(dim=-1, descending=True, stable=True)
        values, chosen = values[:, : self.chosen], chosen[:, : self.chosen]
        if self.training:
            each = torch.arange(len(self.experts), device=chosen.device)
            self.counts += (chosen.unsqueeze(-1) == each).sum(dim=(0, 1))  # bincount would make a GPU wait
        return torch.zeros_like(logits).scatter(1, chosen, values.softmax(dim=-1))

    def forward(self, h: torch.Tensor, router: int, noise: torch.Tensor | None = None) -> torch.Tensor:
        """(n, tokens, w) what the adapters add."""
        gates = self.gates(h[:, 0], router, noise)
        added = torch.zeros_like(h)
        for expert, (column, samples) in enumerate(zip(gates.unbind(1), (gates > 0).sum(dim=0).tolist())):
            if samples == len(h):
                added = added + column.view(-1, 1, 1) * self.experts[expert](h)
            elif samples:
                rows = torch.nonzero(column).flatten()
                added = added.index_add(0, rows, column[rows].view(-1, 1, 1) * self.experts[expert](h[rows]))
        return added


class AdaptedTowers(torch.nn.Module):
    """A mixture for every block of both towers of a frozen CLIP, which is given with each call: it is not part of the state.

    Noise, where it is given, is (blocks, n, E). Blocks and adapters compute in the backbone's precision
    (bench/clip/precision.py).
    """

    def __init__(
        self, backbone: Backbone, experts: int, chosen: int, bottleneck: int, scale: float, dropout: float, draws: Draws
    ):
        super().__init__()

        def mixtures(tower: torch.nn.Module) -> ModulesOf[MixtureOfAdapters]:
            widths = [block.ln_1.normalized_shape[0] for block in blocks(tower)]
            return ModulesOf(MixtureOfAdapters(width, experts, chosen, bottleneck, scale, dropout) for width in widths)

        with draws.initialising("adapters"):
            self.image = mixtures(backbone.clip.visual)
            self.text = mixtures(backbone.clip)

    def add_router(self) -> None:
        for mixture in (*self.image, *self.text):
            mixture.add_router()

    def image_features(
        self, clip: ClipModel, pixels: torch.Tensor, router: int, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(b, 3, size, size) -> (b, d), un-normalised."""
        x = self._through(blocks(clip.visual), self.image, image_tokens(clip.visual, pixels), router, noise)
        return project_image(clip.visual, pool_image(clip.visual, x))

    def text_features(
        self, clip: ClipModel, tokens: torch.Tensor, router: int, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Token ids (n, 77) -> (n, d), un-normalised; cut at the longest prompt, which is exact."""
        length = prompt_length(tokens)
        x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        x = self._through(blocks(clip), self.text, x, router, noise, mask=clip.attn_mask[:length, :length])
        return read_text(clip, x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)])

    def _through(
        self,
        blocks: Iterable[Block],
        mixtures: Iterable[MixtureOfAdapters],
        x: torch.Tensor,
        router: int,
        noise: torch.Tensor | None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x (n, tokens, w) through all blocks of a tower, each with its mixture; what runs between the blocks stays float32."""
        for index, (block, mixture) in enumerate(zip(blocks, mixtures)):
            with computing_like(block):
                h = x + block.ls_1(block.attention(block.ln_1(x), attn_mask=mask))
                x = h + block.ls_2(block.mlp(block.ln_2(h))) + mixture(h, router, None if noise is None else noise[index])
        return x
