"""Prompts of one class each, tuned on embeddings: the half of CGIL that learns to classify.

Prompt of class c: [start] V_c G(h_c) [name of c] "." [end], where V_c (n_context, w) is learned (one for each class, or one V
for all), h_c (d,) is the raw text feature of "a photo of a {name}", and G, shared by all classes, turns it into one more
context vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from bench import Backbone, Draws, Range, Scenario, setting, unknown_name
from bench.clip.acceleration import replayed, replaying
from bench.system import progress
from methods.shared.batches import steps_of_an_epoch
from methods.shared.prompts import ContextPrompts

HAND_MADE = "a photo of a {}"  # without a full stop, unlike the learned prompts
BATCH_NORM_EPS = 1e-5
ContextForm = Literal["combo", "generated", "learned", "shared"]


@dataclass(frozen=True)
class AlignmentSettings:
    """What prompt tuning needs, whether the embeddings are generated (CGIL) or real (joint prompts)."""

    context: ContextForm = setting("combo", "context before the name: V_c and G(h_c), only G(h_c), only V_c, or one V for all")
    n_context: int = setting(1, "learned context vectors (V_c or V), unless the context is only generated")
    alignment_lr: float = setting(
        0.05, "learning rate of AdamW, constant", "authors' command line for ImageNet-R", search=Range(3e-4, 0.1, log=True)
    )
    alignment_epochs: int = setting(
        60, "epochs of prompt tuning per task", "authors' command line for ImageNet-R", search=Range(5, 60, log=True)
    )
    alignment_batch: int = setting(128, "embeddings per step of prompt tuning")

    def __post_init__(self) -> None:
        if self.context not in get_args(ContextForm):
            raise unknown_name("context", self.context, get_args(ContextForm))


class FrozenBatchNorm(torch.nn.Module):
    """Batch normalisation that stays in evaluation mode at its initial statistics: mean 0, variance 1, learned affine."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / (1 + BATCH_NORM_EPS) ** 0.5 + self.bias


def context_generator(d: int, w: int) -> torch.nn.Sequential:
    """G: a raw text feature (n, d) -> one context vector (n, w)."""
    return torch.nn.Sequential(
        torch.nn.Linear(d, d),
        FrozenBatchNorm(d),
        torch.nn.SELU(),
        torch.nn.Linear(d, d),
        FrozenBatchNorm(d),
        torch.nn.SELU(),
        torch.nn.Linear(d, w),
        FrozenBatchNorm(w),
        torch.nn.SELU(),
        torch.nn.Linear(w, w),
    )


class ClassPrompts(torch.nn.Module):
    """V_c of every class of the stream and the shared G; the key of a class is its encoded prompt, at unit length."""

    hand_made: torch.Tensor  # (N, d) raw: h_c

    def __init__(self, backbone: Backbone, scenario: Scenario, settings: AlignmentSettings, draws: Draws):
        super().__init__()
        n, d, w = len(scenario.class_names), backbone.embedding_width, backbone.text_width
        learned = 0 if settings.context == "generated" else settings.n_context
        generated = 1 if settings.context in ("combo", "generated") else 0
        contexts = 1 if settings.context == "shared" else n
        self.backbone = backbone
        self.settings = settings
        self.draws = draws
        self.prompts = ContextPrompts(backbone, scenario.class_names, learned + generated)
        self.register_buffer("hand_made", backbone.encode_text(scenario.prompts(range(n), HAND_MADE)))
        self.context = torch.nn.Parameter(0.02 * draws.normal((contexts, learned, w), "context")) if learned else None
        with draws.initialising("context generator"):
            self.generator = context_generator(d, w) if generated else None

    def keys(self, n: int) -> torch.Tensor:
        """k_c (n, d) of the first n classes, unit length."""
        parts = []
        if self.context is not None:
            own = self.context.expand(n, -1, -1) if self.settings.context == "shared" else self.context[:n]
            parts.append(own)  # (n, n_context, w)
        if self.generator is not None:
            parts.append(self.generator(self.hand_made[:n]).unsqueeze(1))  # (n, 1, w)
        return F.normalize(self.prompts.features(torch.cat(parts, dim=1), slice(n)), dim=-1)

    def align(
        self,
        n: int,
        embeddings: Callable[[int], torch.Tensor],
        labels: torch.Tensor,
        purpose: Sequence[object],
        check: Callable[[torch.Tensor, str], None],
        frozen: int = 0,
    ) -> None:
        """Tune V_0..V_{n-1} and G, with a new AdamW, on the embeddings (m, d) that `embeddings(epoch)` gives.

        Every step encodes the prompts of all n classes. V of later classes has zero gradient and does not move. No gradient
        goes through the keys of the first `frozen` classes either; they still follow what all classes share, G or V.
        """
        settings, scale = self.settings, self.backbone.logit_scale
        parameters = list(self.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=settings.alignment_lr, weight_decay=0.0)

        def loss_of(u: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            keys = self.keys(n)
            keys = torch.cat([keys[:frozen].detach(), keys[frozen:]]) if frozen else keys
            return F.cross_entropy(scale * u @ keys.T, labels)  # logits (b, n)

        def gradients(u: torch.Tensor, labels: torch.Tensor) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
            loss = loss_of(u, labels)
            return torch.autograd.grad(loss, parameters), loss.detach()

        gradients_of = replayed(gradients) if replaying() else None
        of_an_epoch = steps_of_an_epoch(images=len(labels), batch_size=settings.alignment_batch)
        progress.trains("prompt alignment", settings.alignment_epochs * of_an_epoch, of_an_epoch)
        for epoch in range(settings.alignment_epochs):
            u = F.normalize(embeddings(epoch), dim=-1)  # (m, d)
            order = self.draws.permutation(len(labels), "alignment order", *purpose, epoch).to(u.device)
            total = torch.zeros((), device=u.device)
            for rows in order.split(settings.alignment_batch):
                optimizer.zero_grad()
                if gradients_of is None:
                    loss = loss_of(u[rows], labels[rows])
                    loss.backward()
                else:
                    found, loss = gradients_of(u[rows], labels[rows])
                    for parameter, gradient in zip(parameters, found):
                        parameter.grad = gradient
                optimizer.step()
                total += loss.detach()
                progress.step(loss.detach())
            check(total, f"prompt alignment, epoch {epoch + 1}")
        optimizer.zero_grad()
