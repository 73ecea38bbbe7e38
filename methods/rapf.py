"""RAPF: one linear map of frozen image features, adjusted on features drawn from old classes and fused after every task."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Range, Task, setting
from methods.shared.batches import training_batches
from methods.shared.class_gaussians import ClassGaussians, by_class
from methods.shared.class_names import check_template, underscored
from methods.shared.descent import Descent

RATE_DROP = 0.1  # at every milestone


@dataclass(frozen=True)
class RAPFSettings:
    """Defaults: CIFAR-100 in 10 tasks of 10."""

    lr: float = setting(1e-3, "learning rate of Adam, which starts anew with every task", search=Range(1e-4, 0.03, log=True))
    epochs: int = setting(15, "passes over the task's images", search=Range(3, 25))
    milestones: tuple[int, ...] = setting((4, 10), "epochs after which the rate is multiplied by 0.1")
    batch_size: int = setting(100, "images per step")
    old_classes_per_batch: int = setting(2, "k: old classes of which features are drawn in a step")
    samples_per_class: int = setting(20, "features drawn of each of them (authors: 10 beta, rounded down)")
    samples_per_pair: int = setting(40, "features drawn in a step for each pair of neighbours (authors: 20 beta, rounded down)")
    threshold: float = setting(
        0.55, "an old and a new class are neighbours if their unit text features are closer than this", search=Range(0.3, 0.95)
    )
    margin: float = setting(0.1, "of the hinge: by so much an old class's features are to be nearer to its own text, in cosines")
    hinge_weight: float = setting(1.0, "weight of the hinge; 0: no representation adjustment", search=Range(0.1, 10.0, log=True))
    mix_bias: float = setting(
        0.6,
        "b of the parameter fusion: least share of the way from old to new weights; 1: no fusion",
        search=Range(0.0, 1.0, step=0.1),
    )
    covariance_ridge: float = setting(1e-4, "added to the diagonal of every class's covariance")
    shrinkage: bool = setting(False, "add the means of a covariance's diagonal and of the rest (shared/class_gaussians.py)")
    template: str | None = setting("a good photo of a {}.", "the one prompt of every class; none: the protocol's, averaged")
    keep_underscores: bool = setting(False, "as released: names of several words as the data set's files write them")

    def __post_init__(self):
        if min(self.epochs, self.batch_size, self.old_classes_per_batch, self.samples_per_class, self.samples_per_pair) < 1:
            raise BenchError("epochs, batch_size and all numbers of old classes and samples: choose 1 or more")
        if not self.covariance_ridge > 0:
            raise BenchError("covariance_ridge: it must be positive, for a class of few images has a singular covariance")
        if not 0 <= self.mix_bias <= 1:
            raise BenchError(f"mix_bias={self.mix_bias}: choose a value from 0 to 1 (no fusion)")
        check_template("template", self.template)


class RAPF(Method):
    """RAPF: a linear adapter of frozen image features, trained beside Gaussians of the old classes, fused with its old weights.

    Paper: "Class-Incremental Learning with CLIP: Adaptive Representation Adjustment and Parameter Fusion", L. Huang, X. Cao,
    H. Lu, X. Liu, ECCV 2024, arXiv 2407.14143.

    Trained: one matrix W (d, d) without bias. Frozen: both encoders. With f(x) (d,) the image feature, not of unit length, t_c
    (d,) the unit text feature of class c and s = exp(logit scale):

        score of class c = s cos(W f(x), t_c)

    Before the first task W is the identity: zero-shot CLIP. The first task starts from a random W, uniform within 1 / sqrt(d).

        first task   CE of the scores over its classes
        later tasks  CE over all classes seen, on a batch of images and m features drawn of each of k old classes, plus

                     mean of max(0, cos(W x, t_n) - cos(W x, t_o) + margin) over features x drawn of old classes o

                     for every pair of neighbours (o, n): o old, n new, |t_o - t_n| < threshold        `neighbours`
        statistics   mean and covariance + 1e-4 I of f(x) of each new class, from which later tasks draw anew in every step
                    (shared/class_gaussians.py); f is frozen, so they never age
        fusion       with W_o = U diag(sigma) V^T at the task's start, W_n at its end, D = |U^T W_n - U^T W_o|, elementwise:

                     M = min(1, D / max D + b),    W = U (M U^T W_n + (1 - M) U^T W_o)                  `fused`

    The k old classes of a step come in turn from an order drawn for every epoch; a short epoch does not visit them all, and
    where k exceeds their number a class occurs more than once. No image is kept; of each class, a mean and a Cholesky factor
    are (4 (d^2 + d) bytes: 105 MB for 100 classes and d = 512, more than 2000 images of CIFAR-100; `bench table --view cost`).

    Unseen classes have a score by the same formula. The authors never ask for it; W knows only the classes seen and starts at
    random, so expect less than zero-shot CLIP. A score depends on no other image of the batch.

    Deviations from the authors' code. It computes features, covariances and scores in half precision on a GPU, this in float32,
    covariances and their factors in double precision. Features and class texts are computed once, factors once per class and
    not for every draw: the same numbers. A class of one image has the covariance 1e-4 I (theirs: not a number); tasks of one
    class and of unequal sizes work. Their rule that picks k by the data set's name is the recipes here. Theirs has a `margin`
    of 0.2 for CUB-200 that nothing reads: 0.1. A protocol's limit on training images counts images, not drawn features.

    Raises BenchError for impossible settings and for a class without a training image, RunFailure when training diverges.
    """

    Settings = RAPFSettings
    settings: RAPFSettings
    recipes = {
        "cifar100-*": {"keep_underscores": True},
        "cifar100-b50-10x5": {"batch_size": 50, "old_classes_per_batch": 4},
        "imagenet100-*": {
            "batch_size": 128, "samples_per_class": 10, "samples_per_pair": 20, "mix_bias": 0.5, "threshold": 0.65,
        },
        "imagenet100-5x20": {"samples_per_class": 5, "samples_per_pair": 10},
        "imagenet-r*": {
            "batch_size": 64, "old_classes_per_batch": 5, "samples_per_class": 10, "samples_per_pair": 20, "mix_bias": 0.7,
            "threshold": 0.65, "shrinkage": True, "keep_underscores": True,
        },
        "imagenet-r-20x10": {"batch_size": 60, "samples_per_class": 20, "samples_per_pair": 40, "threshold": 0.6},
        "imagenet-r-5x40": {"samples_per_class": 5, "samples_per_pair": 10, "threshold": 0.6},
        "imagenet-r-b100-10x10": {"samples_per_class": 20, "samples_per_pair": 40},
        "cub200*": {
            "batch_size": 32, "old_classes_per_batch": 10, "samples_per_class": 10, "samples_per_pair": 20, "mix_bias": 0.8,
            "threshold": 0.65, "shrinkage": True, "keep_underscores": True,
        },
        # ours: the templates that the mini CLIP was trained on; batches by the authors' rule that an epoch visits every old class
        "mini*": {"template": None, "batch_size": 50, "old_classes_per_batch": 5},
    }  # fmt: skip
    quick = {"epochs": 2, "milestones": (1,)}
    paper = (
        '"Class-Incremental Learning with CLIP: Adaptive Representation Adjustment and Parameter Fusion", Huang et al., '
        "ECCV 2024, arXiv 2407.14143"
    )
    on_embeddings = {"template": None, "keep_underscores": False}
    trains = "one square matrix on frozen image features; both encoders are frozen"
    conformance = (
        "checked: statistics with and without shrinkage, draws, neighbours, losses, rates, gradients, weights before and after "
        "fusion, logits of seen and unseen classes, over tasks; not checked: half precision"
    )
    text: torch.Tensor

    @property
    def needs(self) -> tuple[str, ...]:
        other_texts = self.settings.template is not None or self.settings.keep_underscores
        return ("towers",) if other_texts else ("features", "texts")

    def prepare(self) -> None:
        scenario = underscored(self.scenario) if self.settings.keep_underscores else self.scenario
        every_class, width = range(len(scenario.class_names)), self.backbone.embedding_width
        prompts = scenario.prompts_of(every_class, self.settings.template)
        self.register_buffer("text", self.backbone.classifier(prompts))  # t_c (N, d)
        self.adapter = torch.nn.Parameter(torch.eye(width, dtype=self.text.dtype))  # W (d, d)
        self.gaussians = ClassGaussians(width, self.settings.covariance_ridge, self.settings.shrinkage)  # of f, by class

    def learn(self, task: Task) -> None:
        features, labels = task.train.features(), task.train.labels
        if task.index == 0:
            self.adapter.data = self.random_adapter().to(self.adapter)
        before = self.adapter.detach().clone()
        self.fit(task, features, labels.to(self.device))
        if task.index > 0:
            self.adapter.data = fused(before, self.adapter.detach(), self.settings.mix_bias)
        self.gaussians.add(by_class(features, labels, task.classes, self.scenario.class_names))

    def random_adapter(self) -> torch.Tensor:
        """(d, d) as torch starts a linear layer."""
        with self.draws.initialising("adapter"):
            return torch.nn.Linear(len(self.adapter), len(self.adapter), bias=False).weight.detach()

    def fit(self, task: Task, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Train W on the task's features (n, d) and on features of the old classes."""
        settings, n = self.settings, len(labels)
        n_old, n_seen = task.classes[0], task.classes[-1] + 1
        pairs = neighbours(self.text[:n_seen], n_old, settings.threshold)  # (p, 2)
        towards_new = self.text[pairs[:, 1]] - self.text[pairs[:, 0]]  # t_n - t_o (p, d)
        optimiser = torch.optim.Adam([self.adapter], lr=settings.lr)
        descent = Descent(self, optimiser, at_step=f"{task.name}, step", at_end=f"{task.name}, last step")
        batches = training_batches(
            self.draws, images=n, batch_size=settings.batch_size, epochs=settings.epochs,
            budget=self.scenario.images_per_task, purpose=("batch order", task.index),
        )  # fmt: skip
        for step, epoch, rows in batches:
            inputs, targets, of_pairs = features[rows], labels[rows], None
            if n_old:
                place = step - epoch * math.ceil(n / settings.batch_size)  # of the batch in its epoch
                replayed, own = self.replay(self.old_classes(n_old, task.index, epoch, place), task.index, step)
                inputs, targets = torch.cat([inputs, replayed]), torch.cat([targets, own.to(targets)])
            if len(pairs):
                of_pairs = self.features_of_pairs(pairs, task.index, step)
            cross_entropy, hinge = self.losses(inputs, targets, n_seen, of_pairs, towards_new)
            rate = settings.lr * RATE_DROP ** sum(epoch >= drop for drop in settings.milestones)
            descent.step(cross_entropy + settings.hinge_weight * hinge, rate)
        descent.finish()

    def old_classes(self, n_old: int, task: int, epoch: int, place: int) -> torch.Tensor:
        """(k,) the old classes whose turn it is in the batch at this place of its epoch."""
        k = self.settings.old_classes_per_batch
        order = self.draws.permutation(n_old, "old classes", task, epoch)
        return order[(place * k + torch.arange(k)) % n_old]

    def replay(self, classes: torch.Tensor, task: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(k m, d) features drawn of these classes (k,), class by class, and their labels (k m,)."""
        m = self.settings.samples_per_class
        noise = self.draws.normal((len(classes), m, len(self.adapter)), "replay", task, step)
        return self.gaussians.sample(classes, noise).flatten(0, 1), classes.repeat_interleave(m)

    def features_of_pairs(self, pairs: torch.Tensor, task: int, step: int) -> torch.Tensor:
        """(p, m', d) features drawn of the old class of every pair (p, 2)."""
        noise = self.draws.normal((len(pairs), self.settings.samples_per_pair, len(self.adapter)), "pairs", task, step)
        return self.gaussians.sample(pairs[:, 0], noise)

    def losses(
        self, inputs: torch.Tensor, targets: torch.Tensor, n_seen: int, of_pairs: torch.Tensor | None, towards_new: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of features (b, d) with labels (b,), and the hinge of features of pairs (p, m', d), whose text features
        differ by `towards_new` (p, d): 0 without pairs."""
        adapted = F.normalize(inputs @ self.adapter.T, dim=-1)
        cross_entropy = F.cross_entropy(self.backbone.logit_scale * adapted @ self.text[:n_seen].T, targets)
        if of_pairs is None:
            return cross_entropy, torch.zeros_like(cross_entropy)
        adapted = F.normalize(of_pairs @ self.adapter.T, dim=-1)
        gaps = (adapted @ towards_new.unsqueeze(2)).squeeze(2)  # (p, m')
        return cross_entropy, F.relu(gaps + self.settings.margin).mean()

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        adapted = F.normalize(batch @ self.adapter.T, dim=-1)
        return self.backbone.logit_scale * adapted @ self.text[list(classes)].T


def neighbours(text: torch.Tensor, n_old: int, threshold: float) -> torch.Tensor:
    """(p, 2) pairs of an old class and a new one that are closer than the threshold, ordered by the old, then the new.

    text (n, d): unit text features of the classes seen, of which the first n_old are old.
    """
    distances = text_distances(text[:n_old], text[n_old:])
    return torch.nonzero(distances < threshold).cpu() + torch.tensor([0, n_old])


def text_distances(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """(n_old, n_new) Euclidean distances, from the differences: products would lose the digits of small ones."""
    return torch.cdist(old, new, compute_mode="donot_use_mm_for_euclid_dist")


def fused(old: torch.Tensor, new: torch.Tensor, bias: float) -> torch.Tensor:
    """Weights (d, d) that move from old to new: most where, seen along the old singular directions, they differ most.

    The signs of singular vectors do not matter: one of U turned round turns a row of both projections.
    """
    u = torch.linalg.svd(old.double())[0]
    before, after = u.T @ old.double(), u.T @ new.double()
    change = (after - before).abs()
    if not change.any():
        return old
    share = (change / change.max() + bias).clamp(max=1)
    return (u @ (share * after + (1 - share) * before)).to(old)
