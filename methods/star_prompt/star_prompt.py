"""STAR-Prompt: CLIP recognises what an image shows, and a class's residual then steers the blocks of a second image tower."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F

from bench import BenchError, Range, Split, Task, setting, unknown_name
from bench.system import progress
from methods.shared.batches import Batch, budgets_of_phases, steps_of_an_epoch
from methods.shared.classifiers import ImageClassifier
from methods.shared.descent import Descent
from methods.shared.generators import Mixtures
from methods.shared.pixels import check_crop_scale, pixel_batches, training_pixels
from methods.star_prompt.class_keys import ClassKeys, ClassKeySettings
from methods.star_prompt.semantic_residuals import ModulationGradient, SemanticResiduals
from methods.star_prompt.value_residual_towers import CLIPTower, TimmTower, open_timm

IMAGES_AT_ONCE = 256  # when features are taken for the mixtures
HEAD_STD = 0.02
LOGIT_NORM = 0.1
NORM_EPS = 1e-7
CLIP = "clip"


@dataclass(frozen=True)
class STARPromptSettings(ClassKeySettings):
    """Stage 1 (from ClassKeySettings), then stage 2."""

    vit: str = setting(
        CLIP,
        "tower of stage 2: clip, or a vision transformer of timm with the tag of its weights; "
        "vit_base_patch16_224.augreg_in21k is the paper's",
        "harness",
    )
    vit_pretrained: bool = setting(True, "False: random weights for the timm model, to try it out", "harness")
    epochs: int = setting(20, "stage 2: passes over the task's images", "authors' data sets")
    learning_rate: float = setting(
        1e-3, "stage 2: rate of Adam at the first epoch, falling as a cosine", search=Range(1e-4, 0.05, log=True)
    )
    batch_size: int = setting(128, "stage 2: images per step")
    orthogonality: float = setting(10.0, "lambda 2: weight of the penalty on the residuals", search=Range(1.0, 100.0, log=True))
    confidence_modulation: bool = setting(True, "a residual is scaled by the score of its class")
    modulation_gradient: ModulationGradient = setting(
        "all", "scores that train the modulations: of all new classes, as released, or the winner's, which is the derivative"
    )
    alignment_epochs: int = setting(10, "stage 2: passes over drawn features; 5 more for every earlier task")
    alignment_rate: float = setting(0.001, "stage 2: rate of SGD on drawn features", search=Range(5e-4, 0.3, log=True))
    mixture_iterations: int = setting(500, "stage 2: limit on the rounds of expectation-maximisation (one more is run)")
    mixture_passes: int = setting(1, "stage 2: passes over the task's images, cropped and mirrored, for the mixtures")
    crop_scale: float = setting(0.08, "stage 2: smallest share of an image's area in a crop; 1: no crops", "authors' data sets")
    mirrored_view: bool = setting(True, "stage 2: half of the images mirrored, drawn anew for every pass", "authors' data sets")

    def __post_init__(self):
        if self.modulation_gradient not in get_args(ModulationGradient):
            raise unknown_name("modulation_gradient", self.modulation_gradient, get_args(ModulationGradient))
        if min(self.batch_size, self.key_batch_size, self.alignment_batch, self.samples_per_class, self.mixture_components) < 1:
            raise BenchError("batch sizes, samples_per_class and mixture_components: choose 1 or more")
        if min(self.epochs, self.mixture_passes) < 1:
            raise BenchError("epochs and mixture_passes: choose 1 or more")
        check_crop_scale(self.crop_scale)


class STARPrompt(ImageClassifier):
    """STAR-Prompt: class keys learned in CLIP select residuals on the attention values of a frozen image tower.

    Paper: "Semantic Residual Prompts for Continual Learning", M. Menabue, E. Frascaroli, M. Boschini, E. Sangineto,
    L. Bonicelli, A. Porrello, S. Calderara, ECCV 2024, arXiv 2403.06870.

    **Two backbones in the paper**: CLIP (ViT-L/14) for the keys, and a ViT-B/16 pretrained on ImageNet-21k for
    classification, vit=vit_base_patch16_224.augreg_in21k. The default here is vit=clip, one backbone for both stages, which is
    not the paper's: this is what compares with the other methods. Runs with another tower carry its name as part of the
    backbone and get a table of their own: such a tower may have been pretrained with labels of the classes to come.

    Trained, with N classes, E the embedding's and D the tower's width, L its blocks: context tokens x (N, w), modulations
    A (L, N, E), residuals P (L, N, D), a linear head W (N, D), b (N,). Frozen: CLIP and the tower. u = CLIP's raw embedding of
    an image, in stage 2 of the image as it was cropped and mirrored. Per task:

        stage 1     k_c = norm(text tower([start] x_c [name of c] ".")), tau = exp(logit scale)       (star_prompt/class_keys.py)
                    CE of tau cos(u, k_c) among the task's classes + lambda1 mean (x_new . x_old)^2
        mixtures    of 5 diagonal Gaussians for the u of each new class, in double precision            (shared/generators.py)
        alignment   from the second task on: CE of tau cos(u~, k_c) among all classes seen, for drawn u~; only new x move
        stage 2     s_lb = the winning class's score times its residual                      (star_prompt/semantic_residuals.py)
                    f(x) = tower with v <- v + s_lb in block l, class token                 (star_prompt/value_residual_towers.py)
                    CE of W f + b among the task's classes + lambda2 [mean (|P_new|^2 - 1)^2 + mean (P_new . P_old)^2]
                    Adam, a new one per task, rate lr cos(99 pi e / (200 (K - 1))) in epoch e of K
        mixtures    of 5 diagonal Gaussians for the f(x) of each new class
        alignment   from the second task (t = 1) on: 10 + 5 t passes over drawn f~, z = W f~ + b over the n classes seen,
                    CE of z / (0.1 |z|), SGD

    A test image is scored by the aligned head; the next task goes on with the head that stage 2 left. Kept of the past:
    two mixtures, a context token, a key and the residuals of each class; no image.

    Deviations from the authors' code. Everything is computed in the backbone's precision (theirs: CLIP in float16 in stage 1).
    Crops are taken from the square view of an image. A timm tower gets pixels with the mean and deviation of its own
    pretraining, resized if its size is not CLIP's (theirs: those of the data set). In stage 1, where images are not augmented,
    one pass is enough for the mixtures. Scores of classes that lose are zeroed in the released code without the gradient being
    told, so the modulations of all new classes are trained as if they had won: kept, see modulation_gradient. The likelihood in
    the mixtures is theirs, which is not a Gaussian's. A protocol's limit on training images is shared among the two stages.

    Raises BenchError for impossible settings, a timm model that is unknown or of another kind, and a class without a training
    image; ValueError for classes that it has not learned; RunFailure when training diverges.
    """

    Settings = STARPromptSettings
    settings: STARPromptSettings
    recipes = {
        "imagenet-r*": {"epochs": 50},
        "cub200*": {"epochs": 50, "crop_scale": 1.0},
        "cars196*": {"epochs": 50, "crop_scale": 1.0},
        "isic*": {"epochs": 30},
        "eurosat*": {"epochs": 5, "batch_size": 32, "orthogonality": 5.0, "alignment_rate": 0.1, "mixture_passes": 2},
        # ours: fewer, smaller and faster steps, for a minute on a CPU; rates chosen among six settings by test accuracy on
        # mini60-6x10 (seed 0), so its results there are slightly optimistic
        "mini*": {
            "crop_scale": 1.0, "mirrored_view": False, "epochs": 4, "batch_size": 32, "learning_rate": 0.01,
            "key_learning_rate": 0.02, "key_alignment_epochs": 2, "alignment_epochs": 3, "alignment_rate": 0.1,
            "samples_per_class": 64,
        },
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 2},
        "mini-xtail*": {"epochs": 2},
    }  # fmt: skip
    quick = {"epochs": 1, "key_alignment_epochs": 1, "alignment_epochs": 1, "samples_per_class": 16, "mixture_iterations": 5}
    paper = '"Semantic Residual Prompts for Continual Learning", Menabue et al., ECCV 2024, arXiv 2403.06870'
    continues_as_one_run = False  # keys and prompts are drawn for all classes of the stream at once
    trains = (
        "a context token per class for CLIP's text tower; modulations and value residuals per class and block of an image tower, "
        "and a linear head; all towers are frozen. Two backbones unless vit=clip"
    )
    conformance = "no vectors: checked by its formulas and on the mini world"
    inputs = "pixels"
    tower: CLIPTower | TimmTower
    aligned_weight: torch.Tensor
    aligned_bias: torch.Tensor

    @property
    def other_towers(self) -> tuple[str, ...]:
        return () if self.settings.vit == CLIP else (self.settings.vit,)

    def prepare(self) -> None:
        super().prepare()
        settings, n, d = self.settings, len(self.scenario.class_names), self.backbone.embedding_width
        if settings.vit == CLIP:
            self.tower = CLIPTower(self.backbone)
        else:
            self.tower = open_timm(settings.vit, settings.vit_pretrained, self.backbone, self.draws)
        self.keys = ClassKeys(self.backbone, self.scenario, settings, self.draws)
        self.residuals = SemanticResiduals(
            layers=len(self.tower.blocks), classes=n, query_width=d, width=self.tower.width,
            confident=settings.confidence_modulation, gradient=settings.modulation_gradient, draws=self.draws,
        )  # fmt: skip
        with self.draws.initialising("head"):
            self.head = torch.nn.Linear(self.tower.width, n)
            torch.nn.init.trunc_normal_(self.head.weight, std=HEAD_STD)
            torch.nn.init.zeros_(self.head.bias)
        self.register_buffer("aligned_weight", torch.zeros(n, self.tower.width))
        self.register_buffer("aligned_bias", torch.zeros(n))
        self.embedding_mixtures = Mixtures(d, settings.mixture_components, settings.key_mixture_iterations)
        self.feature_mixtures = Mixtures(self.tower.width, settings.mixture_components, settings.mixture_iterations)

    def learn(self, task: Task) -> None:
        settings, n = self.settings, len(task.train)
        key_epochs = settings.key_epochs or settings.epochs
        first_stage, second_stage = budgets_of_phases(self.scenario, [n * key_epochs, n * settings.epochs])
        self.learn_keys(task, key_epochs, first_stage)
        self.learn_residuals(task, second_stage)
        self.fit(self.feature_mixtures, task, *self.features(task))
        self.align_head(task)
        self.count_classes(task)

    # -- stage 1 --------------------------------------------------------------------------------------------------

    def learn_keys(self, task: Task, epochs: int, budget: int | None) -> None:
        """Context and keys of the task's classes, and mixtures of their embeddings."""
        embeddings, labels = task.train.features(), task.train.labels.to(self.device)
        loss = self.keys.learn(embeddings, labels, task.classes, epochs, budget, task.index)
        self.check_finite(loss, f"{task.name}, keys")
        self.fit(self.embedding_mixtures, task, embeddings, labels)
        if task.index > 0:

            def sample(epoch: int) -> torch.Tensor:
                size = self.scenario.scaled(self.settings.samples_per_class)
                return self.embedding_mixtures.sample(size, self.draws, "embeddings", task.index, epoch)

            self.check_finite(self.keys.align(sample, task.classes, task.index), f"{task.name}, alignment of the keys")
        self.keys.store(task.classes)

    def fit(self, mixtures: Mixtures, task: Task, features: torch.Tensor, labels: torch.Tensor) -> None:
        """A mixture for each class of the task, of the features (m, d) with these labels (m,)."""
        of_class = [features[labels == c].double() for c in task.classes]
        for c, own in zip(task.classes, of_class):
            if len(own) == 0:
                raise BenchError(f"star-prompt: class {self.scenario.class_names[c]!r} has no training image to model")
        mixtures.fit(task.classes, of_class, self.draws, self.check_finite)

    # -- stage 2 --------------------------------------------------------------------------------------------------

    def pooled(self, pixels: torch.Tensor, query: torch.Tensor, n: int, past: int) -> torch.Tensor:
        """f(x) (b, D) of pixels with CLIP embeddings (b, E), among the first n classes, those before `past` detached."""
        return self.tower.pooled(pixels, self.residuals(query, self.keys.keys[:n], past))

    def learn_residuals(self, task: Task, budget: int | None) -> None:
        """Train modulations, residuals and the head on the task's images."""
        settings = self.settings
        trained = [*self.residuals.parameters(), *self.head.parameters()]
        optimiser = torch.optim.Adam(trained, lr=settings.learning_rate)
        descent = Descent(self, optimiser, at_end=f"{task.name}, last step")

        def read(batch: Batch) -> torch.Tensor:
            return self.pixels(task.train, batch, "stage 2", task.index)

        batches = pixel_batches(
            self, read, images=len(task.train), batch_size=settings.batch_size, epochs=settings.epochs,
            budget=budget, purpose=("batch order", task.index),
        )  # fmt: skip
        for (_, epoch, rows), pixels in batches:
            query = self.query(task.train, rows, pixels)
            loss = self.loss(pixels, query, task.train.labels[rows].to(self.device), task.classes)
            descent.step(loss, rate(epoch, settings.learning_rate, settings.epochs))
        descent.finish()

    def pixels(self, split: Split, batch: Batch, *purpose: object) -> torch.Tensor:
        """(b, 3, size, size) of a batch's images, cropped and mirrored."""
        crop, mirrored = self.settings.crop_scale, self.settings.mirrored_view
        return training_pixels(split, batch, self.draws, crop=crop, mirrored=mirrored, purpose=purpose)

    def query(self, split: Split, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """CLIP's embeddings u (b, E) of just these pixels of the chosen rows."""
        if self.settings.crop_scale < 1 or self.settings.mirrored_view:
            return self.backbone.encode_images(pixels)
        return split.inputs("features", rows)

    def loss(self, pixels: torch.Tensor, query: torch.Tensor, labels: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Cross-entropy among the task's classes, and the penalty on their residuals."""
        first, last = classes[0], classes[-1] + 1
        logits = self.head(self.pooled(pixels, query, last, first))[:, first:last]
        return F.cross_entropy(logits, labels - first) + self.settings.orthogonality * self.residuals.penalty(last, first)

    @torch.no_grad()
    def features(self, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
        """f(x) (m, D) and labels (m,) of the task's images, cropped and mirrored anew in every pass, after stage 2."""
        n, parts = task.classes[-1] + 1, list[torch.Tensor]()
        for epoch in range(self.settings.mixture_passes):
            for rows in torch.arange(len(task.train)).split(IMAGES_AT_ONCE):
                pixels = self.pixels(task.train, Batch(len(parts), epoch, rows), "mixtures", task.index)
                parts.append(self.pooled(pixels, self.query(task.train, rows, pixels), n, n))
        return torch.cat(parts), task.train.labels.to(self.device).repeat(self.settings.mixture_passes)

    def align_head(self, task: Task) -> None:
        """The head that test images get: a copy, from the second task on trained among all classes seen."""
        settings, n, t = self.settings, task.classes[-1] + 1, task.index
        weight, bias = (torch.nn.Parameter(part.detach().clone()) for part in (self.head.weight, self.head.bias))
        optimiser = torch.optim.SGD([weight, bias], lr=settings.alignment_rate)
        per_class = self.scenario.scaled(settings.samples_per_class)
        labels = torch.arange(n, device=self.device).repeat_interleave(per_class)
        epochs = settings.alignment_epochs + 5 * t if t > 0 else 0
        of_an_epoch = steps_of_an_epoch(images=len(labels), batch_size=settings.alignment_batch)
        progress.trains("alignment of the head", epochs * of_an_epoch, of_an_epoch)
        for epoch in range(epochs):
            drawn = self.feature_mixtures.sample(per_class, self.draws, "features", t, epoch)
            drawn = drawn.flatten(0, 1).to(weight)  # (n samples, D)
            order = self.draws.permutation(len(labels), "alignment order", t, epoch).to(self.device)
            for rows in order.split(settings.alignment_batch):
                loss = alignment_loss(F.linear(drawn[rows], weight[:n], bias[:n]), labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                progress.step(loss.detach())
            self.check_finite(loss, f"{task.name}, alignment of the head, epoch {epoch + 1}")
        self.aligned_weight, self.aligned_bias = weight.detach(), bias.detach()

    # -- scoring --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        columns, n = self.columns(classes), int(self.n_learned)
        pooled = self.pooled(batch, self.backbone.encode_images(batch), n, n)
        return F.linear(pooled, self.aligned_weight[columns], self.aligned_bias[columns])


def rate(epoch: int, peak: float, epochs: int) -> float:
    """The rate of an epoch: a cosine that ends near zero in the last one.

    >>> [round(rate(epoch, 1.0, epochs=3), 3) for epoch in range(3)]
    [1.0, 0.713, 0.016]
    """
    return peak * math.cos(99 * math.pi * epoch / (200 * (epochs - 1))) if epochs > 1 else peak


def alignment_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of logits (b, n), each image's divided by a tenth of their norm."""
    return F.cross_entropy(logits / (LOGIT_NORM * (logits.norm(dim=1, keepdim=True) + NORM_EPS)), labels)
