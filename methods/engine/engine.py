"""ENGINE: one linear unit per task on image and on text features, a discriminant, and a user's descriptions of classes."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Task
from methods.engine.descriptions import Descriptions
from methods.engine.reranking import best_classes, chosen_rows, description_table, reranked
from methods.engine.settings import ENGINESettings
from methods.engine.units import SummedUnits
from methods.shared.batches import Batch
from methods.shared.class_gaussians import by_class
from methods.shared.descent import Descent
from methods.shared.linear_discriminant import LinearDiscriminant
from methods.shared.pixels import pixel_batches
from methods.shared.schedules import cosine_by_epoch


class Step(NamedTuple):
    """What a step of training compares."""

    features: torch.Tensor  # (n, D) raw: images of the task, then noisy prototypes of old classes
    labels: torch.Tensor  # (n,)
    prompts: torch.Tensor  # (seen, D) raw text feature of every class's first prompt
    copies: torch.Tensor  # (b, D) raw features of noisy copies of the b images; (0, D) without
    described: torch.Tensor  # (n, D) raw text features of a description of every row's class; (0, D) without


class ENGINE(Method):
    """ENGINE: a linear unit per task on images and on texts, mixed with a discriminant; descriptions where a user has some.

    Paper: "External Knowledge Injection for CLIP-Based Class-Incremental Learning", D.-W. Zhou, K.-W. Li, J. Ning, H.-J. Ye,
    L. Zhang, D.-C. Zhan, ICCV 2025, arXiv 2503.08510. What stands here is its authors' code (LAMDA-CL/ICCV25-ENGINE); of the
    paper's text the abstract was read.

    CLIP is frozen. p(x) (P,) is the pooled image feature, f(x) (D,) the projected one, t(s) (D,) the feature of a sentence, all
    raw; u(v) = v / |v|. Every task adds a unit on each side, and only the newest two are trained:

        g_I(f) = sum_j (A_j f + a_j),    g_T(t) = sum_j (B_j t + b_j)

    There is no path beside the units, and they start at random: this is no small change of CLIP. A step has the b images of a
    batch and, behind them, m_c + sigma N(0, I) for every old class c, m_c being the mean of its raw f; n rows in all.
    Z (n, D): u(g_I(row)); Z' (n, D): u(g_T(t(first prompt of the row's class))); s the logarithm of CLIP's logit scale:

        loss = (CE(s Z Z'^T) + CE(s Z' Z^T)) / 2                       row i belongs to column i
               + image_weight CE(Z_[1..b] F^T)                         F: u(f(noisy copy of the image))
               + text_weight CE(Z' E^T)                                E: u(t("{name} with {one of its descriptions}"))

    Two rows of one class count as wrong for each other although their texts are the same: the loss cannot go below about the
    logarithm of the rows of a class. F and E have no scale and are of the frozen towers.

        score of class c = w d_c + (1 - w) (v r_c + (1 - v) u(g_I(f)) . q_c),    q_c = u(mean over prompts of u(g_T(t)))

    d (classes seen,): the linear discriminant of u(p) (shared/linear_discriminant.py), of unit length over the classes; the
    units have no part in it, and with w from 0.8 to 0.99 it is the larger part of the score. r: the k best classes looked at
    again (reranking.py). v = rerank_weight.

    Descriptions are optional, and none are shipped: those of the authors have no licence. Without a file text_weight and
    rerank_weight are 0. With one, every class needs a description against every other one, or the run is refused before it
    begins. What is in the file is part of a run's identity.

    Traps of the release, kept where they made its numbers: the logarithm of the scale (`log_temperature`); noise on normalised
    pixels that are then cut to [0, 1] (`noise_on_normalised`); sigma is absolute, 0.25 per coordinate, though the length of raw
    features differs between weights; descriptions that name classes of later tasks (`compare_with_later`). With torch 1.13,
    which its README names beside a torchvision that needs 2.0, units of past tasks shrink to nothing (`frozen_units_decay`);
    which version made the tables is not known. Hyper-parameters were chosen per data set with the
    accuracy on test images in view.

    Unseen classes: if one is asked for, every class is scored by u(g_I(f)) . q_c, as the authors' zero-shot evaluation does; so
    every set of candidates is scored by itself (`scores_depend_on_list`). Before the first task it is zero-shot CLIP. A score
    depends on no other image of the batch: each pair of classes gets its descriptions for re-ranking once per task, where the
    release draws for every image; the expectation is the same.

    Kept of the past: all units (2 (D^2 + D) numbers per task), m_c, the discriminant's mu_c and Lambda (P, P), the table of
    re-ranking; no image. Text features of descriptions are computed again when they are needed.

    Deviations from the authors' code. Units per task of any size count the classes there are (theirs: right for equal tasks
    only). With fewer seen classes than k, all are looked at (theirs: an error). Images are cropped at the centre, not squashed.
    Classes of one name, which data sets of a stream may share, are not compared with each other. A choice of old classes
    (sample_num, 0 everywhere) is left out. A limit on training images does not count prototypes and noisy copies.

    Cost: linear algebra on stored features, but for the noisy copies: `image_weight` above 0 is one pass of the image tower,
    without gradients, for every image of every epoch.

    Raises BenchError for impossible settings, a tower without a projection, a class without a training image and a file of
    descriptions that is not as it should be, RunFailure when training diverges.
    """

    Settings = ENGINESettings
    settings: ENGINESettings
    recipes = {
        "cifar100-*": {"image_weight": 0.5, "rerank_weight": 0.5},
        "cifar100-b50-*": {"image_weight": 2.0, "rerank_weight": 0.8, "discriminant_weight": 0.9},
        "cub200*": {"discriminant_weight": 0.95, "prototype_noise": 0.3},
        "cub200-b100-*": {"prototype_noise": 0.25},
        "aircraft-*": {"image_weight": 0.0, "rerank_weight": 0.2, "discriminant_weight": 0.99},
    }
    quick = {"epochs": 2}
    paper = '"External Knowledge Injection for CLIP-Based Class-Incremental Learning", Zhou et al., ICCV 2025, arXiv 2503.08510'
    trains = "one linear unit per task on image features and one on text features; CLIP is frozen"
    conformance = (
        "checked: discriminant, prototypes, rates, all three losses, gradients, units over tasks, shrinking old units, cosines "
        "of seen and unseen classes, re-ranking, logits; not checked: draws of descriptions, noise before normalising"
    )
    inputs = "pooled"
    scores_depend_on_list = True

    prototypes: torch.Tensor
    class_vectors: torch.Tensor
    table: torch.Tensor
    prompts: torch.Tensor

    def prepare(self) -> None:
        projection = getattr(self.backbone.clip.visual, "proj", None)
        if not isinstance(projection, torch.Tensor):
            raise BenchError("engine needs an image tower with a projection, and this backbone's has none (use ViT-B-16, ...)")
        self.projection = projection.detach()  # (P, D)
        (pooled_width, width), dtype = projection.shape, projection.dtype
        self.descriptions = self.read_descriptions()
        described = 1.0 if self.descriptions else 0.0
        self.text_weight = described * self.settings.text_weight
        self.rerank_weight = described * self.settings.rerank_weight
        self.image_units, self.text_units = SummedUnits(width, dtype), SummedUnits(width, dtype)
        self.discriminant = LinearDiscriminant(pooled_width)
        self.register_buffer("prototypes", torch.zeros(0, width, dtype=dtype))  # m_c (n, D)
        self.register_buffer("table", torch.zeros(self.settings.rerank_draws, 0, 0, dtype=torch.long))  # (draws, n, n)
        prompts = self.scenario.prompts_of(range(len(self.scenario.class_names)))
        self.prompts_per_class = [len(own) for own in prompts]
        texts = self.backbone.encode_text([text for own in prompts for text in own])
        self.register_buffer("prompts", texts, persistent=False)  # raw, of all classes one after the other
        self.register_buffer("class_vectors", self.backbone.classifier(prompts))  # q_c (N, D)

    def read_descriptions(self) -> Descriptions | None:
        settings = self.settings
        if settings.descriptions is None:
            return None
        found = Descriptions(settings.descriptions, self.scenario, self.backbone)
        if settings.rerank_weight:
            found.check_pairs()
        if settings.text_weight and not settings.compare_with_later:
            found.check_seen(self.scenario.task_of_class)
        return found

    def classes_added(self, new: Sequence[int]) -> None:
        self.class_vectors = self.adapted_class_vectors()

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        pooled, labels = task.train.features(layer="pooled"), task.train.labels.to(self.device)
        groups = by_class(pooled, labels, task.classes, self.scenario.class_names)
        self.discriminant.add([F.normalize(group, dim=-1) for group in groups])
        self.train_units(task, pooled @ self.projection, labels)
        means = torch.stack([(group @ self.projection).double().mean(dim=0) for group in groups])
        self.prototypes = torch.cat([self.prototypes, means.to(self.prototypes)])
        self.class_vectors = self.adapted_class_vectors()
        if self.descriptions and self.rerank_weight:
            n, n_draws = len(self.prototypes), self.settings.rerank_draws
            self.table = description_table(self.descriptions, n, n_draws, self.draws, task.index).to(self.device)

    def train_units(self, task: Task, features: torch.Tensor, labels: torch.Tensor) -> None:
        settings = self.settings
        units = {"image": self.image_units, "text": self.text_units}
        newest = {side: own.fresh(self.draws, f"{side} unit", task.index) for side, own in units.items()}
        trained = [parameter for unit in newest.values() for parameter in unit.parameters()]
        # parameters on the memory of the buffers: what the optimiser does to them is done to the units of past tasks
        old = [torch.nn.Parameter(part) for own in units.values() for part in (own.weights, own.offsets)]
        old = old if settings.frozen_units_decay and len(self.image_units) else []

        def without_gradient() -> None:
            """Not the same as no gradient: momentum and weight decay go on."""
            for parameter in old:
                parameter.grad = torch.zeros_like(parameter)

        optimiser = torch.optim.SGD(
            [*trained, *old], lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        descent = Descent(
            self, optimiser, at_step=f"{task.name}, step", at_end=f"{task.name}, last step", cut=without_gradient
        )

        def read(batch: Batch) -> torch.Tensor:
            return self.noisy_pixels(task, batch) if settings.image_weight else labels.new_zeros(0)

        batches = pixel_batches(
            self, read, images=len(labels), batch_size=settings.batch_size, epochs=settings.epochs,
            budget=self.scenario.images_per_task, purpose=("batch order", task.index),
        )  # fmt: skip
        for batch, pixels in batches:
            step = self.step(task.index, batch, features, labels, pixels)
            rate = cosine_by_epoch(settings.lr, settings.min_lr, batch.epoch, settings.epochs)
            descent.step(self.loss(newest["image"], newest["text"], step), rate)
        descent.finish()
        for side, own in units.items():
            self.check_finite(newest[side].weight.detach().sum(), f"{task.name}, the {side} unit after the last step")
            own.keep(newest[side])

    def noisy_pixels(self, task: Task, batch: Batch) -> torch.Tensor:
        """(b, 3, size, size) copies of a batch's images."""
        pixels = task.train.pixels(batch.rows)
        noise = self.draws.normal(pixels.shape, "pixel noise", task.index, batch.step)
        noise = self.settings.pixel_noise * noise.to(pixels)
        if self.settings.noise_on_normalised:
            return (pixels + noise).clamp(0, 1)
        mean, std = self.backbone.mean.to(pixels), self.backbone.std.to(pixels)
        return ((pixels * std + mean + noise).clamp(0, 1) - mean) / std

    def step(self, task: int, batch: Batch, features: torch.Tensor, labels: torch.Tensor, pixels: torch.Tensor) -> Step:
        rows, n_old = batch.rows.to(features.device), len(self.prototypes)
        images, of_images = features[rows], labels[rows]
        if n_old:
            order = self.draws.permutation(n_old, "old classes", task, batch.epoch).to(labels)
            noise = self.draws.normal((n_old, features.shape[1]), "prototype noise", task, batch.step).to(features)
            images = torch.cat([images, self.prototypes[order] + self.settings.prototype_noise * noise])
            of_images = torch.cat([of_images, order])
        copies = self.backbone.encode_images(pixels) if len(pixels) else features[:0]
        described = features[:0]
        if self.text_weight:
            shares = self.draws.uniform(of_images.shape, "descriptions", task, batch.step)
            described = self.described(of_images.tolist(), shares.tolist(), task)
        return Step(images, of_images, self.first_prompts(task), copies, described)

    def described(self, classes: Sequence[int], shares: Sequence[float], task: int) -> torch.Tensor:
        """(n, D) raw features of a description of each class: that at this share of the way through its own."""
        assert self.descriptions is not None
        seen = None
        if not self.settings.compare_with_later:
            seen = {name for name, own in zip(self.scenario.class_names, self.scenario.task_of_class) if own <= task}
        pools = {c: self.descriptions.pool(c, seen) for c in set(classes)}
        chosen = [pools[c][int(share * len(pools[c]))] for c, share in zip(classes, shares)]
        return torch.stack([self.descriptions.features(c)[place] for c, place in zip(classes, chosen)])

    def loss(self, image_unit: torch.nn.Linear, text_unit: torch.nn.Linear, step: Step) -> torch.Tensor:
        images = F.normalize(self.image_units.with_newest(step.features, image_unit), dim=-1)
        texts = F.normalize(self.text_units.with_newest(step.prompts, text_unit), dim=-1)[step.labels]
        scale = self.backbone.logit_scale
        if self.settings.log_temperature:
            scale = math.log(scale)
        loss = self.contrast(scale * images @ texts.T)
        if len(step.copies):
            own = images[: len(step.copies)]
            loss = loss + self.settings.image_weight * self.matching(own @ F.normalize(step.copies, dim=-1).T)
        if len(step.described):
            loss = loss + self.text_weight * self.matching(texts @ F.normalize(step.described, dim=-1).T)
        return loss

    def contrast(self, similarities: torch.Tensor) -> torch.Tensor:
        return (self.matching(similarities) + self.matching(similarities.T)) / 2

    def matching(self, similarities: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of rows (n, n) whose own column is the right one."""
        return F.cross_entropy(similarities, torch.arange(len(similarities), device=similarities.device))

    def first_prompts(self, task: int) -> torch.Tensor:
        """(seen, D) raw text features of the first prompt of every class up to this task."""
        starts = [0, *itertools.accumulate(self.prompts_per_class[:-1])]
        return self.prompts[[start for start, own in zip(starts, self.scenario.task_of_class) if own <= task]]

    @torch.no_grad()
    def adapted_class_vectors(self) -> torch.Tensor:
        """q_c (N, D) of all classes of the stream, learned or not."""
        units = F.normalize(self.text_units(self.prompts), dim=-1)
        return F.normalize(torch.stack([own.mean(dim=0) for own in units.split(self.prompts_per_class)]), dim=-1)

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        columns, n_seen, features = list(classes), len(self.prototypes), batch @ self.projection
        adapted = self.image_units(features) if len(self.image_units) else features
        cosines = F.normalize(adapted, dim=-1) @ self.class_vectors.T
        if max(columns, default=-1) >= n_seen:  # a class that is not learned
            return cosines[:, columns]
        of_units = cosines[:, :n_seen]
        if self.descriptions and self.rerank_weight:
            best = best_classes(of_units, self.settings.rerank_top)
            again = reranked(features, best, self.rows_of(best), self.descriptions, n_seen)
            of_units = self.rerank_weight * again + (1 - self.rerank_weight) * of_units
        distances = F.normalize(self.discriminant.scores(F.normalize(batch, dim=-1)), dim=-1).to(of_units)
        share = self.settings.discriminant_weight
        return (share * distances + (1 - share) * of_units)[:, columns]

    def rows_of(self, best: torch.Tensor) -> torch.Tensor:
        """(draws, b, k, k - 1) descriptions of the best classes (b, k) of every image: places among those of each class."""
        return chosen_rows(self.table, best)
