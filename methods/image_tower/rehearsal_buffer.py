"""Experience replay and dark experience replay (ER, DER++): a reservoir of past images beside every batch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import Range, Task, setting
from methods.image_tower.vision_finetune import VisionFineTune, VisionFineTuneSettings

MAMMOTH = "mammoth"


@dataclass(frozen=True)
class ReplaySettings(VisionFineTuneSettings):
    epochs: int = setting(5, "passes over the task's images", "harness")
    batch_size: int = setting(32, "images per step", MAMMOTH)
    replay_batch_size: int = setting(32, "images drawn from the reservoir in every step", MAMMOTH)
    tower_rate: float = setting(0.1, "the tower's rate as a fraction of the head's", "harness", search=Range(0.02, 1.0, log=True))
    momentum: float = setting(0.0, "of SGD", MAMMOTH)
    weight_decay: float = setting(0.0, "of SGD", MAMMOTH)


class ExperienceReplay(VisionFineTune):
    """ER: every batch is joined by one from a reservoir of past images.

    Paper: R. Ratcliff 1990, A. Robins 1995; reservoir form: "On Tiny Episodic Memories in Continual Learning",
    A. Chaudhry et al., 2019, arXiv 1902.10486; code: aimagelab/mammoth.

    Trained: the image tower and a linear head over all N classes of the stream; none of its logits is masked.

        L = mean over the B images of the batch and B' of the reservoir of CE(z, y)

    Reservoir of capacity |M|: image number n (counted from 0, over all epochs and tasks) fills slot n while n < |M|;
    afterwards r is drawn uniformly from 0 .. n, and the image replaces slot r if r < |M|. Images are offered after each
    update, in every epoch anew. B' distinct slots are drawn per step; the reservoir is empty for the first step only.

    |M| is the protocol's budget for all classes of the stream, 20 a class where it has none.

    Deviations: no paper gives values for a CLIP tower: the rates are ours; images are cropped only with `crop_scale` below 1.
    """

    Settings = ReplaySettings
    settings: ReplaySettings
    recipes = {
        "mini*": {"epochs": 4, "exemplars": 10, "mirrored_view": False, "learning_rate": 0.1, "tower_rate": 0.2, "momentum": 0.9},
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 2},
        "mini-xtail*": {"epochs": 2},
    }
    quick = {"epochs": 1}
    paper = '"On Tiny Episodic Memories in Continual Learning", Chaudhry et al., 2019, arXiv 1902.10486'
    continues_as_one_run = False  # the head is drawn for all classes of the stream at once
    trains = "the whole image tower and a linear head; text is not used"
    conformance = "no vectors: checked by its formulas and on the mini world"
    stored: torch.Tensor
    offered: torch.Tensor

    def prepare(self) -> None:
        super().prepare()
        self.capacity = self.exemplar_budget(len(self.scenario.class_names)) * len(self.scenario.class_names)
        self.register_buffer("stored", torch.zeros(0, dtype=torch.long))  # rows of `seen_images`, by slot
        self.register_buffer("offered", torch.zeros((), dtype=torch.long))  # n

    def learn(self, task: Task) -> None:
        self.train_on(task, torch.arange(len(task.train)) + self.place_of_task(task.index))
        self.learned[list(task.classes)] = True

    def loss(self, pixels: torch.Tensor, labels: torch.Tensor, task: Task, step: int) -> torch.Tensor:
        past = self.replay(task, step, "replay")
        if past is not None:
            old_pixels, old_labels, _ = past
            pixels, labels = torch.cat([pixels, old_pixels]), torch.cat([labels, old_labels])
        return F.cross_entropy(self.head(self.pooled(pixels)), labels)

    def replay(self, task: Task, step: int, draw: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """Pixels, labels and slots of a batch from the reservoir; None while it is empty."""
        size = min(self.settings.replay_batch_size, len(self.stored))
        if size == 0:
            return None
        slots = self.draws.permutation(len(self.stored), draw, task.index, step)[:size]
        images = self.seen_images
        rows = self.stored.cpu()[slots]
        mirrored = self.mirrored(size, draw, task.index, step)
        return self.pixels(images, rows, mirrored), images.labels[rows].to(self.device), slots

    def after_step(self, rows: torch.Tensor, task: Task, step: int) -> None:
        self.offer(rows, self.draws.uniform((len(rows),), "reservoir", task.index, step))

    def offer(self, rows: torch.Tensor, draws: torch.Tensor) -> dict[int, int]:
        """Offer images one by one; `draws` (b,) in [0, 1) decide. Returns slot -> place in the batch for those stored."""
        stored, offered, written = self.stored.tolist(), int(self.offered), {}
        for place, (row, draw) in enumerate(zip(rows.tolist(), draws.tolist())):
            slot = reservoir_slot(offered + place, draw, self.capacity)
            if slot is not None:
                stored[slot : slot + 1] = [row]  # the next free slot, or one that is replaced
                written[slot] = place
        self.stored = torch.tensor(stored, dtype=torch.long, device=self.device)
        self.offered += len(rows)
        return written

    def exemplar_bytes(self) -> int:
        return len(self.stored) * 3 * self.backbone.image_size**2


def reservoir_slot(n: int, draw: float, capacity: int) -> int | None:
    """The slot of image number n (from 0), or None: it is not kept. `draw` is uniform in [0, 1).

    >>> [reservoir_slot(n, draw, 2) for n, draw in enumerate([0.9, 0.9, 0.7, 0.1, 0.25])]
    [0, 1, None, 0, 1]
    """
    if n < capacity:
        return n
    slot = int(draw * (n + 1))
    return slot if slot < capacity else None


@dataclass(frozen=True)
class DarkReplaySettings(ReplaySettings):
    alpha: float = setting(
        0.3, "weight of the distance between present and stored logits", MAMMOTH, search=Range(0.05, 2.0, log=True)
    )
    beta: float = setting(0.5, "weight of the cross-entropy on stored images", MAMMOTH, search=Range(0.05, 2.0, log=True))


class DarkExperienceReplay(ExperienceReplay):
    """DER++: stored images with the logits that they had, which later models are to reproduce.

    Paper: "Dark Experience for General Continual Learning: a Strong, Simple Baseline", P. Buzzega, M. Boschini,
    A. Porrello, D. Abati, S. Calderara, NeurIPS 2020, arXiv 2004.07211; code: aimagelab/mammoth. (Not Dynamically
    Expandable Representation, which is called DER too.)

    With two independent draws x', x'' from the reservoir of `er`, z' the logits of all N classes stored with x':

        L = CE(z(x), y) + alpha mean (z(x') - z')^2 + beta CE(z(x''), y'')

    The mean runs over images and classes; z' are the logits of the stream image, as augmented, in the step in which it
    was stored, and are never updated. The three batches go through the tower together, which changes nothing.

    Deviations: as `er`.
    """

    Settings = DarkReplaySettings
    settings: DarkReplaySettings
    # at ER's rate the squared distance of logits makes the training diverge here
    recipes = ExperienceReplay.recipes | {"mini*": {**ExperienceReplay.recipes["mini*"], "epochs": 3, "learning_rate": 0.03}}
    paper = (
        '"Dark Experience for General Continual Learning: a Strong, Simple Baseline", '
        "Buzzega et al., NeurIPS 2020, arXiv 2004.07211"
    )
    trains = "the whole image tower and a linear head; text is not used"
    conformance = "no vectors: checked by its formulas and on the mini world"
    stored_logits: torch.Tensor

    def prepare(self) -> None:
        super().prepare()
        self.register_buffer("stored_logits", torch.zeros(0, len(self.scenario.class_names)))  # by slot

    def loss(self, pixels: torch.Tensor, labels: torch.Tensor, task: Task, step: int) -> torch.Tensor:
        first, second = (self.replay(task, step, draw) for draw in ("first replay", "second replay"))
        if first is None or second is None:  # both at once: the reservoir is empty
            self.stream_logits = self.head(self.pooled(pixels))
            return F.cross_entropy(self.stream_logits, labels)
        everything = self.head(self.pooled(torch.cat([pixels, first[0], second[0]])))
        self.stream_logits, again, replayed = everything.split([len(pixels), len(first[0]), len(second[0])])
        distance = F.mse_loss(again, self.stored_logits[first[2].to(self.device)])
        settings = self.settings
        return (
            F.cross_entropy(self.stream_logits, labels)
            + settings.alpha * distance
            + settings.beta * F.cross_entropy(replayed, second[1])
        )

    def offer(self, rows: torch.Tensor, draws: torch.Tensor) -> dict[int, int]:
        written = super().offer(rows, draws)
        logits = torch.zeros(len(self.stored), self.stored_logits.shape[1], device=self.device)
        logits[: len(self.stored_logits)] = self.stored_logits
        for slot, place in written.items():
            logits[slot] = self.stream_logits[place].detach()
        self.stored_logits = logits
        return written
