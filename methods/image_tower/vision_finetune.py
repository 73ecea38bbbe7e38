"""Fine-tuning of the image tower under a linear head, with stored images: the common part of iCaRL, ER and DER++."""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench import Method, Range, Split, Task, setting
from bench.clip.image_tower import pooled_images
from methods.shared.batches import Batch
from methods.shared.descent import Descent
from methods.shared.memory import exemplars_per_class
from methods.shared.pixels import check_crop_scale, mirror, mirrored_half, pixel_batches, random_crops

WITHOUT_BUDGET = 20  # images a class, as CLAP4CLIP's replay methods have


@dataclass(frozen=True)
class VisionFineTuneSettings:
    epochs: int = setting(20, "passes over the task's images")
    batch_size: int = setting(128, "images per step")
    learning_rate: float = setting(
        1e-3, "rate of SGD for the head, and for the tower times tower_rate", search=Range(5e-4, 0.3, log=True)
    )
    tower_rate: float = setting(1.0, "the tower's rate as a fraction of the head's", search=Range(0.02, 1.0, log=True))
    momentum: float = setting(0.9, "of SGD")
    weight_decay: float = setting(2e-4, "of SGD")
    mirrored_view: bool = setting(True, "train on the plain and the mirrored image, one of them drawn per image and epoch")
    exemplars: int = setting(
        0, "stored images per class; 0: what the protocol allows, 20 where it allows none", "CLAP4CLIP's budget"
    )
    crop_scale: float = setting(
        1.0, "train on random crops of at least this share of an image's area; 1: no crops", added_later=True
    )

    def __post_init__(self):
        check_crop_scale(self.crop_scale)


class VisionFineTune(Method):
    """The image tower f and a linear head W, b over all classes, all of them trained; f(x) is the pooled feature (b, D).

    There is no text side: classes that have not been learned cannot be scored. Stored images are kept as rows of earlier
    tasks' training images and read again, which gives the same pixels; `exemplar_bytes` counts them as images.
    """

    inputs = "pixels"
    zero_shot = False
    learned: torch.Tensor

    def prepare(self) -> None:
        self.visual = copy.deepcopy(self.backbone.clip.visual).requires_grad_(True)
        if self.visual.proj is not None:
            self.visual.proj.requires_grad_(False)  # the projection into the space shared with text is not used
        n = len(self.scenario.class_names)
        with self.draws.initialising("head"):
            self.head = torch.nn.Linear(self.backbone.pooled_width, n)
        self.register_buffer("learned", torch.zeros(n, dtype=torch.bool))
        self.seen_splits: list[Split] = []  # filled by `grow`, which a resume repeats

    def grow(self, task: Task) -> None:
        self.seen_splits.append(task.train)

    @property
    def seen_images(self) -> Split:
        """The training images of all tasks so far, one after another."""
        return Split.concatenate(self.seen_splits)

    def place_of_task(self, index: int) -> int:
        """Where the images of a task begin among `seen_images`."""
        return sum(len(split) for split in self.seen_splits[:index])

    @abstractmethod
    def learn(self, task: Task) -> None: ...

    def train_on(self, task: Task, rows_of_pool: torch.Tensor) -> None:
        """SGD on a pool of `seen_images`, with a new optimiser and constant rates unless `factor` says otherwise."""
        settings, pool = self.settings, self.seen_images
        n = len(rows_of_pool)
        tower = [weights for weights in self.visual.parameters() if weights.requires_grad]
        optimiser = torch.optim.SGD(
            [{"params": list(self.head.parameters())}, {"params": tower}],
            lr=settings.learning_rate, momentum=settings.momentum, weight_decay=self.weight_decay(task),
        )  # fmt: skip
        descent = Descent(self, optimiser, at_end=f"{task.name}, last step")

        def read(batch: Batch) -> torch.Tensor:
            step, epoch, places = batch
            pixels = self.pixels(pool, rows_of_pool[places], self.mirrored(n, task.index, epoch)[places])
            return random_crops(pixels, settings.crop_scale, self.draws, "crop", task.index, epoch, step)

        batches = pixel_batches(
            self, read, images=n, batch_size=settings.batch_size, epochs=settings.epochs,
            budget=self.scenario.images_per_task, purpose=("batch order", task.index),
        )  # fmt: skip
        for (step, epoch, places), pixels in batches:
            rows = rows_of_pool[places]
            rate = self.rate(task, epoch)
            descent.step(self.loss(pixels, pool.labels[rows].to(self.device), task, step), rate, rate * settings.tower_rate)
            self.after_step(rows, task, step)
        descent.finish()

    @abstractmethod
    def loss(self, pixels: torch.Tensor, labels: torch.Tensor, task: Task, step: int) -> torch.Tensor:
        """Mean loss of a batch; labels (b,) in the stream's class list."""

    def after_step(self, rows: torch.Tensor, task: Task, step: int) -> None:
        """Called after every update with the rows of its images among `seen_images`."""

    def rate(self, task: Task, epoch: int) -> float:
        return self.settings.learning_rate

    def weight_decay(self, task: Task) -> float:
        return self.settings.weight_decay

    def pixels(self, images: Split, rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        """(b, 3, size, size) of the chosen rows, some of them mirrored (b,)."""
        return mirror(images.pixels(rows), mirrored)

    def mirrored(self, n: int, *purpose: object) -> torch.Tensor:
        """(n,) which images are mirrored: half of them."""
        if not self.settings.mirrored_view:
            return torch.zeros(n, dtype=torch.bool)
        return mirrored_half(n, self.draws, "view", *purpose)

    def pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        return pooled_images(self.visual, pixels)

    @torch.no_grad()
    def pooled_of(self, images: Split, rows: torch.Tensor, at_once: int = 256) -> torch.Tensor:
        """(n, D) features of the chosen images by the tower as it is now."""
        return torch.cat([self.pooled(images.pixels(part)) for part in rows.split(at_once)])

    def exemplar_budget(self, classes_seen: int) -> int:
        """Stored images per class."""
        if self.settings.exemplars:
            return self.settings.exemplars
        if self.scenario.exemplars_per_class is None and self.scenario.exemplars_total is None:
            return WITHOUT_BUDGET
        return exemplars_per_class(self.scenario, classes_seen)

    def wanted(self, classes: Sequence[int]) -> torch.Tensor:
        """The classes as a tensor, if all of them have been learned."""
        wanted = torch.as_tensor(list(classes), device=self.device)
        if not bool(self.learned[wanted].all()):
            raise LookupError("a linear head cannot score classes that it has not learned")
        return wanted

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        return self.head(self.pooled(batch))[:, self.wanted(classes)]
