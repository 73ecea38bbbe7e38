"""iCaRL for class-incremental learning: distillation of the old head, exemplars by herding, nearest mean of exemplars."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Range, Task, setting
from bench.clip.tower_types import ImageTower
from methods.image_tower.vision_finetune import VisionFineTune, VisionFineTuneSettings
from methods.shared.selection import herding

PILOT = "LAMDA-PILOT"


@dataclass(frozen=True)
class ICaRLNMESettings(VisionFineTuneSettings):
    """As LAMDA-PILOT runs it on vision transformers."""

    classifier: Literal["nearest-mean", "head"] = setting(
        "nearest-mean", "what decides: nearest mean of exemplars, or the head", PILOT
    )
    temperature: float = setting(2.0, "T of the distillation", PILOT)
    distillation: float = setting(1.0, "weight of the distillation", PILOT, search=Range(0.1, 10.0, log=True))
    first_learning_rate: float = setting(1e-3, "rate on the first task", PILOT, search=Range(5e-4, 0.3, log=True))
    first_weight_decay: float = setting(5e-4, "weight decay on the first task", PILOT)
    milestones: tuple[int, ...] = setting(
        (), "epochs after which the rate is multiplied by milestone_factor", "60, 120, 170: never reached"
    )
    milestone_factor: float = setting(0.1, "of the rate at a milestone", PILOT)


class ICaRLNME(VisionFineTune):
    """iCaRL (icarl-nme): fine-tuned image tower, distilled old head, and the nearest mean of herded exemplars decides.

    Paper: "iCaRL: Incremental Classifier and Representation Learning", S.-A. Rebuffi, A. Kolesnikov, G. Sperl,
    C. H. Lampert, CVPR 2017, arXiv 1611.07725, in the form of LAMDA-PILOT (whose tables PROOF and others continue).

    Trained: the image tower f and a head W, b; f(x) (D,) is the pooled feature. The new images and all exemplars are
    one shuffled set. With z the head's logits of the classes seen so far, z_old those of the model before the task for the K
    classes it knew:

        first task:  L = CE(z, y)
        later:       L = CE(z, y) - (1 / B) sum_b sum_{c < K} softmax(z_old / T)_c log softmax(z_{:K} / T)_c

    After the task old classes keep the first m of their exemplars and m images of each new class are chosen by herding
    (v = f / (|f| + 1e-8); pick argmin_i ||mu_c - (v_i + sum of those picked) / k||, k = 1 .. m). Prediction:

        argmin_c ||v(x) - mean_c||^2,    mean_c = mean of v over the exemplars of c, at unit length

    with means of all seen classes recomputed by the tower as it is after each task. m is what the protocol allows (a fixed
    total is divided among the seen classes).

    Deviations from LAMDA-PILOT: crops are taken from the square view of an image; the tower is CLIP's. New rows of the head are
    drawn at each task's start, as when a head grows.

    Raises BenchError if no exemplar may be kept.
    """

    Settings = ICaRLNMESettings
    settings: ICaRLNMESettings
    recipes = {
        "*": {"crop_scale": 0.05},  # LAMDA-PILOT's augmentation
        "imagenet-r*": {"batch_size": 32},
        "mini*": {
            "crop_scale": 1.0,
            "batch_size": 32,
            "epochs": 4,
            "exemplars": 10,
            "mirrored_view": False,
            "learning_rate": 0.02,
            "first_learning_rate": 0.02,
        },
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 3},
        "mini-xtail*": {"epochs": 3},
    }
    quick = {"epochs": 1}
    paper = '"iCaRL: Incremental Classifier and Representation Learning", Rebuffi et al., CVPR 2017, arXiv 1611.07725'
    continues_as_one_run = False  # the head is drawn for all classes of the stream at once
    trains = "the whole image tower and a linear head; text is not used"
    conformance = "checked: losses, rates, parameters of two tasks, features, herding, memory, class means, ranking, head logits"
    exemplars: torch.Tensor
    means: torch.Tensor
    old: tuple[ImageTower, torch.nn.Linear] | None  # the model before the task, while it is learned

    def prepare(self) -> None:
        super().prepare()
        n = len(self.scenario.class_names)
        if self.exemplar_budget(n) < 1:
            raise BenchError(
                "icarl-nme classifies by exemplars, and the protocol allows less than one a class; see icarl-nme.exemplars"
            )
        self.register_buffer("exemplars", torch.zeros(0, dtype=torch.long))  # rows of `seen_images`, class by class
        self.register_buffer("means", torch.zeros(n, self.backbone.pooled_width))

    def learn(self, task: Task) -> None:
        self.known = task.classes[0]
        self.draw_new_rows(task)
        self.old = self.old_model() if task.index > 0 else None
        new = torch.arange(len(task.train)) + self.place_of_task(task.index)
        self.train_on(task, torch.cat([new, self.exemplars.cpu()]))
        self.old = None
        self.learned[list(task.classes)] = True
        self.update_memory(task)

    def draw_new_rows(self, task: Task) -> None:
        """The head's rows of the new classes, drawn as torch initialises a linear layer."""
        with torch.no_grad(), self.draws.initialising("head rows", task.index):
            fresh = torch.nn.Linear(self.head.in_features, len(task.classes)).to(self.head.weight)
            self.head.weight[list(task.classes)] = fresh.weight
            self.head.bias[list(task.classes)] = fresh.bias

    def old_model(self) -> tuple[ImageTower, torch.nn.Linear]:
        """Frozen copies of the tower and the head."""
        return copy.deepcopy(self.visual).requires_grad_(False), copy.deepcopy(self.head).requires_grad_(False)

    def rate(self, task: Task, epoch: int) -> float:
        settings = self.settings
        start = settings.first_learning_rate if task.index == 0 else settings.learning_rate
        return start * settings.milestone_factor ** sum(epoch >= milestone for milestone in settings.milestones)

    def weight_decay(self, task: Task) -> float:
        return self.settings.first_weight_decay if task.index == 0 else self.settings.weight_decay

    def loss(self, pixels: torch.Tensor, labels: torch.Tensor, task: Task, step: int) -> torch.Tensor:
        logits = self.head(self.pooled(pixels))[:, : task.classes[-1] + 1]
        loss = self.cross_entropy(logits, labels)
        if self.old is None:
            return loss
        return loss + self.settings.distillation * self.distill(logits, pixels)

    def cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over a batch, all seen classes competing."""
        return F.cross_entropy(logits, labels)

    def distill(self, logits: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy between the old head's distribution and the present one, over the classes known before."""
        assert self.old is not None, "the first task has no old model"
        visual, head = self.old
        with torch.no_grad():
            current, self.visual = self.visual, visual
            old_logits = head(self.pooled(pixels))[:, : self.known]
            self.visual = current
        target = (old_logits / self.settings.temperature).softmax(dim=-1)
        return -(target * (logits[:, : self.known] / self.settings.temperature).log_softmax(dim=-1)).sum(dim=-1).mean()

    # -- memory and means -----------------------------------------------------------------------------------------

    def update_memory(self, task: Task) -> None:
        """Old classes keep the first m of their exemplars, new ones get m by herding; then all means are computed anew."""
        images = self.seen_images
        m = self.exemplar_budget(task.classes[-1] + 1)
        kept = self.exemplars.cpu()
        owner = images.labels[kept]
        chosen = [kept[owner == c][:m] for c in range(self.known)]
        first = self.place_of_task(task.index)
        for c in task.classes:
            rows = first + torch.nonzero(task.train.labels == c).flatten()
            features = unit(self.pooled_of(images, rows)).double().cpu().numpy()
            chosen.append(rows[torch.from_numpy(herding(features, m))])
        self.exemplars = torch.cat(chosen).to(self.device)
        classes = torch.arange(len(chosen), device=self.device)
        self.means[classes] = exemplar_means([self.pooled_of(images, rows) for rows in chosen])

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        if self.settings.classifier == "head":
            return super().logits(batch, classes)
        return negative_squared_distances(self.pooled(batch), self.means[self.wanted(classes)])

    def exemplar_bytes(self) -> int:
        return len(self.exemplars) * 3 * self.backbone.image_size**2


# -- nearest mean of exemplars ------------------------------------------------------------------------------------


def unit(features: torch.Tensor) -> torch.Tensor:
    """x / (||x|| + 1e-8), row by row."""
    return features / (features.norm(dim=-1, keepdim=True) + 1e-8)


def exemplar_means(features: Sequence[torch.Tensor]) -> torch.Tensor:
    """(classes, d): for each class the mean of its exemplars' unit features (m, d), at unit length again."""
    return torch.stack([F.normalize(unit(own).mean(dim=0), dim=0, eps=0.0) for own in features])


def negative_squared_distances(features: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """(b, classes): -||v(x) - mean_c||^2, largest for the nearest mean."""
    return -torch.cdist(unit(features), means, compute_mode="donot_use_mm_for_euclid_dist").square()
