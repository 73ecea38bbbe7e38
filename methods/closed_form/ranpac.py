"""RanPAC: random projection of frozen image features, and ridge regression on what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Choices, Range, Split, Task, setting
from bench.clip.image_tower import blocks, project_image
from methods.closed_form.ridge import GramRidge, held_out_errors
from methods.shared.batches import Batch
from methods.shared.classifiers import FeatureClassifier, FeatureLayer
from methods.shared.descent import Descent
from methods.shared.parallel_adapters import ParallelAdapters
from methods.shared.pixels import check_crop_scale, pixel_batches, training_pixels
from methods.shared.schedules import cosine_per_iteration

IMAGES_AT_ONCE = 256  # through the adapted tower


@dataclass(frozen=True)
class RanPACSettings:
    feature: FeatureLayer = setting("pooled", "image features before the projection into the space shared with text, or after it")
    projection: int = setting(10000, "width M of the random projection; 0: none, ridge regression on the features themselves")
    ridges: tuple[float, ...] = setting(tuple(10.0**k for k in range(-8, 9)), "values of lambda to choose from, at every task")
    fit_fraction: float = setting(0.8, "share of a task's images on which the candidates are fitted; the rest judges them")
    first_session_adaptation: Literal["none", "adapter"] = setting(
        "none", "phase 1: train adapters in the image tower on the first task", "authors' CLIP runs: none",
        search=Choices("none", "adapter"),
    )
    adapter_width: int = setting(64, "width of an adapter's bottleneck")
    adapter_scale: float = setting(0.1, "factor on an adapter's output", search=Range(0.01, 1.0, log=True))
    adapter_epochs: int = setting(20, "passes over the first task's images")
    adapter_lr: float = setting(
        0.01, "peak learning rate of SGD; a cosine to 0, stepped by epoch", search=Range(1e-3, 0.3, log=True)
    )
    adapter_batch: int = setting(48, "images per step")
    momentum: float = setting(0.9, "of SGD")
    weight_decay: float = setting(5e-4, "of SGD, on everything that is trained")
    crop_scale: float = setting(0.05, "train adapters on random crops of at least this share of an image's area; 1: no crops")
    mirrored_view: bool = setting(True, "train adapters on half of the images mirrored, drawn anew for every epoch")

    def __post_init__(self):
        if not self.ridges or min(self.ridges) <= 0:
            raise BenchError("ridges: at least one value is needed, and all must be positive")
        if not 0 < self.fit_fraction < 1:
            raise BenchError(f"fit_fraction={self.fit_fraction}: choose a value between 0 and 1")
        check_crop_scale(self.crop_scale)
        if self.projection < 0:
            raise BenchError(f"projection={self.projection}: choose a width, or 0 for none")


class RanPAC(FeatureClassifier):
    """RanPAC: frozen image features, a random projection with ReLU, and a ridge classifier that grows task by task.

    Paper: "RanPAC: Random Projections and Pre-trained Models for Continual Learning", M. D. McDonnell, D. Gong,
    A. Parvaneh, E. Abbasnejad, A. van den Hengel, NeurIPS 2023, arXiv 2307.02251.

    Phase 2, every task. With f(x) (d,) the raw image feature (pooled, not of unit length), W_r (d, M) standard normal and
    drawn once, h(x) = relu(f(x) W_r) (M,), H and one-hot Y those of all images so far:

        G <- G + H_t^T H_t   (M, M),     Q <- Q + H_t^T Y_t   (M, n)
        W = (G + lambda I)^-1 Q,         logits = h(x) W

    lambda is chosen anew with each task, from that task alone: its images are shuffled, the first 80 % are fitted with every
    candidate, and the one with the least mean squared error to the one-hot targets of the rest wins (the first of equals). It
    is then applied to the sums over all tasks, whose scale has grown: so does the paper. A task of a single image cannot
    be split, and takes the middle candidate.

    Kept of the past: half of G, and Q, 8 (M^2 / 2 + M n) bytes (0.4 GB for M = 10000), no image and no feature; up to M / 2
    images as many rows that say the same (closed_form/few_samples.py). The result depends on the order of tasks through lambda
    only. No text is used.

    Phase 1, first task only, off by default as in the authors' CLIP runs (first_session_adaptation "adapter" switches it on):
    AdaptFormer adapters (shared/parallel_adapters.py) in every block of the image tower, trained by cross-entropy of

        sigma cos(f(x), v_c) over the first task's classes,     v_c (d,) and sigma trained, sigma = 1 at first

    and then frozen, with the head thrown away. From then on every image goes through the adapted tower: the run is one on
    pixels instead of cached features.

    Deviations from the authors' code. Everything from h on is in float64, so that the smallest lambdas do not turn into
    noise. One eigendecomposition serves all candidates, in the space of the samples when they are fewer than M: the same
    numbers. Phase 1 crops the square view of an image, not the whole one, and has none of the paper's other modules (scale
    and shift, prompts). Without random projection their code falls back to class means: that is `simplecil`.

    Raises BenchError for impossible settings, ValueError for classes that it has not learned, RunFailure when phase 1 diverges.
    """

    Settings = RanPACSettings
    settings: RanPACSettings
    recipes = {
        "cddb*": {"projection": 5000},
        # the mini world's features are 128 wide, not 768, and its digits and letters have no mirror images
        "mini*": {"projection": 2000, "crop_scale": 1.0, "mirrored_view": False},
    }
    quick = {"projection": 200, "adapter_epochs": 2}
    version = "2"  # few images are solved among themselves, in which the least lambdas lose less to rounding
    paper = (
        '"RanPAC: Random Projections and Pre-trained Models for Continual Learning", McDonnell et al., '
        "NeurIPS 2023, arXiv 2307.02251"
    )
    trains = "a linear map of randomly projected image features, in closed form; the image tower is frozen"
    conformance = "checked: phase 2 (errors of all candidates, chosen lambda, sums, weights, logits); not checked: phase 1"
    projection: torch.Tensor

    @property
    def needs(self) -> tuple[str, ...]:
        return ("towers",) if self.settings.first_session_adaptation == "adapter" else super().needs

    def prepare(self) -> None:
        super().prepare()
        settings, width = self.settings, self.feature_width
        self.adapters: ParallelAdapters | None = None
        if settings.first_session_adaptation == "adapter":
            self.inputs = "pixels"
            size = (len(blocks(self.backbone.clip.visual)), self.backbone.pooled_width, settings.adapter_width)
            self.adapters = ParallelAdapters(*size, settings.adapter_scale, self.draws)
        if settings.projection:
            projection = self.draws.normal((width, settings.projection), "projection")
            self.register_buffer("projection", projection)  # W_r (d, M)
        self.sums = GramRidge(self.expand)
        self.register_buffer("weights", torch.zeros(settings.projection or width, 0, dtype=torch.float64))  # W (M, n)

    def learn(self, task: Task) -> None:
        if self.adapters is not None and task.index == 0:
            self.train_adapters(task)
        features, labels = self.features(task.train), task.train.labels.to(self.device)
        order = self.draws.permutation(len(labels), "held-out order", task.index).to(self.device)
        self.ridge = self.choose_ridge(features[order], labels[order])
        self.sums.add(features, labels, task.classes[-1] + 1)
        self.weights = self.sums.solve(self.ridge)
        self.count_classes(task)

    def expand(self, features: torch.Tensor) -> torch.Tensor:
        """h (n, M) of raw features (n, d)."""
        return F.relu(features @ self.projection) if self.settings.projection else features

    def choose_ridge(self, features: torch.Tensor, labels: torch.Tensor) -> float:
        """lambda for a task with these shuffled features (n, d) and labels (n,)."""
        ridges = self.settings.ridges
        n_fit = int(self.settings.fit_fraction * len(labels))
        if n_fit == 0:
            return ridges[len(ridges) // 2]
        fit, held_out = (features[:n_fit], labels[:n_fit]), (features[n_fit:], labels[n_fit:])
        errors = held_out_errors(self.expand, fit, held_out, len(self.scenario.class_names), ridges)
        return ridges[int(errors.argmin())]

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        columns = self.columns(classes)
        features = self.adapted_features(batch) if self.adapters is not None else batch
        return self.expand(features).double() @ self.weights[:, columns]

    # -- phase 1 --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def features(self, split: Split) -> torch.Tensor:
        if self.adapters is None:
            return super().features(split)
        return torch.cat([self.adapted_features(pixels) for pixels in split.batches("pixels", IMAGES_AT_ONCE)])

    def adapted_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, d) raw features of the tower with the adapters."""
        assert self.adapters is not None, "without adapters features are cached"
        visual = self.backbone.clip.visual
        pooled = self.adapters.pooled(visual, pixels)
        return pooled if self.settings.feature == "pooled" else project_image(visual, pooled)

    def train_adapters(self, task: Task) -> None:
        """Train the adapters on the first task, with a cosine classifier that is not kept."""
        assert self.adapters is not None, "adapters that no setting asks for"
        settings = self.settings
        bound = self.feature_width**-0.5
        with self.draws.initialising("cosine head"):
            head = torch.nn.init.uniform_(torch.empty(len(task.classes), self.feature_width), -bound, bound)
        head = torch.nn.Parameter(head.to(self.device))  # v_c (C, d)
        sigma = torch.nn.Parameter(torch.ones((), device=self.device))
        optimiser = torch.optim.SGD(
            [*self.adapters.parameters(), head, sigma], momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        rates = cosine_per_iteration(settings.adapter_lr, settings.adapter_epochs, 0.0)  # one for each epoch
        descent = Descent(self, optimiser, at_end=f"{task.name}, last step of the adapters")

        def read(batch: Batch) -> torch.Tensor:
            crop, mirrored = settings.crop_scale, settings.mirrored_view
            return training_pixels(task.train, batch, self.draws, crop=crop, mirrored=mirrored, purpose=("adapters", task.index))

        batches = pixel_batches(
            self, read, images=len(task.train), batch_size=settings.adapter_batch, epochs=settings.adapter_epochs,
            budget=self.scenario.images_per_task, purpose=("adapter order", task.index),
        )  # fmt: skip
        for batch, pixels in batches:
            cosines = F.normalize(self.adapted_features(pixels), dim=-1) @ F.normalize(head, dim=-1).T
            labels = task.train.labels[batch.rows].to(self.device) - task.classes[0]
            descent.step(F.cross_entropy(sigma * cosines, labels), rates[batch.epoch])
        descent.finish()
