"""LADA: memory vectors of each class beside a text adapter that is trained anew for every task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Range, Task, setting
from bench.clip.image_tower import blocks
from methods.lada.class_memory import centres, memory_scores, table_of
from methods.lada.class_mixtures import ClassMixtures
from methods.shared.batches import Batch, steps_within_budget
from methods.shared.class_gaussians import by_class
from methods.shared.class_names import check_template
from methods.shared.descent import Descent
from methods.shared.parallel_adapters import ParallelAdapters
from methods.shared.pixels import check_crop_scale, pixel_batches, training_pixels
from methods.shared.schedules import one_cycle

RISE, FALL = 25.0, 25e4  # the rate starts at its peak / 25, and ends at its peak / 250000
BETA1_HIGH, BETA1_LOW = 0.95, 0.85  # Adam's beta1 goes from high to low and back while the rate rises and falls
BETA2, EPS = 0.999, 1e-8

SIXTEEN_SHOTS = (
    ("aircraft", 40), ("caltech101", 10), ("dtd", 30), ("eurosat", 100), ("flowers", 30), ("food", 5), ("mnist", 200),
    ("oxford-pet", 10), ("stanford-cars", 30), ("sun397", 10),
)  # fmt: skip
ALL_IMAGES = (
    ("aircraft", 60), ("caltech101", 20), ("dtd", 30), ("eurosat", 20), ("flowers", 40), ("food", 10), ("mnist", 20),
    ("oxford-pet", 10), ("stanford-cars", 20), ("sun397", 2),
)  # fmt: skip


@dataclass(frozen=True)
class LADASettings:
    """Defaults: X-TAIL; passes over a task's images are the recipes'."""

    epochs: int = setting(
        20, "passes over the task's images", "harness; the authors state them for X-TAIL's data sets only", search=Range(5, 30)
    )
    epochs_of_task: tuple[tuple[str, int], ...] = setting((), "pairs (task name, epochs) where they differ")
    batch_size: int = setting(64, "images per step, to which a feature of every mixture component comes")
    lr: float = setting(1e-3, "peak rate of AdamW; one cycle per task", search=Range(1e-4, 0.03, log=True))
    weight_decay: float = setting(5e-4, "AdamW's decoupled weight decay, on adapters and memory")
    bottleneck: int = setting(16, "r: width of a text adapter's bottleneck")
    adapter_scale: float = setting(0.1, "factor on a text adapter's output, beside the trained one")
    units: int = setting(16, "lambda_1: memory vectors per class, or one for each image of a class that has fewer")
    components: int = setting(4, "lambda_2: Gaussians of a class's mixture, or one for each image of a class that has fewer")
    alpha: float = setting(1.0, "weight of the memory's score beside the text's", search=Range(0.1, 10.0, log=True))
    beta: float = setting(1.0, "how fast a memory vector's score falls with its distance", search=Range(0.1, 10.0, log=True))
    replay_weight: float = setting(64.0, "of an old class in the loss, in images", search=Range(4.0, 256.0, log=True))
    unseen_penalty: float = setting(
        1e3,
        "times alpha, taken from unlearned classes where the text says learned (authors: 1e6, which in float32 would blur them)",
        "harness",
    )
    selector: bool = setting(
        False, "as released, and switched off there: zero-shot CLIP says whether learned, and unlearned classes then score 0"
    )
    template: str | None = setting("a photo of a {}.", "the one prompt of every class; none: the protocol's first for each")
    crop_scale: float = setting(0.08, "train on random crops of at least this share of an image's area; 1: no crops")
    mirrored_view: bool = setting(True, "train on half of the images mirrored, drawn anew for every epoch")
    whole_tasks: tuple[str, ...] = setting(("mnist", "eurosat"), "names of tasks that train on images as they are")

    def __post_init__(self):
        if min(self.epochs, self.batch_size, *(epochs for _, epochs in self.epochs_of_task)) < 1:
            raise BenchError("batch_size and all epochs: choose 1 or more")
        if min(self.units, self.components, self.bottleneck) < 1:
            raise BenchError("units, components and bottleneck: choose 1 or more")
        if min(self.alpha, self.beta, self.replay_weight, self.unseen_penalty) < 0:
            raise BenchError("alpha, beta, replay_weight and unseen_penalty: choose 0 or more")
        check_template("template", self.template)
        check_crop_scale(self.crop_scale)


class Step(NamedTuple):
    """What one step is trained on: replayed rows, then images of the task."""

    features: torch.Tensor  # f (P + B, D), raw
    labels: torch.Tensor  # (P + B,)
    weights: torch.Tensor  # (P + B,)


class LADA(Method):
    """LADA (label-specific adapter): memory vectors of each class beside text features from an adapter of each task's own.

    Paper: "LADA: Scalable Label-Specific CLIP Adapter for Continual Learning", M.-L. Luo, Z.-H. Zhou, T. Wei, M.-L. Zhang,
    ICML 2025, arXiv 2505.23271. Where paper and code differ, this follows the code.

    Frozen: both towers. Trained for each task: AdaptFormer adapters in all text blocks (shared/parallel_adapters.py), of which
    only the text features t_c (D,) that they give are kept; and up to 16 vectors w (D,) per new class, which are kept as they are
    from then on. With f(x) (D,) the raw image feature, u(v) = v / |v|, s CLIP's logit scale:

        text score    s u(f) . u(t_c)              t_c by the adapters for the task's classes, as kept for older ones
        memory score  sum over w of c of exp(-beta (1 - u(f) . w))                                     lada/class_memory.py
        score         text score + alpha * memory score,   alpha = beta = 1

        start         memory: k-means centres of u(f) per class, or u(f) itself where a class has no more than 16 images;
                      adapters: as CLIP, and from the same random numbers in every task
        each step     B images, and before them from the second task on z = mean + sqrt(variance) * noise of every component
                      of every old class's mixture (P rows, raw features, lada/class_mixtures.py)
        loss          1 / (P + B) * sum of weight * CE over the classes so far; weight = 64 * the component's weight for z, 1
                      for an image: an old class counts as 64 images, and the divisor counts rows
        AdamW         one cycle of the rate per task, with beta1 cycled the other way (torch's defaults)
        task end      keep t_c, raw, and memory; fit the mixtures of the new classes

    Scores of unlearned classes. All classes that are asked for compete, in the order in which the stream learns them. An image
    whose largest text score is a learned class's (the gate) is given a learned class: their memory scores are added, and
    unlearned classes lose `unseen_penalty`. Any other has text scores alone, those of unlearned classes by the frozen tower. So
    on X-TAIL. A request of unlearned classes only (another data set of MTIL) is answered by zero-shot CLIP exactly, and so is
    every request before the first task.

    Two classes of one name in two data sets (X-TAIL has four such names): their frozen text features are the same numbers, so
    while neither is learned the first column wins; once the first is learned, a tie of the gate goes to it, and images of its
    namesake are sent to the learned classes; when both are, text features and memories are each one's own.

    A score depends on no other image and not on the task. No image is kept; of a class (1 + 16 + 4) vectors and 8 numbers, 43 kB
    with ViT-B/16 (`bench table --view cost`). With 16 images of a class the memory starts as their features.

    Deviations from the authors' code. Image features need no gradient: the authors compute those of both towers' weights in every
    step and throw them away. Prompts are cut at the longest: the same numbers. Training is in the backbone's precision, theirs
    in float16 with loss scaling. A class of fewer images than components has a component for each (theirs: an error); where a
    task has so few steps that the cycle cannot rise, it only falls. Adapters have the text tower's width (theirs: the joint one).
    Crops are taken from the square view of an image, and half of the images are mirrored in each epoch. Epochs of X-TAIL are the
    authors', tuned per data set; other streams have one number for all, which is ours. Which images are the shots is the
    protocol's. A protocol's limit on training images counts images, not replayed rows.

    Raises BenchError for impossible settings and for a class without a training image, RunFailure when training diverges.
    """

    Settings = LADASettings
    settings: LADASettings
    recipes = {
        "xtail*": {"epochs_of_task": ALL_IMAGES},
        "xtail*-16shot*": {"epochs_of_task": SIXTEEN_SHOTS},
        # ours: the templates that the mini CLIP was trained on; images of 32 pixels, digits and letters without mirror images
        "mini*": {"template": None, "crop_scale": 1.0, "mirrored_view": False},
    }
    quick = {"epochs": 2}
    paper = '"LADA: Scalable Label-Specific CLIP Adapter for Continual Learning", Luo et al., ICML 2025, arXiv 2505.23271'
    trains = "memory vectors of the task's classes, and adapters in the text tower that give their text features; CLIP is frozen"
    conformance = (
        "checked: k-means and mixtures class by class, rates, beta1, losses, gradients, adapters and memory over tasks, text "
        "features, logits of learned and unlearned classes, gate, predictions, selector; not checked: float16, crops"
    )

    memory: torch.nn.Parameter
    n_units: torch.Tensor
    kept_texts: torch.Tensor
    frozen_texts: torch.Tensor

    def prepare(self) -> None:
        scenario, width = self.scenario, self.backbone.embedding_width
        prompts = scenario.prompts(range(len(scenario.class_names)), self.settings.template)
        self.prompts = [prompt.replace("_", " ") for prompt in prompts]
        different = list(dict.fromkeys(self.prompts))  # classes of one name have one text feature, and equal scores
        self.prompt_of_class = torch.tensor([different.index(prompt) for prompt in self.prompts], device=self.device)
        frozen = F.normalize(self.backbone.encode_text(different), dim=-1)
        self.register_buffer("frozen_texts", frozen)  # (different prompts, D), unit
        self.register_buffer("kept_texts", frozen.new_zeros(0, width))  # t_c (n, D) of learned classes
        self.memory = torch.nn.Parameter(frozen.new_zeros(0, self.settings.units, width))  # w (n, units, D)
        self.register_buffer("n_units", torch.zeros(0, dtype=torch.long))  # (n,)
        self.mixtures = ClassMixtures(width, self.settings.components, frozen.dtype)
        self.adapters = self.new_adapters()

    def new_adapters(self) -> ParallelAdapters:
        """As every task starts with: the same numbers in each."""
        settings, size = self.settings, (len(blocks(self.backbone.clip)), self.backbone.text_width)
        adapters = ParallelAdapters(*size, settings.bottleneck, settings.adapter_scale, self.draws, own=True)
        return adapters.to(self.device, self.frozen_texts.dtype)

    @property
    def n_seen(self) -> int:
        return len(self.kept_texts)

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        features, labels = task.train.features(), task.train.labels.to(self.device)
        groups = by_class(features, labels, task.classes, self.scenario.class_names)
        starts = [centres(F.normalize(group, dim=-1), self.settings.units) for group in groups]
        table, counts = table_of(starts, self.settings.units)
        units = torch.nn.Parameter(table)
        self.adapters = self.new_adapters()
        tokens = self.backbone.tokenize([self.prompts[c] for c in task.classes])
        self.fit(task, features, labels, tokens, units, counts)
        with torch.no_grad():
            texts = self.adapters.text_features(self.backbone.clip, tokens)
        self.kept_texts = torch.cat([self.kept_texts, texts])
        self.memory = torch.nn.Parameter(torch.cat([self.memory.detach(), units.detach()]))
        self.n_units = torch.cat([self.n_units, counts])
        self.mixtures.add(task.classes, groups)

    def fit(
        self,
        task: Task,
        features: torch.Tensor,
        labels: torch.Tensor,
        tokens: torch.Tensor,
        units: torch.nn.Parameter,
        counts: torch.Tensor,
    ) -> None:
        """Train adapters and new units (C, units, D) on the task, whose features (n, D) are those of images as they are."""
        settings, n = self.settings, len(labels)
        epochs = dict(settings.epochs_of_task).get(task.name, settings.epochs)
        crop, mirrored = settings.crop_scale, settings.mirrored_view
        whole = task.name in settings.whole_tasks or (crop >= 1 and not mirrored)
        length: dict[str, Any] = {"images": n, "batch_size": settings.batch_size, "epochs": epochs}
        budget = self.scenario.images_per_task
        n_steps = steps_within_budget(**length, budget=budget)
        optimiser = torch.optim.AdamW(
            [*self.adapters.parameters(), units], lr=settings.lr, eps=EPS, weight_decay=settings.weight_decay
        )

        def read(batch: Batch) -> torch.Tensor:
            if whole:
                return features[batch.rows.to(features.device)]
            return training_pixels(task.train, batch, self.draws, crop=crop, mirrored=mirrored, purpose=("task", task.index))

        descent = Descent(self, optimiser, at_step=f"{task.name}, step", at_end=f"{task.name}, last step")
        for batch, images in pixel_batches(self, read, **length, budget=budget, purpose=("batch order", task.index)):
            step, rows = batch.step, batch.rows
            rate = one_cycle(step, n_steps, settings.lr / RISE, settings.lr, settings.lr / FALL)
            optimiser.param_groups[0]["betas"] = (one_cycle(step, n_steps, BETA1_HIGH, BETA1_LOW, BETA1_HIGH), BETA2)
            own = images if whole else self.backbone.encode_images(images)
            inputs = self.with_replay(own, labels[rows.to(self.device)], task.index, step)
            loss = self.loss(self.training_logits(inputs.features, tokens, units, counts), inputs)
            descent.step(loss, rate)
        descent.finish()

    def with_replay(self, features: torch.Tensor, labels: torch.Tensor, task: int, step: int) -> Step:
        """Features (B, D) of images of the task, and before them one of every component of the old classes."""
        weights = torch.ones_like(features[:, 0])
        if not len(self.mixtures):
            return Step(features, labels, weights)
        replayed = self.mixtures.sample(self.draws.normal(self.mixtures.means.shape, "replay", task, step))
        return Step(
            torch.cat([replayed, features]),
            torch.cat([self.mixtures.owners, labels]),
            torch.cat([self.settings.replay_weight * self.mixtures.weights, weights]),
        )

    def training_logits(
        self, features: torch.Tensor, tokens: torch.Tensor, units: torch.Tensor, counts: torch.Tensor
    ) -> torch.Tensor:
        """(P + B, n + C) scores of raw features by the old classes' text features and memory, and by those in training."""
        texts = self.adapters.text_features(self.backbone.clip, tokens)
        both = F.normalize(torch.cat([self.kept_texts, texts]), dim=-1)
        table, all_counts = torch.cat([self.memory.detach(), units]), torch.cat([self.n_units, counts])
        images = F.normalize(features, dim=-1)
        remembered = memory_scores(images, table, all_counts, self.settings.beta)
        return self.backbone.logit_scale * images @ both.T + self.settings.alpha * remembered

    def loss(self, logits: torch.Tensor, inputs: Step) -> torch.Tensor:
        return (inputs.weights * F.cross_entropy(logits, inputs.labels, reduction="none")).sum() / len(logits)

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        images, columns = F.normalize(batch, dim=-1), torch.tensor(list(classes), dtype=torch.long, device=self.device)
        zero_shot = self.backbone.logit_scale * (images @ self.frozen_texts.T)[:, self.prompt_of_class[columns]]
        learned = columns < self.n_seen
        if not learned.any():
            return zero_shot
        text, remembered, old = zero_shot.clone(), torch.zeros_like(zero_shot), columns[learned]
        text[:, learned] = self.backbone.logit_scale * images @ F.normalize(self.kept_texts[old], dim=-1).T
        memory = memory_scores(images, self.memory[old], self.n_units[old], self.settings.beta)
        remembered[:, learned] = self.settings.alpha * memory
        if learned.all():
            return text + remembered
        if self.settings.selector:
            return torch.where(looks_learned(zero_shot, learned), torch.where(learned, text + remembered, 0), zero_shot)
        remembered[:, ~learned] = -self.settings.alpha * self.settings.unseen_penalty
        return torch.where(looks_learned(text, learned), text + remembered, text)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def state_dict(self, *arguments, **options):
        """Without the adapters, with which no task goes on from another."""
        state = super().state_dict(*arguments, **options)
        return {name: value for name, value in state.items() if not name.startswith("adapters.")}

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        adapters = {f"adapters.{name}": value for name, value in self.adapters.state_dict().items()}
        return super().load_state_dict({**adapters, **state_dict}, strict=strict, assign=assign)


def looks_learned(scores: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
    """(b, 1) whether the largest of scores (b, C) is a learned class's; of equal ones, they come first in every stream."""
    return (scores[:, learned].amax(dim=1) >= scores[:, ~learned].amax(dim=1)).unsqueeze(1)
