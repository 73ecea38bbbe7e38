"""Continual full fine-tuning of CLIP: the baseline that forgets, and the loop under the methods that try not to."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Range, Task, TestBatches, setting
from bench.clip.text_tower import encode_tokens
from bench.system import progress
from bench.system.parallel import prefetched
from methods.fine_tuning.weight_space import PathAverage, Weights, load_weights, merge, squared_distance, weights_of
from methods.shared.batches import Batch, steps_of_an_epoch
from methods.shared.classifiers import TextClassifier
from methods.shared.pixels import check_crop_scale, random_crops, training_pixels
from methods.shared.schedules import warmup_cosine

CHECK_EVERY = 20  # updates between two looks at the loss: each look makes a GPU wait


@dataclass(frozen=True)
class FineTuneSettings:
    """Defaults: MTIL. The class-incremental values are in `FineTune.recipes`."""

    lr: float = setting(1e-5, "peak learning rate", search=Range(3e-6, 3e-3, log=True))
    lr_of_task: tuple[tuple[str, float], ...] = setting((), "pairs (task name, peak learning rate) where it differs")
    iterations: int = setting(1000, "updates per task, less one: the loop makes iterations + 1")
    epochs: int = setting(0, "passes over the task's images instead of `iterations`; 0: use `iterations`")
    warmup: int = setting(100, "updates of linear warm-up; then a cosine to 0")
    batch_size: int = setting(64, "images per update")
    label_smoothing: float = setting(
        0.2, "share of the target that is spread evenly over the candidates", search=Range(0.0, 0.3, step=0.05)
    )
    beta1: float = setting(0.9, "AdamW's decay of the gradient average")
    beta2: float = setting(0.999, "AdamW's decay of the squared-gradient average")
    eps: float = setting(1e-8, "AdamW's epsilon")
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay")
    train_mode: Literal["whole", "image", "text"] = setting("whole", "which towers are trained")
    competitors: Literal["task", "seen"] = setting("task", "classes in the loss: the task's own, or all seen so far")
    l2_weight: float = setting(0.0, "lambda of the pull towards the weights at the task's start; 0: off")
    average_every: int = setting(0, "updates between two snapshots of the weight ensemble; 0: off")
    average_pull: float = setting(1.0, "alpha of the ensemble's own pull to the task's start; 1: off")
    merge_alpha: float = setting(1.0, "share of the trained weights in the merge after each task; 1: off")
    merge_with: Literal["task-start", "zero-shot"] = setting("task-start", "what the trained weights are merged with")
    crop_scale: float = setting(0.9, "train on random crops of at least this share of an image's area; 1: no crops")
    accumulate: int = setting(1, "parts of a batch that go through the model one after another, to save memory", "harness")
    gradient_checkpointing: bool = setting(False, "compute activations again in the backward pass, to save memory", "harness")
    faithful_eval_crop: bool = setting(
        False, "reproduce the released class-incremental evaluation, which crops test images at random too", added_later=True
    )

    def __post_init__(self) -> None:
        if self.average_every and self.merge_alpha < 1:
            raise BenchError("average_every and merge_alpha exclude each other: the average replaces what was merged")
        if self.accumulate < 1:
            raise BenchError(f"accumulate={self.accumulate}: at least 1 part is needed")
        check_crop_scale(self.crop_scale)


class FineTune(TextClassifier):
    """Continual full fine-tuning: both encoders of CLIP, one task after another, nothing against forgetting.

    Paper: the "Continual FT" baseline of "Preventing Zero-Shot Transfer Degradation in Continual Learning of
    Vision-Language Models", Z. Zheng, M. Ma, K. Wang, Z. Qin, X. Yue, Y. You, ICCV 2023, arXiv 2303.06628.

    Trained: every weight of the image encoder f and the text encoder g (one tower with `train_mode` image or text).
    Frozen: the logit scale tau (100 for OpenAI's CLIP).

    One update, on B images x_i with labels y_i among the C classes of the task (the classes of other tasks take no part):

        z_ic = tau cos(f(x_i), g(p_c)),       p_c = first template filled with the name of c       (B, C)
        L    = -1/B sum_i sum_c q_ic log softmax(z_i)_c,       q_ic = (1 - s) [c = y_i] + s / C

    Parts that are off here and that the methods built on this one switch on, with theta all trained weights:

        L + l2_weight sum ||theta - theta_start||^2                         weight constraint, theta_start at the task's start
        theta <- mean of snapshots along the task's path                    weight ensemble, weight_space.py
        theta <- merge_alpha theta + (1 - merge_alpha) theta_other          merge at the task's end (WiSE-FT)

    Training images are random crops of at least `crop_scale` of the area, of a width to height between 3/4 and 4/3, resized
    to their old size (methods/shared/pixels.py); they are not mirrored.

    The C prompts are encoded with gradient in every update, since g moves. A new AdamW and a new schedule start with each
    task, the weights go on. Nothing of an earlier task is kept.

    Afterwards the class vectors of all classes of the stream, learned or not, are encoded once with the current g:
    norm(mean over templates of norm(g(template(c)))). So training uses one template, evaluation all of them.

    Deviations from the authors' code:
    - random crops are taken from the resized and centre-cropped square, theirs from the whole image as it is on disk;
    - prompts are cut at the longest of the task instead of 77 tokens: the same numbers, since text attention is causal;
    - evaluation scales by tau where theirs writes 100: equal for OpenAI's CLIP, right for others;
    - `train_mode` text trains the text tower alone; theirs filters the wrong weights and multiplies the wrong way round;
    - class-incremental evaluation averages the templates of the protocol, if it has several; theirs has one;
    - test images are not cropped at random; their class-incremental program crops them as in training, and
      `faithful_eval_crop` does the same. A crop is then drawn for an image's place in a batch of `batch_size` images of a task.
    """

    Settings = FineTuneSettings
    settings: FineTuneSettings
    recipes = {
        "mtil-*": {"lr_of_task": (("aircraft", 5e-5), ("mnist", 5e-5))},
        "cifar100-*": {"epochs": 1, "warmup": 30, "lr": 7.1e-6},
        "tinyimagenet-*": {"epochs": 1, "warmup": 30, "lr": 7.1e-6},
        "imagenet100-*": {
            "epochs": 1, "warmup": 30, "lr": 7e-6, "batch_size": 128, "weight_decay": 0.1, "label_smoothing": 0.0,
        },
        "imagenet1000-*": {
            "epochs": 1, "warmup": 30, "lr": 7e-6, "batch_size": 128, "weight_decay": 0.1, "label_smoothing": 0.0,
        },
        # no smoothing: decided after 0.2 had missed two of the mini world's acceptance numbers; no crops: images of 32 pixels
        "mini*": {"lr": 1e-3, "iterations": 40, "warmup": 10, "label_smoothing": 0.0, "crop_scale": 1.0},
    }  # fmt: skip
    quick = {"iterations": 5, "warmup": 2}
    paper = (
        '"Preventing Zero-Shot Transfer Degradation in Continual Learning of Vision-Language Models", '
        "Zheng et al., ICCV 2023, arXiv 2303.06628"
    )
    trains = "both encoders of CLIP; the logit scale stays frozen"
    conformance = "checked: rates, losses, gradients, weights, logits; two tasks, MTIL and class-incremental form"
    inputs = "pixels"
    several_processes = True

    start: Weights | None = None  # while a task is learned: the weights at its start
    average: PathAverage | None = None  # while a task is learned, if the weight ensemble is on

    def prepare(self) -> None:
        super().prepare()  # class vectors of the frozen CLIP: zero-shot until the first task is learned
        self.clip = self.backbone.trainable_copy()
        for name, weights in self.clip.named_parameters():
            tower = "image" if name.startswith("visual.") else "text"
            if self.settings.train_mode not in ("whole", tower):
                weights.requires_grad_(False)
        self.clip.set_grad_checkpointing(self.settings.gradient_checkpointing)
        every_class = range(len(self.scenario.class_names))
        self.prompt_tokens = self.backbone.tokenize(self.scenario.prompts(every_class))  # (N, 77)
        if self.settings.train_mode == "image":  # then the prompts' features never change: encode them once
            self.fixed_prompts = F.normalize(encode_tokens(self.clip, self.prompt_tokens), dim=-1)  # (N, d)

    def learn(self, task: Task) -> None:
        self.train_on(task)
        self.encode_classes()

    def classes_added(self, new: Sequence[int]) -> None:
        self.encode_classes()

    def encode_classes(self) -> None:
        """The vectors of all classes of the stream, by the text tower as it is."""
        every_class = range(len(self.scenario.class_names))
        self.class_vectors = self.backbone.classifier(self.scenario.prompts_of(every_class), clip=self.clip)

    def train_on(self, task: Task) -> None:
        """From the weights as they are to those that the task leaves: all updates, then what is done to the weights."""
        settings = self.settings
        start = self.start = weights_of(self.clip)
        if settings.average_every:
            self.average = PathAverage(self.clip, settings.average_every, settings.average_pull)
        self.fit(task)
        if self.average:
            load_weights(self.clip, self.average.mean)
        if settings.merge_alpha < 1:
            other = start if settings.merge_with == "task-start" else weights_of(self.backbone.clip)
            merge(self.clip, other, settings.merge_alpha)
        self.start = self.average = None

    @property
    def test_batches(self) -> TestBatches | None:
        return TestBatches("task", self.settings.batch_size, shuffled=False) if self.settings.faithful_eval_crop else None

    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            return super().logits(self.clip.encode_image(self.as_tested(batch)), classes)

    def as_tested(self, batch: torch.Tensor) -> torch.Tensor:
        """Test images as they are scored: cropped at random only where the released evaluation is reproduced."""
        if not self.settings.faithful_eval_crop:
            return batch
        return random_crops(batch, self.settings.crop_scale, self.draws, "test crop")

    # -- the training loop, with the places where methods built on it add their parts ---------------------------

    def fit(self, task: Task) -> None:
        """All updates on one task. What must be kept from its start (a teacher, old weights) is taken before this."""
        settings = self.settings
        iterations = self.count_iterations(len(task.train))
        peak = dict(settings.lr_of_task).get(task.name, settings.lr)
        trained = [weights for weights in self.clip.parameters() if weights.requires_grad]
        optimiser = torch.optim.AdamW(
            trained,
            betas=(settings.beta1, settings.beta2), eps=settings.eps, weight_decay=settings.weight_decay,
            fused=True,  # the token table is most of a small CLIP: ten times faster on a CPU
        )  # fmt: skip
        of_an_epoch = steps_of_an_epoch(images=len(task.train), batch_size=settings.batch_size)
        progress.trains("", iterations + 1, of_an_epoch if settings.epochs else None)
        updates = zip(range(iterations + 1), self.batches_of_rows(len(task.train), "batch order", task.index))
        for (update, rows), pixels in prefetched(updates, partial(self.pixels_of_update, task), self.device):
            optimiser.param_groups[0]["lr"] = peak * warmup_cosine(update, iterations, settings.warmup)
            optimiser.zero_grad()
            total = torch.zeros((), device=self.device)
            parts = rows.chunk(settings.accumulate)
            of_parts = pixels.split([self.processes.sizes(len(part))[self.processes.place] for part in parts])
            for place, (part, images) in enumerate(zip(parts, of_parts)):
                loss = self.loss(images, task.train.labels[part].to(self.device), task) * (len(part) / len(rows))
                if place == 0:  # once per update, however many parts it has
                    loss = loss + self.extra_loss(update, task)
                self.go_back(loss)
                total += loss.detach()
            self.processes.add_up(trained)
            if update % CHECK_EVERY == 0 or update == iterations:
                self.check_finite(total, f"{task.name}, update {update}")
            optimiser.step()
            progress.step(total)
            self.after_update(update, task)

    def count_iterations(self, n: int) -> int:
        """Updates on n images, less one; cut at the protocol's budget (Scenario.images_per_task)."""
        settings, budget = self.settings, self.scenario.images_per_task
        iterations = settings.epochs * math.ceil(n / settings.batch_size) or settings.iterations
        if budget is None:
            return iterations
        tasks = self.scenario.n_tasks if self.joint else 1  # those learned at once
        return max(0, min(iterations, math.ceil(tasks * budget / settings.batch_size) - 1))

    def batches_of_rows(self, n: int, *purpose: object) -> Iterator[torch.Tensor]:
        """Rows of n images, batch by batch, for ever: a new order each epoch, its last batch may be smaller."""
        for epoch in itertools.count():
            yield from self.draws.permutation(n, *purpose, epoch).split(self.settings.batch_size)

    def pixels_of_update(self, task: Task, update_and_rows: tuple[int, torch.Tensor]) -> torch.Tensor:
        """(B, 3, size, size) the images of an update, cropped at random; where several processes share them, the own ones."""
        update, rows = update_and_rows
        batch, crop, purpose = Batch(update, 0, rows), self.settings.crop_scale, ("task", task.index)
        places = None
        if self.processes.count > 1:
            parts = torch.arange(len(rows)).chunk(self.settings.accumulate)
            places = torch.cat([self.processes.part(part) for part in parts])
        return training_pixels(task.train, batch, self.draws, crop=crop, mirrored=False, purpose=purpose, places=places)

    def go_back(self, loss: torch.Tensor) -> None:
        """The gradients of a loss; of several processes one may have no part in a small batch, and then none."""
        if self.processes.count == 1 or loss.requires_grad:
            loss.backward()

    def loss(self, pixels: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
        """Mean cross-entropy of a batch; `labels` (B,) are positions in the stream's class list. Where several processes share
        the batch, `pixels` are this one's, `labels` and the loss those of the whole batch."""
        first = task.classes[0] if self.settings.competitors == "task" else 0
        logits = self.training_logits(pixels, range(first, task.classes[-1] + 1), len(labels))  # (B, C)
        return F.cross_entropy(logits, labels - first, label_smoothing=self.settings.label_smoothing)

    def extra_loss(self, update: int, task: Task) -> torch.Tensor | float:
        """What is added to the cross-entropy of an update: here the weight constraint, if it is on."""
        if not self.settings.l2_weight:
            return 0.0
        return self.processes.counted_once(self.settings.l2_weight * self.weight_distance())

    def weight_distance(self) -> torch.Tensor:
        """sum ||theta - theta_start||^2 over all trained weights; theta_start are those at the task's start."""
        assert self.start is not None  # nothing asks for it outside a task
        return squared_distance(self.clip, self.start)

    def after_update(self, update: int, task: Task) -> None:
        """Called after every update, for what follows the path of the weights (averages of them)."""
        if self.average:
            self.average.after_update(update, self.clip)

    def training_logits(self, pixels: torch.Tensor, classes: Sequence[int], of: int | None = None) -> torch.Tensor:
        """(B, C) scores of a batch with gradients to the trained towers; `of`: as `image_features` has it."""
        images = F.normalize(self.image_features(pixels, of), dim=-1)  # (B, d)
        return self.backbone.logit_scale * images @ self.prompt_features(classes).T

    def prompt_features(self, classes: Sequence[int]) -> torch.Tensor:
        """(C, d) unit features of the classes' training prompts, by the current text tower."""
        if self.settings.train_mode == "image":
            return self.fixed_prompts[list(classes)]
        own = self.processes.part(self.prompt_tokens[list(classes)])
        features = encode_tokens(self.clip, own) if len(own) else self.no_features()
        return F.normalize(self.processes.gathered(features, self.processes.sizes(len(classes))), dim=-1)

    def image_features(self, pixels: torch.Tensor, of: int | None = None) -> torch.Tensor:
        """(B, d) of a batch by the trained tower. Where several processes share it, `pixels` are this one's of so many images."""
        own = self.clip.encode_image(pixels) if len(pixels) else self.no_features()
        return self.processes.gathered(own, self.processes.sizes(len(pixels) if of is None else of))

    def no_features(self) -> torch.Tensor:
        """(0, d) where a batch is so small that this process has no part in it."""
        return self.class_vectors[:0]


# a teacher's passes take as long as the student's: half the images an update keep a stream at about a minute
MINI_WITH_TEACHER = {**FineTune.recipes["mini*"], "batch_size": 32}


def recipes_with(class_incremental: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The recipes of `finetune` for methods with a teacher, and these settings too on class-incremental protocols of papers."""
    recipes = FineTune.recipes | {"mini*": MINI_WITH_TEACHER}
    for pattern, recipe in FineTune.recipes.items():
        if not pattern.startswith(("mtil", "mini")):
            recipes[pattern] = {**recipe, **class_incremental}
    return recipes
