"""BOFA: CLIP's last image projection trained per task, kept to directions that old features do not use, and averaged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Range, Task, setting
from methods.shared.batches import budgets_of_phases, training_batches
from methods.shared.class_gaussians import by_class
from methods.shared.descent import Descent
from methods.shared.linear_discriminant import LinearDiscriminant
from methods.shared.schedules import cosine_by_epoch

GRID = 21  # mixing weights that are tried: 0, 0.05, ..., 1
UNUSED = 1e-9  # of the largest eigenvalue: directions whose energy is less above the ridge hold no feature of the past


@dataclass(frozen=True)
class BOFASettings:
    """Defaults: CIFAR-100, the only file of settings that is public."""

    epochs: int = setting(15, "passes over the task's images in which the whole projection is trained", search=Range(3, 20))
    low_rank_epochs: int = setting(2, "passes after that, of the low-rank factor; on the first task, of the whole projection")
    batch_size: int = setting(128, "images per step")
    lr: float = setting(
        0.05, "peak rate of SGD for the projection; a cosine, stepped by epoch", search=Range(1e-3, 0.5, log=True)
    )
    min_lr: float = setting(0.0, "the rate at which the cosine ends, for both")
    momentum: float = setting(0.9, "of SGD")
    weight_decay: float = setting(
        0.05, "of SGD, on the projection: towards 0, not towards CLIP's", search=Range(1e-4, 0.1, log=True)
    )
    low_rank_lr: float = setting(1e-3, "peak rate of SGD for the low-rank factor", search=Range(1e-4, 0.1, log=True))
    low_rank_weight_decay: float = setting(1e-3, "of SGD, on the low-rank factor")
    rank: int = setting(64, "r: directions of least energy that a later task's change is kept to")
    moment_ridge: float = setting(1e-4, "added to the diagonal of every task's second moment")
    discriminant_weight: float = setting(
        0.1, "share of the linear discriminant in a score; 0: the projection alone", search=Range(0.0, 0.9, step=0.1)
    )
    mixing_weight: float = setting(0.0, "lambda, if it is to be given; 0: searched for on the training images")
    swapped_mixing: bool = setting(True, "as released: lambda weighs texts where it is searched for, and images where it is used")
    vanishing_rate: bool = setting(
        True, "as released: the cosine is at its end where the low-rank epochs begin; false: where they end"
    )
    log_temperature: bool = setting(True, "as released: cosines times the logarithm of CLIP's logit scale, not the scale")

    def __post_init__(self):
        if min(self.epochs, self.batch_size, self.rank) < 1 or self.low_rank_epochs < 0:
            raise BenchError("epochs, batch_size and rank: choose 1 or more; low_rank_epochs: 0 or more")
        if not self.moment_ridge > 0:
            raise BenchError("moment_ridge: it must be positive, for features of few images do not fill their space")
        for name in ("discriminant_weight", "mixing_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise BenchError(f"{name}={getattr(self, name)}: choose a value from 0 to 1")


class Examples(NamedTuple):
    """What a task trains on."""

    pooled: torch.Tensor  # p (n, P)
    labels: torch.Tensor  # (n,)
    prototypes: torch.Tensor  # h_c (seen, d)


class BOFA(Method):
    """BOFA: the last image projection, trained per task, kept orthogonal to old features by a low-rank change, averaged.

    Paper: "BOFA: Bridge-Layer Orthogonal Low-Rank Fusion for CLIP-Based Class-Incremental Learning", L. Li, T. Hu, D.-W. Zhou,
    H.-J. Ye, D.-C. Zhan, AAAI 2026, arXiv 2511.11421. What stands here is the code in its group's toolbox (LAMDA-CL/C3Box);
    of the paper's text the abstract was read.

    Trained: one matrix W (d, P), in the place of CLIP's projection W_0 of the pooled image feature p(x) (P,). All else is frozen.
    With u(v) = v / |v|, m_c (P,) the mean of p over class c, T_c (d,) the unit text of the class by the first template, q_c (d,)
    by the mean of all templates, s the logarithm of CLIP's logit scale (4.6; `log_temperature`):

        I_c = u(W_0 m_c),    h_c = lambda I_c + (1 - lambda) T_c
        loss = CE of s u(W p(x)) . h_c over all classes seen, on the task's images alone

    First task: W from W_0 for 17 epochs. Later tasks, with M_i = X^T X / (n - 1) + 1e-4 I (P, P) of the n pooled features of task
    i, not centred, and A (P, r) the eigenvectors of the r smallest eigenvalues of the mean of M_i over past tasks:

        stage 1   W from where the last task's stage 1 ended (from neither W_0 nor the average), 15 epochs
        stage 2   W_t = W_0 + B A^T with B (d, r) from (W - W_0) A, 2 epochs of B alone
        average   W_bar = (W_1 + ... + W_t) / t, W_1 being kept to no directions

        score of class c = w d_c + (1 - w) u(W_bar p(x)) . (lambda I_c + (1 - lambda) q_c),    w = 0.1

    d_c is a linear discriminant of u(p(x)) over all classes seen (shared/linear_discriminant.py). It differs between classes by
    units to thousands, the cosines by about 0.1: it decides even with a weight of 0.1. `--ablate bofa.discriminant_weight=0`
    gives the row without it.

    Traps of the release, kept as they made its numbers:
    - lambda comes from a search over 21 values, on the images that the prototypes I_c are the means of: the best accuracy of
      (1 - lambda) I + lambda T, the first of equals. There it weighs the texts, in training and at test the images
      (`swapped_mixing`). Where prototypes separate the images, 0 wins, images count no more, and every later task searches again.
    - The cosine of the rates has come to 0 where stage 2 begins, and rises to 1 % of the peak in its second epoch: stage 2
      changes next to nothing (`vanishing_rate`).
    - Tasks weigh the same in the mean of M_i and in W_bar, however many classes or images they have.

    Unseen classes: the authors' code has no score for them. Ours, if a class that is not learned is asked for: u(W_bar p) . q_c
    for every class that is asked for, without prototypes and discriminant; so every set of candidates is scored by itself
    (`scores_depend_on_list`). Before the first task it is zero-shot CLIP. Scores are not scaled, so calibration errors say
    little. A score depends on no other image of the batch. Task-incremental streams are not in the authors' code.

    Kept of the past: the sums of M_i and W_t, Lambda, W, m_c and mu_c (about 10 MB with ViT-B/16;
    `bench table --view cost`); no image.

    Deviations from the authors' code. Directions that no past feature has a part in are all alike, and which of them are among
    the r smallest would be the eigen-solver's choice: A has all of them, more than r where past images are few. The linear head
    that is trained beside W and never used is left out, and so are prototypes of images or texts alone, and moving ones. Images
    are cropped at the centre and not squashed to a square. Tasks may have any size.

    Raises BenchError for impossible settings, for a tower without a projection and for a class without a training image,
    RunFailure when training diverges.
    """

    Settings = BOFASettings
    settings: BOFASettings
    recipes = {
        "mini*": {"rank": 11},  # ours: of a width of 128 the share that 64 is of 768
    }
    quick = {"epochs": 2, "low_rank_epochs": 1}
    paper = (
        '"BOFA: Bridge-Layer Orthogonal Low-Rank Fusion for CLIP-Based Class-Incremental Learning", Li et al., '
        "AAAI 2026, arXiv 2511.11421"
    )
    trains = "CLIP's last image projection; everything before it and the text encoder are frozen"
    conformance = (
        "checked: second moments, discriminant, search for lambda, rates, losses, gradients, both stages, projected changes, "
        "average, logits of seen classes over tasks; not checked: unseen classes, which are ours"
    )
    inputs = "pooled"
    needs = ("pooled", "projection", "texts")
    scores_depend_on_list = True

    bridges: torch.Tensor
    moments: torch.Tensor
    n_tasks: torch.Tensor
    mixing: torch.Tensor
    means: torch.Tensor
    texts: torch.Tensor
    averaged_texts: torch.Tensor

    def prepare(self) -> None:
        projection = self.backbone.image_projection
        if projection is None:
            raise BenchError("bofa trains the projection of the image tower, and this backbone's has none (use ViT-B-16, ...)")
        self.initial = projection.T  # W_0 (d, P)
        width, every_class = self.initial.shape[1], range(len(self.scenario.class_names))
        self.bridge = torch.nn.Parameter(self.initial.clone())  # W, at the end of the last stage 1
        self.register_buffer("bridges", torch.zeros_like(self.initial))  # W_1 + ... + W_t
        self.register_buffer("moments", torch.zeros(width, width, dtype=torch.float64))  # M_1 + ... + M_t
        self.register_buffer("n_tasks", torch.zeros((), dtype=torch.long))  # t
        self.register_buffer("mixing", torch.tensor(self.settings.mixing_weight, dtype=torch.float64))  # lambda
        self.register_buffer("means", torch.zeros(0, width, dtype=self.initial.dtype))  # m_c (n, P)
        self.discriminant = LinearDiscriminant(width)
        texts = self.backbone.encode_text(self.scenario.prompts(every_class))
        self.register_buffer("texts", F.normalize(texts, dim=-1))  # T_c (N, d)
        self.register_buffer("averaged_texts", self.backbone.classifier(self.scenario.prompts_of(every_class)))  # q_c (N, d)

    @property
    def average(self) -> torch.Tensor:
        """W_bar (d, P), W_0 before the first task."""
        return self.bridges / self.n_tasks if self.n_tasks else self.initial

    def image_prototypes(self) -> torch.Tensor:
        """I_c (n, d) of the classes seen."""
        return F.normalize(self.means @ self.initial.T, dim=-1)

    def mixed(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Prototypes (n, d) for training and test, not of unit length."""
        of_images = self.mixing if self.settings.swapped_mixing else 1 - self.mixing
        return (of_images * images + (1 - of_images) * texts).to(texts)

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        pooled, labels = task.train.features(layer="pooled"), task.train.labels.to(self.device)
        groups = by_class(pooled, labels, task.classes, self.scenario.class_names)
        means = torch.stack([features.double().mean(dim=0) for features in groups])
        self.means = torch.cat([self.means, means.to(self.means)])
        self.discriminant.add([F.normalize(features, dim=-1) for features in groups])
        images, texts = self.image_prototypes(), self.texts[: len(self.means)]
        if self.mixing == 0:
            accuracies = mixing_accuracies(F.normalize(pooled @ self.average.T, dim=-1), labels, images, texts)
            self.mixing.fill_(float(accuracies.argmax()) / (GRID - 1))
        examples = Examples(pooled, labels, self.mixed(images, texts))
        trained = self.train_first(task, examples) if task.index == 0 else self.train_later(task, examples)
        self.bridges = self.bridges + trained
        self.moments = self.moments + second_moment(pooled, self.settings.moment_ridge)
        self.n_tasks += 1

    def train_first(self, task: Task, examples: Examples) -> torch.Tensor:
        """W_1 (d, P)"""
        epochs = range(self.settings.epochs + self.settings.low_rank_epochs)
        self.descend(self.bridge, lambda: self.bridge, examples, task, epochs, self.scenario.images_per_task)
        return self.bridge.detach()

    def train_later(self, task: Task, examples: Examples) -> torch.Tensor:
        """W_t (d, P), by both stages."""
        settings, n = self.settings, len(examples.labels)
        stages = range(settings.epochs), range(settings.epochs, settings.epochs + settings.low_rank_epochs)
        budgets = budgets_of_phases(self.scenario, [n * len(stage) for stage in stages])
        self.descend(self.bridge, lambda: self.bridge, examples, task, stages[0], budgets[0])
        basis = quiet_directions(self.moments / self.n_tasks, settings.rank, settings.moment_ridge).to(self.bridge)  # A
        factor = torch.nn.Parameter((self.bridge.detach() - self.initial) @ basis)  # B (d, r)
        self.descend(factor, lambda: self.initial + factor @ basis.T, examples, task, stages[1], budgets[1], low_rank=True)
        return self.initial + factor.detach() @ basis.T

    def descend(
        self,
        weights: torch.nn.Parameter,
        projection: Callable[[], torch.Tensor],
        examples: Examples,
        task: Task,
        epochs: range,
        budget: int | None,
        low_rank: bool = False,
    ) -> None:
        """Train the weights from which `projection` makes the whole projection, in these epochs of the task's cosine."""
        settings = self.settings
        peak, decay, order = settings.lr, settings.weight_decay, "batch order"
        if low_rank:
            peak, decay, order = settings.low_rank_lr, settings.low_rank_weight_decay, "low-rank order"
        period = settings.epochs + (0 if settings.vanishing_rate else settings.low_rank_epochs)
        optimiser = torch.optim.SGD([weights], lr=peak, momentum=settings.momentum, weight_decay=decay)
        stage = f"{task.name}, {order.split()[0]} step"
        descent = Descent(self, optimiser, at_step=stage, at_end=f"{stage}, the last")
        batches = training_batches(
            self.draws, images=len(examples.labels), batch_size=settings.batch_size, epochs=len(epochs), budget=budget,
            purpose=(order, task.index),
        )  # fmt: skip
        for batch in batches:
            rate = cosine_by_epoch(peak, settings.min_lr, epochs[batch.epoch], period)
            descent.step(self.loss(projection(), examples, batch.rows), rate)
        descent.finish()
        self.check_finite(weights.detach().sum(), f"{task.name}, the weights after the last step")

    def loss(self, projection: torch.Tensor, examples: Examples, rows: torch.Tensor) -> torch.Tensor:
        scale = self.backbone.logit_scale
        if self.settings.log_temperature:
            scale = math.log(scale)
        features = F.normalize(examples.pooled[rows] @ projection.T, dim=-1)
        return F.cross_entropy(scale * features @ examples.prototypes.T, examples.labels[rows])

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        columns = list(classes)
        features, texts = F.normalize(batch @ self.average.T, dim=-1), self.averaged_texts[columns]
        if max(columns, default=-1) >= len(self.means):  # a class that is not learned
            return features @ texts.T
        cosines = features @ self.mixed(self.image_prototypes()[columns], texts).T
        of_discriminant = self.discriminant.scores(F.normalize(batch, dim=-1))[:, columns]
        share = self.settings.discriminant_weight
        return share * of_discriminant + (1 - share) * cosines


def mixing_accuracies(features: torch.Tensor, labels: torch.Tensor, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """(21,) accuracy of unit features (n, d) with prototypes (1 - lambda) I + lambda T, for lambda = 0, 0.05, ..., 1."""
    accuracies = []
    for step in range(GRID):
        share = step / (GRID - 1)
        prototypes = (1 - share) * images + share * texts
        accuracies.append(((features @ prototypes.T).argmax(dim=-1) == labels).double().mean())
    return torch.stack(accuracies)


def second_moment(features: torch.Tensor, ridge: float) -> torch.Tensor:
    """M (P, P) of raw features (n, P), in double precision; of a single one, its product with itself."""
    features = features.double()
    moment = features.T @ features / max(len(features) - 1, 1)
    moment.diagonal().add_(ridge)
    return moment


def quiet_directions(moment: torch.Tensor, rank: int, ridge: float) -> torch.Tensor:
    """A (P, r) eigenvectors of the `rank` smallest eigenvalues, or of all that are not above the ridge where these are more."""
    values, vectors = torch.linalg.eigh(moment)  # ascending
    unused = int((values <= ridge + UNUSED * values[-1]).sum())
    return vectors[:, : max(rank, unused)]
