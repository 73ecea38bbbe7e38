"""One learned context token per class, and the key that the text tower makes of it: STAR-Prompt's first stage."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import Backbone, Draws, Range, Scenario, setting
from bench.system import progress
from methods.shared.batches import steps_of_an_epoch, training_batches
from methods.shared.prompts import ContextPrompts

CONTEXT_STD = 0.02


@dataclass(frozen=True)
class ClassKeySettings:
    key_epochs: int = setting(0, "stage 1: passes over the task's images; 0: as many as stage 2")
    key_learning_rate: float = setting(0.002, "stage 1: rate of SGD, constant, no momentum", search=Range(5e-4, 0.1, log=True))
    key_batch_size: int = setting(128, "stage 1: images per step")
    key_orthogonality: float = setting(
        30.0, "lambda 1: weight of the squared products of new and old context tokens", search=Range(3.0, 300.0, log=True)
    )
    key_alignment_epochs: int = setting(10, "stage 1: passes over drawn embeddings, anew for each pass")
    key_alignment_rate: float = setting(0.05, "stage 1: rate of SGD on drawn embeddings")
    key_mixture_iterations: int = setting(200, "stage 1: limit on the rounds of expectation-maximisation (one more is run)")
    samples_per_class: int = setting(256, "both stages: drawn per class seen and pass of an alignment")
    alignment_batch: int = setting(128, "both stages: drawn embeddings or features per step of an alignment")
    mixture_components: int = setting(5, "both stages: Gaussians in the mixture of a class")


class ClassKeys(torch.nn.Module):
    """Context tokens x_c (w,) of every class, and keys k_c = norm(text tower([start] x_c [name of c] "." [end])) (d,).

    Keys are encoded for the classes that are being learned; those of earlier classes are stored and do not move.
    """

    keys: torch.Tensor

    def __init__(self, backbone: Backbone, scenario: Scenario, settings: ClassKeySettings, draws: Draws):
        super().__init__()
        n = len(scenario.class_names)
        self.backbone = backbone
        self.scenario = scenario
        self.settings = settings
        self.draws = draws
        self.prompts = ContextPrompts(backbone, scenario.class_names, context_length=1)
        self.context = torch.nn.Parameter(CONTEXT_STD * draws.normal((n, 1, backbone.text_width), "context"))
        self.register_buffer("keys", torch.zeros(n, backbone.embedding_width))  # unit rows; zero before they are learned

    def encode(self, first: int, last: int) -> torch.Tensor:
        """(last - first, d) keys of these classes, with gradients to their context."""
        return F.normalize(self.prompts.features(self.context[first:last], slice(first, last)), dim=-1)

    def penalty(self, first: int, last: int) -> torch.Tensor:
        """Mean over pairs of a class in first .. last - 1 and one before them of (x_new . x_old)^2; 0 without earlier ones."""
        if first == 0:
            return self.context.new_zeros(())
        return (self.context[first:last, 0] @ self.context[:first, 0].detach().T).square().mean()

    def loss(self, embeddings: torch.Tensor, labels: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Cross-entropy of raw image embeddings (b, d) among the classes first .. last - 1, and the penalty."""
        logits = self.backbone.logit_scale * F.normalize(embeddings, dim=-1) @ self.encode(first, last).T
        return F.cross_entropy(logits, labels - first) + self.settings.key_orthogonality * self.penalty(first, last)

    def learn(
        self, embeddings: torch.Tensor, labels: torch.Tensor, classes: Sequence[int], epochs: int, budget: int | None, task: int
    ) -> torch.Tensor:
        """Train the context of a task's classes on its raw image embeddings (n, d); returns the last loss."""
        settings, first, last = self.settings, classes[0], classes[-1] + 1
        optimiser = torch.optim.SGD([self.context], lr=settings.key_learning_rate)
        loss = embeddings.new_zeros(())
        batches = training_batches(
            self.draws, images=len(labels), batch_size=settings.key_batch_size, epochs=epochs, budget=budget,
            purpose=("key order", task),
        )  # fmt: skip
        for batch in batches:
            rows = batch.rows.to(embeddings.device)
            loss = self.loss(embeddings[rows], labels[rows], first, last)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            progress.step(loss.detach())
        optimiser.zero_grad()
        return loss.detach()

    def align(self, sample: Callable[[int], torch.Tensor], classes: Sequence[int], task: int) -> torch.Tensor:
        """Train them further among all classes seen, on the (last, samples, d) embeddings that `sample(epoch)` draws."""
        settings, first, last = self.settings, classes[0], classes[-1] + 1
        optimiser = torch.optim.SGD([self.context], lr=settings.key_alignment_rate)
        labels = torch.arange(last, device=self.keys.device).repeat_interleave(self.scenario.scaled(settings.samples_per_class))
        loss = self.keys.new_zeros(())
        of_an_epoch = steps_of_an_epoch(images=len(labels), batch_size=settings.alignment_batch)
        progress.trains("key alignment", settings.key_alignment_epochs * of_an_epoch, of_an_epoch)
        for epoch in range(settings.key_alignment_epochs):
            drawn = F.normalize(sample(epoch).flatten(0, 1).to(self.keys), dim=-1)
            order = self.draws.permutation(len(labels), "key alignment order", task, epoch).to(drawn.device)
            for rows in order.split(settings.alignment_batch):
                loss = self.alignment_loss(drawn[rows], labels[rows], first, last)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                progress.step(loss.detach())
        optimiser.zero_grad()
        return loss.detach()

    def alignment_loss(self, unit: torch.Tensor, labels: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Cross-entropy of unit embeddings (b, d) among all classes before `last`; earlier keys as they are stored."""
        keys = torch.cat([self.keys[:first], self.encode(first, last)])
        return F.cross_entropy(self.backbone.logit_scale * unit @ keys.T, labels)

    @torch.no_grad()
    def store(self, classes: Sequence[int]) -> None:
        """Keep the keys of these classes."""
        self.keys[classes[0] : classes[-1] + 1] = self.encode(classes[0], classes[-1] + 1)
