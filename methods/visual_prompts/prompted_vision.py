"""What L2P, DualPrompt and CODA-Prompt share: a frozen image tower with learned prompts and a linear head."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Range, Task, setting
from methods.shared.batches import Batch
from methods.shared.descent import Descent
from methods.shared.pixels import check_crop_scale, mirror, mirrored_half, pixel_batches, random_crops

TIMM_HEAD_STD = 0.02


@dataclass(frozen=True)
class PromptedVisionSettings:
    learning_rate: float = setting(1e-3, "rate of Adam", search=Range(3e-4, 0.1, log=True))
    batch_size: int = setting(128, "images per step")
    epochs: int = setting(20, "passes over the task's images")
    mirrored_view: bool = setting(True, "train on the plain and the mirrored image, one of them drawn per image and epoch")
    crop_scale: float = setting(
        1.0, "train on random crops of at least this share of an image's area; 1: no crops", added_later=True
    )

    def __post_init__(self):
        check_crop_scale(self.crop_scale)


class PromptedVision(Method):
    """A frozen image tower, prompts that `pooled` puts into it, and a linear head over all classes.

    The query of an image is its pooled feature q (b, D) from the tower without prompts: ln_post of the class token, before
    the projection into the space shared with text. For training images it comes from the feature store, unless they are
    cropped at random (`crop_scale`): then it is the crop's. A cropped or a test image goes through the tower twice.

    In training the classes of other tasks get no logit, so every step is a classification among the task's own classes;
    a test image is classified among the classes asked for, by one head that has learned them at different times.
    There is no text side: classes that have not been learned cannot be scored.
    """

    inputs = "pixels"
    zero_shot = False
    clip_norm: float | None = None  # gradients are scaled down to this norm
    learned: torch.Tensor

    def prepare(self) -> None:
        width = self.backbone.pooled_width
        with self.draws.initialising("head"):
            self.head = torch.nn.Linear(width, len(self.scenario.class_names))
            self.initialise_head()
        self.register_buffer("learned", torch.zeros(len(self.scenario.class_names), dtype=torch.bool))

    def initialise_head(self) -> None:
        """Truncated normal weights and no bias, as in timm."""
        torch.nn.init.trunc_normal_(self.head.weight, std=TIMM_HEAD_STD)
        torch.nn.init.zeros_(self.head.bias)

    # -- what a method gives --------------------------------------------------------------------------------------

    @abstractmethod
    def start_task(self, task: Task) -> None:
        """What happens to the prompts before a task is learned."""

    @abstractmethod
    def pooled(self, pixels: torch.Tensor, query: torch.Tensor, task: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, D) what the head reads, and the term that is added to the loss; `task` is None at test time."""

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        settings, n = self.settings, len(task.train)
        self.start_task(task)
        views = ("plain", "mirrored") if settings.mirrored_view else ("plain",)
        cropped = settings.crop_scale < 1
        if not cropped:
            queries = torch.stack([task.train.features(view, layer="pooled") for view in views], dim=1)  # (n, views, D)

        def mirrored(batch: Batch) -> torch.Tensor:
            return self._mirrored(n, task.index, batch.epoch)[batch.rows]

        def read(batch: Batch) -> torch.Tensor:
            purpose = ("crop", task.index, batch.epoch, batch.step)
            return mirror(random_crops(task.train.pixels(batch.rows), settings.crop_scale, self.draws, *purpose), mirrored(batch))

        optimiser = torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=settings.learning_rate)
        descent = Descent(self, optimiser, at_end=f"{task.name}, last step", cut=self.clip_gradients)
        batches = pixel_batches(
            self, read, images=n, batch_size=settings.batch_size, epochs=settings.epochs,
            budget=self.scenario.images_per_task, purpose=("batch order", task.index),
        )  # fmt: skip
        for batch, pixels in batches:
            rows = batch.rows
            labels = task.train.labels[rows].to(self.device)
            if cropped:
                query = self.backbone.pool_images(pixels)
            else:
                query = queries[rows.to(self.device), mirrored(batch).long().to(self.device)]
            descent.step(self.loss(pixels, query, labels, task), self.rate(batch.epoch))
        descent.finish()
        self.learned[list(task.classes)] = True

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch: constant."""
        return self.settings.learning_rate

    def clip_gradients(self) -> torch.Tensor | None:
        """Scale all gradients down to `clip_norm`; returns their norm before."""
        if self.clip_norm is None:
            return None
        return torch.nn.utils.clip_grad_norm_([p for p in self.parameters() if p.requires_grad], self.clip_norm)

    def loss(self, pixels: torch.Tensor, query: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Cross-entropy among the task's classes, and the method's own term; labels (b,) in the stream's class list."""
        pooled, extra = self.pooled(pixels, query, task.index)
        return self.cross_entropy(self.head(pooled), labels, task) + extra

    def cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Mean over a batch (b, N) of all classes' logits, of which only the task's own compete."""
        return F.cross_entropy(logits[:, list(task.classes)], labels - task.classes[0])

    def _mirrored(self, n: int, *purpose: object) -> torch.Tensor:
        if not self.settings.mirrored_view:
            return torch.zeros(n, dtype=torch.bool)
        return mirrored_half(n, self.draws, "view", *purpose)

    # -- scoring --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        wanted = torch.as_tensor(list(classes), device=self.device)
        if not bool(self.learned[wanted].all()):
            raise LookupError("a linear head cannot score classes that it has not learned")
        pooled, _ = self.pooled(batch, self.backbone.pool_images(batch), None)
        return self.head(pooled)[:, wanted]


def check_layers(layers: Sequence[int], blocks: Sequence[torch.nn.Module], what: str) -> None:
    """Refuse layers that the tower does not have."""
    if layers and max(layers) >= len(blocks):
        raise BenchError(f"{what} layer {max(layers)}: the image tower has only layers 0 to {len(blocks) - 1}; choose others")
