"""MG-CLIP: both towers tuned for as long as the gap between images and text stays, and a second classifier among images."""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from bench import BenchError, Choices, Method, Range, Task, setting
from bench.clip.image_tower import blocks
from bench.clip.text_tower import encode_tokens
from bench.clip.tower_types import ClipModel
from methods.shared.attention_lora import AttentionLoRA, ChangedTowers
from methods.shared.batches import budgets_of_phases, steps_within_budget, training_batches
from methods.shared.class_gaussians import by_class
from methods.shared.class_names import check_template, underscored
from methods.shared.descent import Descent
from methods.shared.pixels import pixel_batches
from methods.shared.schedules import cosine_per_iteration

IMAGES_AT_ONCE = 256  # through the tuned tower, where nothing is trained


@dataclass(frozen=True)
class MGCLIPSettings:
    """Defaults: CIFAR-100 in 10 tasks of 10."""

    rank: int = setting(8, "r of the low-rank changes of keys and values in both towers", search=Choices(2, 4, 8, 16))
    alpha: float = setting(1.0, "a change is multiplied by alpha / r")
    lr: float = setting(
        1e-3,
        "step 1: peak rate of Adam, which starts anew with every task; a cosine, stepped by epoch",
        search=Range(1e-4, 0.01, log=True),
    )
    batch_size: int = setting(128, "step 1: images per step")
    epochs: int = setting(0, "step 1: passes over the images of every task; 0: found on the first task from the modality gap")
    gap_tolerance: float = setting(0.1, "search of the epochs: by this share the mean score of wrong classes may change")
    max_epochs: int = setting(10, "search of the epochs: its longest trial, over which the trial's cosine is stretched")
    lr_floor: float = setting(0.01, "both steps: what a cosine falls towards, as a fraction of its peak")
    visual_lr: float = setting(
        5e-4,
        "step 2: peak rate of Adam, which starts anew with every task; a cosine, stepped by step",
        search=Range(5e-5, 0.03, log=True),
    )
    visual_batch_size: int = setting(64, "step 2: features per step")
    visual_epochs: int = setting(3, "step 2: passes over the task's features", search=Range(1, 10))
    text_weight: float = setting(1.0, "weight of the text part of a score")
    visual_weight: float = setting(4.0, "weight of the visual part of a score", search=Range(0.3, 16.0, log=True))
    text_softmax_twice: bool = setting(True, "as released: the text part is the softmax of probabilities, and not these")
    template: str | None = setting("a good photo of a {}.", "the one prompt of every class; none: the protocol's, averaged")
    keep_underscores: bool = setting(False, "as released: names of several words as the data set's files write them")

    def __post_init__(self):
        if min(self.rank, self.batch_size, self.max_epochs, self.visual_batch_size) < 1:
            raise BenchError("rank, batch sizes and max_epochs: choose 1 or more")
        if min(self.epochs, self.visual_epochs) < 0:
            raise BenchError("epochs and visual_epochs: choose 0 or more")
        if min(self.text_weight, self.visual_weight) < 0 or not self.text_weight + self.visual_weight > 0:
            raise BenchError("text_weight and visual_weight: neither may be negative, and one must be positive")
        if not self.gap_tolerance > 0:
            raise BenchError(f"gap_tolerance={self.gap_tolerance}: choose a share above 0")
        check_template("template", self.template)


class MGCLIP(Method):
    """MG-CLIP: LoRA in both towers, for few enough epochs to keep the modality gap, and a classifier in image space.

    Paper: "Mind the Gap: Preserving and Compensating for the Modality Gap in CLIP-Based Continual Learning", L. Huang, X. Cao,
    H. Lu, Y. Meng, F. Yang, X. Liu, ICCV 2025, arXiv 2507.09118.

    Trained: low-rank changes of the keys and values in all blocks of both towers (methods/shared/attention_lora.py), with
    g = alpha / r, and a row u_c (d,) for each class learned. One LoRA goes on from task to task. With f(x), t_c (d,) the unit
    features of the tuned towers, S = exp(logit scale), s_c = S f(x) . t_c and c_c = cos(u_c, f(x)):

        step 1   mean CE of s over the classes of the task alone; Adam, cosine by epoch to a hundredth, `epochs` passes
        step 2   LoRA stays. u_c = mean of the unit f(x) of each new class, then mean CE of c, without a temperature, over the
                 classes of the task; Adam, cosine by step. Rows of old classes stay as they are: what LoRA of later tasks does
                 to their images is the method's forgetting

    Epochs. Tuning closes the gap between images and text. N is the mean score s of wrong classes on the first task's images,

        N = mean over batches of the mean over images of  (sum of s_c over c other than y) / (C - 1),

    N_0 that of the untouched CLIP. A trial tunes on the first task with a cosine over 10 epochs; it ends with the first epoch
    e = 0, 1, .. after which |N_0 - N| > 0.1 |N_0|. Then LoRA starts again, and every task gets e epochs, at least 1, with a
    cosine of their own: the second of two has half the rate that it had in the trial. Authors found 1, 2 and 2 epochs for
    CIFAR-100, ImageNet-100 and ImageNet-R; the recipes of these streams take them and spare the trial (`epochs`).

    Scores of a list of learned classes, all softmaxes over this list:

        p = softmax(s),    score = (softmax(p) + 4 softmax(c)) / 5

    p goes through a second softmax and c has no temperature, so both parts lie between about 1/C and e/C. That is as released,
    and it balances them: `text_softmax_twice=false` lets the text decide. A list with a class that was not learned, which has
    no u_c, is scored by p alone (the authors' all-classes run fails there). Before the first task it is zero-shot CLIP. What
    `logits` returns has these scores as its softmax: their logarithms, or s. A score depends on no other image but on the
    classes asked for, so every set of candidates is scored by itself (`scores_depend_on_list`); images are encoded once for all.

    Kept of the past: LoRA (2 MB for ViT-B/16), u_c and t_c of every class; no image, no statistics.

    Deviations from the authors' code. They run the search by hand, as a program of its own, and write its result into a file:
    here it is the start of the first task. Theirs never ends if N_0 is negative, and takes the next tasks if the first does not
    end it: here the change counts by its size, and 10 epochs are the most. A first task of one class has no wrong class (theirs:
    not a number) and gets 1 epoch. Features of step 2 are encoded once, prompts of old classes not at all while training: both
    were computed and not used. A protocol's limit on training images cuts both steps, in proportion, and of the first task's
    half goes to the trial. Replay of images and balanced fine-tuning, which all released configurations leave off, are not here.

    Raises BenchError for impossible settings, other towers than transformers and a class without a training image, RunFailure
    when training diverges.
    """

    Settings = MGCLIPSettings
    settings: MGCLIPSettings
    recipes = {
        "cifar100-*": {"keep_underscores": True},
        "cifar100-10x10": {"epochs": 1},
        "imagenet100-*": {"lr": 5e-4, "visual_batch_size": 128, "visual_lr": 1e-3},
        "imagenet100-10x10": {"epochs": 2},
        "imagenet-r*": {"batch_size": 64, "visual_batch_size": 32, "keep_underscores": True},
        "imagenet-r-10x20": {"epochs": 2},
        # ours: the templates that the mini CLIP was trained on; batches so that an epoch has about as many steps as theirs
        "mini*": {"template": None, "batch_size": 16, "visual_batch_size": 16},
    }
    quick = {"epochs": 1, "visual_epochs": 1}
    paper = (
        '"Mind the Gap: Preserving and Compensating for the Modality Gap in CLIP-Based Continual Learning", Huang et al., '
        "ICCV 2025, arXiv 2507.09118"
    )
    trains = "LoRA of keys and values in both towers, for a number of epochs found on the first task; a row for each class"
    conformance = (
        "checked: both steps over tasks (losses, rates, gradients, all weights), search of the epochs, features, both parts of "
        "the scores and their combination, predictions, scores of unseen classes; not checked: replay, balanced fine-tuning"
    )
    inputs = "pixels"
    scores_depend_on_list = True
    class_vectors: torch.Tensor
    rows: torch.Tensor
    epochs: torch.Tensor

    def prepare(self) -> None:
        settings = self.settings
        self.written = underscored(self.scenario) if settings.keep_underscores else self.scenario
        every_class = range(len(self.scenario.class_names))
        self.towers = ChangedTowers(self.backbone.clip)
        self.image_lora = AttentionLoRA(blocks(self.towers.clip.visual), settings.rank)
        self.text_lora = AttentionLoRA(blocks(self.towers.clip), settings.rank)
        self.start_lora()
        self.prompt_tokens = self.backbone.tokenize(self.written.prompts(every_class, settings.template))  # (N, 77)
        vectors = self.backbone.classifier(self.written.prompts_of(every_class, settings.template))
        self.register_buffer("class_vectors", vectors)  # t_c (N, d)
        self.register_buffer("rows", torch.zeros(0, vectors.shape[1], dtype=vectors.dtype))  # u_c (n learned, d)
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))  # of every task's step 1
        self.encoded: tuple[weakref.ref, torch.Tensor] | None = None  # the last test batch, and its f(x)

    def start_lora(self) -> None:
        for name, lora in (("image", self.image_lora), ("text", self.text_lora)):
            lora.start(lora.xavier_bound, self.draws, "lora", name)

    def learn(self, task: Task) -> None:
        self.encoded = None
        settings, n = self.settings, len(task.train)
        budget = self.scenario.images_per_task
        if task.index == 0:
            self.epochs.fill_(settings.epochs)
            if settings.epochs == 0:
                trial, budget = budgets_of_phases(self.scenario, [n * settings.max_epochs] * 2)
                self.epochs.fill_(self.search_epochs(task, trial))
                self.start_lora()
        epochs = int(self.epochs)
        rest = replace(self.scenario, images_per_task=budget)  # the trial has had its part
        of_step_1, of_step_2 = budgets_of_phases(rest, [n * epochs, n * settings.visual_epochs])
        self.tune(task, of_step_1, epochs, "batch order")
        self.rows = torch.cat([self.rows, self.fitted_rows(task, of_step_2)])
        self.encode_classes()

    @torch.no_grad()
    def classes_added(self, new: Sequence[int]) -> None:
        self.change_towers()  # LoRA is loaded, and the towers that it makes are no state
        self.encode_classes()

    def encode_classes(self) -> None:
        """The vectors of all classes of the stream, by the text tower as it is."""
        every_class = range(len(self.scenario.class_names))
        prompts = self.written.prompts_of(every_class, self.settings.template)
        self.class_vectors = self.backbone.classifier(prompts, clip=self.towers.clip)

    # -- step 1 ---------------------------------------------------------------------------------------------------

    def change_towers(self) -> ClipModel:
        """The CLIP that LoRA makes as it is now; gradients flow to LoRA."""
        scale, clip = self.settings.alpha / self.settings.rank, self.towers.clip
        self.towers.change(blocks(clip.visual), self.image_lora.changes(scale, scale))
        self.towers.change(blocks(clip), self.text_lora.changes(scale, scale))
        return clip

    def tune(self, task: Task, budget: int | None, epochs: int, purpose: str, enough: Callable[[], bool] | None = None) -> None:
        """Train LoRA on the task's images; `enough` is asked after every epoch whether to stop."""
        settings, n = self.settings, len(task.train)
        optimiser = torch.optim.Adam([*self.image_lora.parameters(), *self.text_lora.parameters()], lr=settings.lr)
        rates = cosine_per_iteration(settings.lr, epochs, settings.lr_floor)  # one for each epoch
        of_an_epoch = math.ceil(n / settings.batch_size)
        descent = Descent(self, optimiser, at_step=f"{task.name}, step", at_end=f"{task.name}, last step")
        batches = pixel_batches(
            self, lambda batch: task.train.pixels(batch.rows), images=n, batch_size=settings.batch_size, epochs=epochs,
            budget=budget, purpose=(purpose, task.index),
        )  # fmt: skip
        for batch, pixels in batches:
            labels = task.train.labels[batch.rows].to(self.device)
            descent.step(self.tuning_loss(pixels, labels, task.classes), rates[batch.epoch])
            if (batch.step + 1) % of_an_epoch == 0 and enough and enough():
                break
        descent.finish()
        with torch.no_grad():
            self.change_towers()

    def tuning_loss(self, pixels: torch.Tensor, labels: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Mean cross-entropy of a batch over these classes; labels (b,) are positions in the stream's class list."""
        clip = self.change_towers()
        images = F.normalize(clip.encode_image(pixels), dim=-1)  # f(x) (b, d)
        texts = F.normalize(encode_tokens(clip, self.prompt_tokens[list(classes)]), dim=-1)  # (C, d)
        return F.cross_entropy(self.backbone.logit_scale * images @ texts.T, labels - classes[0])

    @torch.no_grad()
    def unit_features(self, task: Task) -> torch.Tensor:
        """f(x) (n, d) of the training images by the towers as they are now."""
        clip = self.change_towers()
        parts = [clip.encode_image(pixels) for pixels in task.train.batches("pixels", IMAGES_AT_ONCE)]
        return F.normalize(torch.cat(parts), dim=-1)

    # -- how many epochs ------------------------------------------------------------------------------------------

    def search_epochs(self, task: Task, budget: int | None) -> int:
        """The epochs of a trial on the first task that ended before wrong classes scored too differently; at least 1."""
        if len(task.classes) == 1:
            return 1
        limit = self.settings.gap_tolerance
        changes: list[float] = []  # of N, after every epoch
        with torch.no_grad():
            _, start = self.mean_scores(task, F.normalize(task.train.features(), dim=-1), self.backbone.clip, 0)

        def too_different() -> bool:
            with torch.no_grad():
                _, now = self.mean_scores(task, self.unit_features(task), self.towers.clip, len(changes) + 1)
            changes.append(float((now - start).abs()))
            return changes[-1] > limit * float(start.abs())

        self.tune(task, budget, self.settings.max_epochs, "trial order", too_different)
        kept = sum(change <= limit * float(start.abs()) for change in changes)
        return max(1, kept)

    def mean_scores(
        self, task: Task, images: torch.Tensor, clip: ClipModel, evaluation: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean score s of the right class, and of wrong ones: means over batches, which all count the same.

        images (n, d): unit features of the task's images. Every evaluation has an order of its own, since the smaller last
        batch weighs as much as any other.
        """
        texts = F.normalize(encode_tokens(clip, self.prompt_tokens[: task.classes[-1] + 1]), dim=-1)  # seen classes (C, d)
        scores = self.backbone.logit_scale * images @ texts.T
        right = scores.gather(1, task.train.labels.to(scores.device).unsqueeze(1)).squeeze(1)  # (n,)
        wrong = (scores.sum(dim=1) - right) / (len(texts) - 1)
        order = self.draws.permutation(len(images), "gap order", task.index, evaluation).to(scores.device)
        parts = order.split(self.settings.batch_size)
        of_right, of_wrong = (torch.stack([values[rows].mean() for rows in parts]).mean() for values in (right, wrong))
        return of_right, of_wrong

    # -- step 2 ---------------------------------------------------------------------------------------------------

    def fitted_rows(self, task: Task, budget: int | None) -> torch.Tensor:
        """u_c (C, d) of the task's classes."""
        settings, n, labels = self.settings, len(task.train), task.train.labels
        features = self.unit_features(task)
        groups = by_class(features, labels, task.classes, self.scenario.class_names)
        rows = torch.nn.Parameter(torch.stack([group.mean(dim=0) for group in groups]))
        optimiser = torch.optim.Adam([rows], lr=settings.visual_lr)
        length: dict[str, Any] = {"images": n, "batch_size": settings.visual_batch_size, "epochs": settings.visual_epochs}
        rates = cosine_per_iteration(settings.visual_lr, steps_within_budget(**length, budget=budget), settings.lr_floor)
        descent = Descent(self, optimiser, at_end=f"{task.name}, last step of its rows")
        for batch in training_batches(self.draws, **length, budget=budget, purpose=("visual order", task.index)):
            cosines = features[batch.rows.to(self.device)] @ F.normalize(rows, dim=-1).T  # (b, C)
            loss = F.cross_entropy(cosines, labels[batch.rows].to(self.device) - task.classes[0])
            descent.step(loss, rates[batch.step])
        descent.finish()
        self.check_finite(rows, f"{task.name}, rows of its classes")
        return rows.detach()

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        features = self.test_features(batch)
        texts = self.text_scores(features, classes)
        if any(c >= len(self.rows) for c in classes):
            return texts
        return self.combined(texts.softmax(dim=-1), self.cosines(features, classes)).log()

    def test_features(self, batch: torch.Tensor) -> torch.Tensor:
        """f(x) (b, d); once for all lists of classes that are asked for with the same batch."""
        if self.encoded is None or self.encoded[0]() is not batch:
            features = F.normalize(self.change_towers().encode_image(batch), dim=-1)
            self.encoded = weakref.ref(batch), features
        return self.encoded[1]

    def text_scores(self, features: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """s (b, C)"""
        return self.backbone.logit_scale * features @ self.class_vectors[list(classes)].T

    def cosines(self, features: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """c (b, C)"""
        return features @ F.normalize(self.rows[list(classes)], dim=-1).T

    def combined(self, p: torch.Tensor, cosines: torch.Tensor) -> torch.Tensor:
        """Scores (b, C) of learned classes: they add up to 1."""
        settings = self.settings
        text = p.softmax(dim=-1) if settings.text_softmax_twice else p
        weighted = settings.text_weight * text + settings.visual_weight * cosines.softmax(dim=-1)
        return weighted / (settings.text_weight + settings.visual_weight)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        self.encoded = None
        return super().load_state_dict(state_dict, strict=strict, assign=assign)
