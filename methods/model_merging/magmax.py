"""MagMax: CLIP's image tower is fine-tuned task after task; what is evaluated is merged from the changes of all tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Range, Task, setting
from methods.model_merging.task_vectors import WeightLayout
from methods.model_merging.vector_merges import TIES, LargestChange, MeanChange, RandomChange
from methods.shared.batches import Batch, steps_within_budget
from methods.shared.classifiers import TextClassifier
from methods.shared.descent import Descent
from methods.shared.pixels import check_crop_scale, pixel_batches, training_pixels
from methods.shared.schedules import warmup_cosine


@dataclass(frozen=True)
class MagMaxSettings:
    """Defaults: CIFAR-100 and ImageNet-R."""

    lr: float = setting(1e-5, "peak learning rate", search=Range(3e-6, 3e-3, log=True))
    epochs: int = setting(10, "passes over the task's images", search=Range(2, 10))
    epochs_of_task: tuple[tuple[str, int], ...] = setting((), "pairs (task name, epochs) where they differ")
    warmup: int = setting(500, "updates of linear warm-up, then a cosine to 0; longer than most tasks, and so it was published")
    batch_size: int = setting(128, "images per update")
    label_smoothing: float = setting(
        0.0, "share of the target that is spread evenly over the candidates", search=Range(0.0, 0.3, step=0.05)
    )
    beta1: float = setting(0.9, "AdamW's decay of the gradient average")
    beta2: float = setting(0.999, "AdamW's decay of the squared-gradient average")
    eps: float = setting(1e-8, "AdamW's epsilon")
    weight_decay: float = setting(
        0.1, "AdamW's decoupled weight decay, on every tensor of the image tower", search=Range(1e-3, 0.3, log=True)
    )
    max_norm: float = setting(1.0, "the tower's gradient is cut to this length; 0: never")
    start: Literal["previous", "initial"] = setting(
        "previous", "where a task's training starts: from the unmerged weights of the task before, or from CLIP's"
    )
    merge: Literal["largest", "mean", "random", "ties"] = setting(
        "largest",
        "what is made of the tasks' changes (model_merging/vector_merges.py); all but the first are the paper's comparisons",
    )
    scale: float = setting(0.0, "lambda, share of the merge that is added; 0: the paper's, 0.5 (largest), 1, 1, 0.55 (ties)")
    ties_share: float = setting(0.2, "ties: share of a task's numbers that is kept")
    ties_count_text: bool = setting(True, "ties, as released: the frozen text tower counts in that share, so more is kept")
    crop_scale: float = setting(0.9, "train on random crops of at least this share of an image's area; 1: no crops")

    def __post_init__(self):
        if min(self.batch_size, self.epochs, *(epochs for _, epochs in self.epochs_of_task)) < 1:
            raise BenchError("batch_size and all epochs: choose 1 or more")
        if self.warmup < 0 or self.max_norm < 0 or self.scale < 0:
            raise BenchError("warmup, max_norm and scale: choose 0 or more")
        if not 0 < self.ties_share <= 1:
            raise BenchError(f"ties_share={self.ties_share}: choose a share above 0 and at most 1")
        check_crop_scale(self.crop_scale)


class MagMax(TextClassifier):
    """MagMax: sequential fine-tuning of the image tower, merged by the largest change of every weight.

    Paper: "MagMax: Leveraging Model Merging for Seamless Continual Learning", D. Marczak, B. Twardowski, T. Trzcinski,
    S. Cygert, ECCV 2024, arXiv 2407.06322.

    Trained: theta (d,), every weight of the image tower f. Frozen: the text tower and the logit scale s, and so the class vectors
    w_c = norm(mean over templates of norm(g(template(c)))) (N, D), which are computed once.

        z_ic = s cos(f(x_i; theta), w_c)     over the task's own classes (B, C);   L = cross-entropy
        AdamW with weight decay on all of theta, gradient cut to length 1; new optimiser and schedule for each task

    theta_t, the weights after task t, start the next task. They are never evaluated. With tau_t = theta_t - theta_0, always
    against the initial CLIP's theta_0, elementwise:

        tau <- tau_t where |tau_t| >= |tau|, else tau                     (tau = 0 before the first task)
        scores are those of f(x; theta_0 + lambda tau),  lambda = 0.5

    The factor is the same after the first task: the model evaluated then is half-way back to zero-shot. It scores any
    class, learned or not, and no score depends on other images. Before the first task it is zero-shot CLIP.

    Kept from task to task: theta_t and tau (`bench table --view cost`; `mean` as much, `ties` four times); theta_0 is the
    backbone's. No image.

    The warm-up of 500 updates is longer than most tasks: ten epochs on a tenth of CIFAR-100 are 400, so that the rate rises to
    0.8 of its peak and never falls. Published numbers contain this; for short tasks choose `warmup` yourself.

    `start` initial and the other merges are rows of the paper's comparison. `ties` counts, as released, the frozen text tower
    among the numbers of which a share is kept: a fifth of a ViT-B/16 is 35 % of its image tower, and where more than 80 % are
    frozen nothing is dropped; `ties_count_text` false counts the image tower alone.

    Deviations from the authors' code. Templates and class orders are the protocol's; theirs have a list for each data set. Crops
    are taken from the square view of an image. The paper's numbers are of the last task, over all classes; here there are those
    of every task. A protocol's limit on training images shortens the schedule. Their loops over several data sets, which begin
    anew from CLIP when they are resumed, crop test images in the evaluation on the way and fail for a task of one class, have no
    option here: the final numbers do not contain it.

    Raises BenchError for impossible settings, RunFailure when training diverges.
    """

    Settings = MagMaxSettings
    settings: MagMaxSettings
    recipes = {
        "cub200*": {"epochs": 30},
        "cars196*": {"epochs": 30},
        "mtil-*": {
            "epochs_of_task": (("stanford-cars", 35), ("mnist", 5), ("eurosat", 12), ("sun397", 14), ("dtd", 75)),
        },
        # ours: rate, warm-up and crops of finetune's; about as many updates as there
        "mini*": {"lr": 1e-3, "epochs": 5, "warmup": 10, "batch_size": 64, "crop_scale": 1.0},
    }
    quick = {"epochs": 1, "warmup": 2}
    paper = (
        '"MagMax: Leveraging Model Merging for Seamless Continual Learning", Marczak et al., ECCV 2024, arXiv 2407.06322'
    )
    trains = "the image tower of CLIP; the text tower and the logit scale stay frozen"
    conformance = (
        "checked: class vectors, rates, losses, gradients, weights, changes of sequential and independent training, all four "
        "merges, logits of merged and unmerged weights for learned and unseen classes; not checked: crops, TIES with the text"
    )
    inputs = "pixels"

    def prepare(self) -> None:
        super().prepare()
        self.tower = self.backbone.trainable_copy().visual  # theta_t; what is evaluated is `merged_weights`
        self.layout = WeightLayout.of(self.tower)
        self.merge = self.make_merge()
        self.merged_weights = self.weights_to_evaluate()

    def make_merge(self) -> LargestChange | MeanChange | RandomChange | TIES:
        settings, initial = self.settings, self.initial()
        if settings.merge == "largest":
            return LargestChange(initial)
        if settings.merge == "mean":
            return MeanChange(initial)
        if settings.merge == "random":
            return RandomChange(initial, self.draws)
        frozen = sum(weights.numel() for weights in self.backbone.clip.parameters()) - self.layout.size
        return TIES(initial, settings.ties_share, frozen if settings.ties_count_text else 0)

    def initial(self) -> torch.Tensor:
        """theta_0 (d,)"""
        return self.layout.read(self.backbone.clip.visual)

    def learn(self, task: Task) -> None:
        if self.settings.start == "initial":
            self.layout.write(self.tower, self.initial())
        self.fit(task)
        self.merge.add(self.layout.read(self.tower) - self.initial(), task.index)
        self.merged_weights = self.weights_to_evaluate()

    def fit(self, task: Task) -> None:
        """All updates on one task."""
        settings = self.settings
        epochs = dict(settings.epochs_of_task).get(task.name, settings.epochs)
        n, budget = len(task.train), self.scenario.images_per_task
        updates = steps_within_budget(images=n, batch_size=settings.batch_size, epochs=epochs, budget=budget)
        optimiser = torch.optim.AdamW(
            self.tower.parameters(), betas=(settings.beta1, settings.beta2), eps=settings.eps,
            weight_decay=settings.weight_decay, fused=True,
        )  # fmt: skip
        self.tower.eval()  # where a tower has running statistics, theta does not hold them: they stay the initial CLIP's

        descent = Descent(
            self, optimiser, at_step=f"{task.name}, update", at_end=f"{task.name}, last update", cut=self.cut_gradient
        )

        def read(batch: Batch) -> torch.Tensor:
            purpose = ("task", task.index)
            return training_pixels(task.train, batch, self.draws, crop=settings.crop_scale, mirrored=False, purpose=purpose)

        batches = pixel_batches(
            self, read, images=n, batch_size=settings.batch_size, epochs=epochs, budget=budget,
            purpose=("batch order", task.index),
        )  # fmt: skip
        for (update, _, rows), pixels in batches:
            logits = self.training_logits(pixels, task.classes)
            labels = task.train.labels[rows].to(self.device) - task.classes[0]
            loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
            descent.step(loss, settings.lr * warmup_cosine(update, updates, settings.warmup))
        descent.finish()

    def training_logits(self, pixels: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """(B, C) scores of a batch by the weights in training, with gradients to them."""
        return super().logits(self.tower(pixels), classes)

    def cut_gradient(self) -> None:
        if self.settings.max_norm:
            torch.nn.utils.clip_grad_norm_(self.tower.parameters(), self.settings.max_norm)

    # -- what is evaluated ----------------------------------------------------------------------------------------

    def weights_to_evaluate(self) -> dict[str, torch.Tensor]:
        """theta_0 + lambda tau by name. Made of what is kept, so no part of it; the weights in training are left alone."""
        scale = self.settings.scale or self.merge.SCALE
        return self.layout.parts(self.initial() + scale * self.merge.merged())

    def load_state_dict(self, *arguments, **options):
        loaded = super().load_state_dict(*arguments, **options)
        self.merged_weights = self.weights_to_evaluate()
        return loaded

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        return super().logits(torch.func.functional_call(self.tower, self.merged_weights, (batch,)), classes)
