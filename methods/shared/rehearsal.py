"""The continual form in which CLAP4CLIP's tables report prompt and adapter tuning: each task with the exemplars of earlier ones.

A task's images and all exemplars form one shuffled set; the trained part of the model goes through it for some epochs, under
a cosine schedule that starts anew with each task. Then the exemplars are updated and, if asked for, the model is tuned for
some more epochs on them alone, which are balanced over classes, at a fraction of the rate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from bench import BenchError, Range, Split, Task, setting
from bench.system import progress
from methods.shared.batches import Batch, budgets_of_phases, steps_within_budget
from methods.shared.classifiers import TextClassifier
from methods.shared.memory import ExemplarMemory, exemplars_per_class
from methods.shared.pixels import mirror, mirrored_half, pixel_batches
from methods.shared.schedules import cosine_per_iteration
from methods.shared.selection import smallest_of_each_class

CLAP = "CLAP4CLIP's continual protocol"


@dataclass(frozen=True)
class TuningSettings:
    """How the trained part is tuned; methods add what they train, and their own defaults."""

    label_space: Literal["seen", "present"] = setting(
        "seen", "classes that compete in the loss: all seen so far, or those with an image in the training set", CLAP
    )
    epochs: int = setting(5, "passes over the task's images and the exemplars", CLAP, search=Range(1, 15))
    batch_size: int = setting(32, "images per step", CLAP)
    optimiser: Literal["sgd", "adamw"] = setting("sgd", "sgd or adamw", CLAP)
    learning_rate: float = setting(1e-3, "peak learning rate", CLAP, search=Range(1e-4, 0.1, log=True))
    momentum: float = setting(0.0, "of SGD", CLAP)
    weight_decay: float = setting(0.0, "of the trained part", CLAP)
    cosine_floor: float = setting(1e-3, "final rate as a fraction of the peak; 1 keeps the rate constant", CLAP)
    mirrored_view: bool = setting(True, "train on the plain and the mirrored image, one of them drawn per image and epoch", CLAP)

    def __post_init__(self):
        if self.batch_size < 1:
            raise BenchError(f"batch_size={self.batch_size}: at least 1 image per step is needed")
        self.refuse_negative("epochs", "learning_rate", "momentum", "weight_decay", "cosine_floor")

    def refuse_negative(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 0:
                raise BenchError(f"{name}={getattr(self, name)}: choose a value of 0 or more")


@dataclass(frozen=True)
class RehearsalSettings(TuningSettings):
    """With the passes over the exemplars alone."""

    balanced_epochs: int = setting(0, "further passes over the exemplars alone, from the second task on", CLAP)
    balanced_rate: float = setting(0.1, "peak rate of these passes, as a fraction of learning_rate", CLAP)

    def __post_init__(self):
        super().__post_init__()
        self.refuse_negative("balanced_epochs", "balanced_rate")


@dataclass(frozen=True)
class TrainingSet:
    """Labels (n,), and the images of chosen rows (b,), mirrored or not (b,): (b, d) features or (b, 3, size, size) pixels."""

    labels: torch.Tensor
    images: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Rehearsal(TextClassifier):
    """A method that is tuned by cross-entropy on the task's images and the exemplars of earlier classes.

    Subclasses give `text_of`, `loss` and `store_class_vectors`; every parameter that requires a gradient is trained. `seen`
    are the classes learned so far, in the order of arrival. Exemplars are the first images of each class, as features (all
    views) or, where `inputs` is "pixels", as uint8 images of the backbone's size.
    """

    on_embeddings = {"mirrored_view": False}
    seen: torch.Tensor
    memory: ExemplarMemory

    @property
    def needs_if_frozen(self) -> tuple[str, ...]:
        """`needs` of a subclass that trains nothing inside the towers: embeddings of the plain views are all that it takes."""
        return ("towers",) if self.settings.mirrored_view else ("features", "texts")

    def prepare(self) -> None:
        super().prepare()
        self.register_buffer("seen", torch.zeros(0, dtype=torch.long))
        if self.inputs == "pixels":
            size = self.backbone.image_size
            self.memory = ExemplarMemory(size, size, 3, dtype=torch.uint8)
        else:
            self.memory = ExemplarMemory(len(self.views), self.backbone.embedding_width)

    # -- what a subclass gives ----------------------------------------------------------------------------------

    def start_task(self, task: Task) -> None:
        """Before a task's training; its classes are already in `seen`."""

    def text_of(self, classes: torch.Tensor) -> Any:
        """What the loss needs of the competing classes (c,) and what training does not change: made once, given to `loss`."""
        raise NotImplementedError

    def loss(self, text: Any, images: torch.Tensor, columns: torch.Tensor, *purpose: object) -> torch.Tensor:
        """The loss of a batch whose labels are `columns` (b,) of the competing classes; draws are made for `purpose`."""
        raise NotImplementedError

    def store_class_vectors(self) -> None:
        """After a task: what `logits` needs of the text side."""

    # -- learning -----------------------------------------------------------------------------------------------

    @property
    def views(self) -> Sequence[str]:
        return ("plain", "mirrored") if self.settings.mirrored_view else ("plain",)

    def learn(self, task: Task) -> None:
        self.seen = torch.cat([self.seen, torch.tensor(task.classes, device=self.device)])
        self.start_task(task)
        self.tune(task)
        with torch.no_grad():
            self.store_class_vectors()

    def tune(self, task: Task) -> None:
        """Train on the task and the exemplars, update these, and train on them alone."""
        settings = self.settings
        everything = self.task_and_exemplars(task.train)
        per_class = exemplars_per_class(self.scenario, len(self.seen))
        kept = int(everything.labels.bincount().clamp(max=per_class).sum())  # exemplars after this task
        balanced = settings.balanced_epochs * kept if task.index > 0 else 0
        first, second = budgets_of_phases(self.scenario, [settings.epochs * len(everything.labels), balanced])
        self.fit(everything, settings.epochs, settings.learning_rate, task.index, first)
        self.remember(task.train)
        if balanced:
            rate = settings.balanced_rate * settings.learning_rate
            self.fit(self.exemplars(), settings.balanced_epochs, rate, task.index, second, phase="balanced ")

    def fit(
        self, training: TrainingSet, epochs: int, peak: float, task: int, budget: int | None = None, phase: str = ""
    ) -> list[float]:
        """Tune on a training set, in a phase's budget of images (None: the protocol's). Returns the rate of every step."""
        settings, n = self.settings, len(training.labels)
        budget = self.scenario.images_per_task if budget is None else budget
        classes = self.seen if settings.label_space == "seen" else training.labels.unique()
        column = torch.full((len(self.scenario.class_names),), -1, device=self.device)
        column[classes] = torch.arange(len(classes), device=self.device)
        text = self.text_of(classes)
        optimiser = self._optimiser(peak)
        steps = steps_within_budget(images=n, batch_size=settings.batch_size, epochs=epochs, budget=budget)
        rates = self.schedule(peak, steps, phase)
        total = torch.zeros((), device=self.device)

        def read(batch: Batch) -> torch.Tensor:
            return training.images(batch.rows, self._mirrored(n, f"{phase}view", task, batch.epoch)[batch.rows])

        batches = pixel_batches(
            self, read, images=n, batch_size=settings.batch_size, epochs=epochs, budget=budget,
            purpose=(f"{phase}batch order", task),
        )  # fmt: skip
        for (step, _, rows), images in batches:
            columns = column[training.labels[rows.to(self.device)]]
            optimiser.param_groups[0]["lr"] = rates[step]
            loss = self.loss(text, images, columns, phase, task, step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach()
            progress.step(loss.detach())
        optimiser.zero_grad()
        self.check_finite(total, f"{type(self).__name__}, task {task}")
        return rates

    def schedule(self, peak: float, steps: int, phase: str) -> list[float]:
        """The learning rate of every step."""
        return cosine_per_iteration(peak, steps, self.settings.cosine_floor)

    def _mirrored(self, n: int, *purpose: object) -> torch.Tensor:
        """(n,) which images are mirrored: half of them, drawn anew for every epoch."""
        if not self.settings.mirrored_view:
            return torch.zeros(n, dtype=torch.bool)
        return mirrored_half(n, self.draws, *purpose)

    def _optimiser(self, rate: float) -> torch.optim.Optimizer:
        settings = self.settings
        trained = [weights for weights in self.parameters() if weights.requires_grad]
        if settings.optimiser == "adamw":
            return torch.optim.AdamW(trained, lr=rate, weight_decay=settings.weight_decay)
        return torch.optim.SGD(trained, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)

    # -- training sets and exemplars ----------------------------------------------------------------------------

    def task_and_exemplars(self, train: Split) -> TrainingSet:
        """The task's images, then the exemplars."""
        labels = torch.cat([train.labels.to(self.device), self.memory.labels])
        if self.inputs == "features":
            return self.feature_set(torch.cat([self._features(train), self.memory.images]), labels)

        def pixels(rows: torch.Tensor) -> torch.Tensor:
            new, old = rows[rows < len(train)], rows[rows >= len(train)] - len(train)
            images = torch.cat([part for part in (self._pixels_of(train, new), self._exemplar_pixels(old)) if len(part)])
            place = torch.cat([torch.nonzero(rows < len(train)), torch.nonzero(rows >= len(train))]).flatten()
            return images[place.argsort().to(self.device)]

        return self._pixel_set(pixels, labels)

    def exemplars(self) -> TrainingSet:
        if self.inputs == "features":
            return self.feature_set(self.memory.images, self.memory.labels)
        return self._pixel_set(self._exemplar_pixels, self.memory.labels)

    def remember(self, train: Split) -> None:
        """Update the exemplars: as many of each class as the protocol allows now, so old classes may shrink."""
        per_class = exemplars_per_class(self.scenario, len(self.seen))
        # only those that can stay are read: a task's pixels may not fit into memory
        rows = torch.from_numpy(smallest_of_each_class(np.arange(len(train)), train.labels.numpy(), per_class))
        if self.inputs == "features":
            images = self._features(train)[rows.to(self.device)]
        else:
            images = self.backbone.to_uint8(self._pixels_of(train, rows))
        self.memory.update(images, train.labels[rows].to(self.device), per_class)

    def exemplar_bytes(self) -> int:
        return self.memory.bytes

    def _features(self, train: Split) -> torch.Tensor:
        return torch.stack([train.features(view) for view in self.views], dim=1)  # (n, views, d)

    def feature_set(self, features: torch.Tensor, labels: torch.Tensor) -> TrainingSet:
        return TrainingSet(labels, lambda rows, mirrored: features[rows.to(self.device), mirrored.long().to(self.device)])

    def _pixel_set(self, pixels: Callable[[torch.Tensor], torch.Tensor], labels: torch.Tensor) -> TrainingSet:
        def images(rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
            return mirror(pixels(rows), mirrored)

        return TrainingSet(labels, images)

    def _pixels_of(self, train: Split, rows: torch.Tensor) -> torch.Tensor:
        size = self.backbone.image_size
        return train.pixels(rows) if len(rows) else torch.zeros(0, 3, size, size, device=self.device)

    def _exemplar_pixels(self, rows: torch.Tensor) -> torch.Tensor:
        size = self.backbone.image_size
        images = self.memory.images[rows.to(self.device)].cpu().numpy()  # (b, size, size, 3)
        return self.backbone.preprocess(images) if len(rows) else torch.zeros(0, 3, size, size, device=self.device)
