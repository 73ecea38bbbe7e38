"""DDAS: which domain a test image comes from, decided by one autoencoder per task and one of reference images.

The autoencoder with the lowest reconstruction error (methods/moe_adapters/domain_autoencoders.py) says which task's part of a
model an image gets. If this is the reference's, or the error is above a threshold, the image belongs to no task.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from bench import Backbone, BenchError, Draws, Split, Task, setting
from methods.moe_adapters.alexnet_features import AlexNetFeatures
from methods.moe_adapters.domain_autoencoders import DomainAutoencoders

ORIGINAL = -1  # instead of a task: the model without any task's part


@dataclass(frozen=True)
class DomainSelectionSettings:
    domain_selection: bool = setting(False, "DDAS: autoencoders choose a test image's router; on in MTIL")
    domain_features: Literal["alexnet", "clip"] = setting(
        "alexnet", "what they reconstruct: AlexNet's fifth convolution, or (harness) CLIP's pooled image features"
    )
    alexnet_weights: str | None = setting(None, "file with torchvision's AlexNet weights; None: it fetches them", "harness")
    reference_images: str | None = setting(
        None, "images of no task, for an autoencoder that stands for everything else: a registered name or a folder; None: none"
    )
    domain_width: int = setting(100, "width of an autoencoder")
    domain_threshold: float = setting(0.0655, "reconstruction error above which an image gets the original CLIP")
    domain_iterations: int = setting(300, "updates of a task's autoencoder")
    reference_iterations: int = setting(1000, "updates of the reference autoencoder")
    domain_rate: float = setting(0.01, "learning rate of the autoencoders (Adam), divided by 10 every 10 epochs")
    domain_weight_decay: float = setting(1e-4, "their weight decay")
    domain_decision: Literal["image", "batch"] = setting(
        "image", "choose for each image, or as published for a whole test batch", "harness"
    )

    def __post_init__(self) -> None:
        if self.domain_width < 1:
            raise BenchError(f"domain_width={self.domain_width}: choose 1 or more")


class DomainSelection(torch.nn.Module):
    """The autoencoders, and what they look at: AlexNet's features or CLIP's pooled ones.

    `reference` are the reference images; they are set before the first task, if the settings name any.
    """

    def __init__(self, backbone: Backbone, draws: Draws, settings: DomainSelectionSettings, batch_size: int):
        super().__init__()
        self.settings = settings
        self.backbone = backbone
        self.batch_size = batch_size
        self.reference: Split | None = None
        self.references = 1 if settings.reference_images else 0  # autoencoders in front of the tasks' own
        if settings.domain_features == "alexnet":
            self.alexnet = AlexNetFeatures(settings.alexnet_weights, backbone.device)
            width = self.alexnet.width(backbone.image_size, backbone.device)
        else:
            width = backbone.pooled_width
        self.autoencoders = DomainAutoencoders(width, settings.domain_width, draws)
        if self.references:
            self.autoencoders.grow("reference")

    def grow(self, task: int) -> None:
        self.autoencoders.grow(task)

    def to_fit(self, task: Task) -> list[tuple[int, Split, int]]:
        """(autoencoder, images, updates): the reference's with the first task, and the task's own."""
        own = (task.index + self.references, task.train, self.settings.domain_iterations)
        if not self.references or task.index > 0:
            return [own]
        assert self.reference is not None  # the settings name it, and it is given before the first task
        return [(0, self.reference, self.settings.reference_iterations), own]

    def fit(
        self, index: int, split: Split, updates: int, budget: int | None, check: Callable[[torch.Tensor, str], None]
    ) -> None:
        """Train one autoencoder on the images of a split."""
        s, features = self.settings, self._features_of(split)
        self.autoencoders.fit(
            index, len(split), features, updates, s.domain_rate, s.domain_weight_decay, self.batch_size, budget, check
        )

    def _features_of(self, split: Split) -> Callable[[torch.Tensor], torch.Tensor]:
        """What the autoencoders look at, (b, F), for chosen rows of a split."""
        if self.settings.domain_features == "alexnet":
            return lambda rows: self.alexnet(split.pixels(rows))
        stored = split.features(layer="pooled")
        return lambda rows: stored[rows.to(stored.device)]

    @torch.no_grad()
    def choose(self, pixels: torch.Tensor, tasks: int) -> torch.Tensor:
        """(b,) the task of every image among the first `tasks`, or ORIGINAL; or one decision for the whole batch."""
        s = self.settings
        features = self.alexnet(pixels) if s.domain_features == "alexnet" else self.backbone.pool_images(pixels)
        errors = self.autoencoders.errors(features)[:, : self.references + tasks]  # (b, domains)
        if s.domain_decision == "batch":
            errors = errors.mean(dim=0, keepdim=True).expand(len(pixels), -1)
        lowest, domain = errors.min(dim=1)
        task = domain - self.references  # the reference comes first: -1
        return torch.where(lowest > s.domain_threshold, torch.full_like(task, ORIGINAL), task)
