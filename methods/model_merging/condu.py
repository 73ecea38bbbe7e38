"""ConDU: an expert per task, all of them kept as one unified weight change, and rebuilt to score images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Range, Task, setting
from methods.fine_tuning.finetune import FineTune, FineTuneSettings
from methods.model_merging.task_vectors import WeightLayout
from methods.model_merging.unified_changes import UnifiedChanges
from methods.shared.class_gaussians import by_class
from methods.shared.pixels import random_crops

IMAGES_AT_ONCE = 256  # when features of crops are taken for the prototypes
TOKENS = "token_embedding.weight"
Rule = int | Literal["initial", "similarity"]  # what scores a class: the expert of this task, the initial CLIP, similar experts


@dataclass(frozen=True)
class ConDUSettings(FineTuneSettings):
    """Defaults: MTIL, full fine-tuning."""

    experts: int = setting(
        4, "K: experts of the most similar tasks that score an image beside the initial CLIP", search=Range(1, 8)
    )
    scores: Literal["published", "task", "similarity"] = setting(
        "published",
        "where the task of an image is known: its expert, or for a task not learned the most similar experts (published) or the "
        "initial CLIP (task); similarity: always the most similar experts, as where it is not known",
    )
    prototype_crops: bool = setting(True, "prototypes from random crops (crop_scale), as released; false: from whole images")
    faithful_first_task: bool = setting(
        False, "reproduce the released evaluation, which scores the first task by the initial CLIP until a second is learned"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.experts < 1:
            raise BenchError(f"experts={self.experts}: choose 1 or more")


class ConDU(FineTune):
    """ConDU (Continual Decoupling-Unifying): experts of all tasks in one weight change with masks, rebuilt for scoring.

    Paper: "Enhanced Continual Learning of Vision-Language Models with Model Fusion", H. Gao, Z. Zhang, Y. Wei, L. Zhao, G. Li,
    Y. Li, L. Kong, W. Huang, ICLR 2026, arXiv 2503.10705.

    Expert of task t: `finetune` (both encoders f, g, all but the logit scale; cross-entropy with label smoothing over the task's
    classes) from the initial CLIP theta_0 (d,), not from the task before. Its change is tau_t = theta_t - theta_0.

    After each task, without training or images (model_merging/unified_changes.py):

        unify     tau of the new task and those rebuilt of the earlier ones -> u (d,), masks M_i (d,), scales lambda_i
        rebuild   expert i = theta_0 + lambda_i M_i u

    lambda_i is a ratio of mean magnitudes, taken tensor by tensor and then summed: a bias weighs as much as the token table.
    Prototype of each class of the task, by the initial encoders, the two means not normalised before they are added:

        p_c = norm((mean over training images of norm(f0(x)) + mean over templates of norm(g0(prompt))) / 2)      (D,)

    Scores, image and class always by the same model and classes by the mean of all templates, s = exp(logit scale):

        by task        z_c = s cos(f_i(x), g_i(c)) by the rebuilt expert i of the task
        by similarity  mean of z_c by the initial CLIP and by the experts of the K tasks with the largest
                       max over the task's classes of cos(f0(x), p_c);  the mean is not weighted, as in the code (in the paper,
                       by what others report of it, it is)

    Where the task of an image is known, learned tasks are scored by task and others by similarity (`scores`); each class by the
    rule of its own task. Where it is not known (class-incremental), every class is scored by similarity, learned or not; the
    authors have no such run, and no settings for it: those of MTIL. Before the first task it is zero-shot CLIP. A score depends
    on no other image.

    Kept: u, a bit per number and task, a scale per task, the prototypes (`bench table --view cost`); no image. Of the token table
    only rows of tokens that occur in training prompts: no others can change. At test an expert costs an image pass, of the images
    that chose it only, and a text pass per class and task.

    In float32 the weights of an attention's key biases, which have no true gradient, are changed by rounding noise as much as any
    others. No output depends on them, but lambda does, by 0.2 to 0.5 % against float64.

    Deviations from the authors' code, besides those of `finetune`. After the first task theirs scores its images by the initial
    CLIP, so the first cell of its matrix is too low; here the expert scores them, and `faithful_first_task` does as released. Its
    orders of images start from one seed in every task, ours are drawn for each task. Prototypes take each training image once, in
    one crop of its own (`prototype_crops`). The learning rates of five shots give 5e-5 to Pets and 1e-5 to MNIST as its script
    does, probably a shift by one place; which images are the shots is the protocol's. Running statistics of a tower that has
    some stay the initial CLIP's. The low-rank variant is not here: as released, its experts are differences of two random draws.

    Raises BenchError for impossible settings and for a class without a training image, RunFailure when training diverges.
    """

    Settings = ConDUSettings
    settings: ConDUSettings
    recipes = {
        "mtil-*": FineTune.recipes["mtil-*"],
        "mtil-*-5shot": {"iterations": 500, "lr_of_task": (("aircraft", 5e-5), ("oxford-pet", 5e-5))},
        "mini*": FineTune.recipes["mini*"],
    }
    paper = (
        '"Enhanced Continual Learning of Vision-Language Models with Model Fusion", Gao et al., ICLR 2026, arXiv 2503.10705'
    )
    continues_as_one_run = False
    several_processes = False  # its masks are signs of changes: another rounding turns those of changes that are nothing
    cannot_continue = "its weight changes hold the embeddings of the words in the names of its classes alone"
    cannot_add_names = cannot_continue
    trains = "both encoders of CLIP, from the initial weights for each task; the logit scale stays frozen"
    conformance = (
        "checked: rates, losses, gradients, weights, changes, unified change, masks, scales, prototypes, logits by task and by "
        "similarity for learned and unlearned tasks, the released first cell; not checked: crops, five shots, class-incremental"
    )
    prototypes: torch.Tensor

    def prepare(self) -> None:
        super().prepare()  # class vectors of the initial CLIP, which stay; `clip` is trained, then lent to one expert at a time
        in_prompts = {} if self.settings.weight_decay else {TOKENS: self.prompt_tokens.unique()}  # decay would reach every token
        self.layout = WeightLayout.of(self.clip, in_prompts)
        self.changes = UnifiedChanges(self.layout, self.initial())
        self.register_buffer("prototypes", torch.zeros_like(self.class_vectors))  # (N, D), of learned classes
        self.forget_experts()

    def initial(self) -> torch.Tensor:
        """theta_0 (d,)"""
        return self.layout.read(self.backbone.clip)

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        self.forget_experts()
        self.layout.write(self.clip, self.initial())
        self.clip.eval()  # running statistics, where a tower has some, are no part of theta
        self.train_on(task)
        self.changes.add(self.layout.read(self.clip) - self.initial())
        self.prototypes[list(task.classes)] = self.prototypes_of(task)

    @torch.no_grad()
    def prototypes_of(self, task: Task) -> torch.Tensor:
        """p_c (C, D) of the task's classes."""
        features = F.normalize(self.initial_features(task), dim=-1)
        images = by_class(features, task.train.labels, task.classes, self.scenario.class_names)
        texts = [F.normalize(self.backbone.encode_text(self.prompts_of(c)), dim=-1) for c in task.classes]
        means = [(image.mean(dim=0) + text.mean(dim=0)) / 2 for image, text in zip(images, texts)]
        return F.normalize(torch.stack(means), dim=-1)

    def initial_features(self, task: Task) -> torch.Tensor:
        """f0(x) (n, D) of the training images, as the setting says of crops."""
        settings = self.settings
        if not settings.prototype_crops or settings.crop_scale >= 1:
            return task.train.features()
        purpose = ("prototype crop", task.index)
        return torch.cat(
            [
                self.backbone.encode_images(random_crops(pixels, settings.crop_scale, self.draws, *purpose, batch))
                for batch, pixels in enumerate(task.train.batches("pixels", IMAGES_AT_ONCE))
            ]
        )

    def prompts_of(self, c: int) -> list[str]:
        """Every template of a class, filled with its name."""
        return [template.format(self.scenario.class_names[c]) for template in self.scenario.templates[c]]

    # -- experts --------------------------------------------------------------------------------------------------

    def forget_experts(self) -> None:
        """`clip` is no expert's any more, and their class vectors are to be made again: they follow from what is kept."""
        self.lent_to: int | None = None
        self.expert_vectors: dict[tuple[int, int], torch.Tensor] = {}  # (task, class) -> (D,)

    def lend(self, task: int) -> None:
        """Make `clip` the rebuilt expert of a task."""
        if self.lent_to != task:
            self.layout.write(self.clip, self.initial() + self.changes.change(task))
            self.lent_to = task

    def expert_logits(self, task: int, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """(b, C) scores by the rebuilt expert of a task."""
        self.lend(task)
        missing = [c for c in classes if (task, c) not in self.expert_vectors]
        if missing:
            made = self.backbone.classifier(self.scenario.prompts_of(missing), clip=self.clip)
            self.expert_vectors |= {(task, c): vector for c, vector in zip(missing, made)}
        vectors = torch.stack([self.expert_vectors[task, c] for c in classes])
        return self.backbone.logit_scale * F.normalize(self.clip.encode_image(batch), dim=-1) @ vectors.T

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        batch = self.as_tested(batch)
        by_rule: dict[Rule, list[int]] = {}  # columns whose classes are scored in the same way
        for column, c in enumerate(classes):
            by_rule.setdefault(self.rule(c), []).append(column)
        features = batch.new_zeros(0, self.class_vectors.shape[1])  # of no image, where no class is scored by them
        if by_rule.keys() & {"initial", "similarity"}:
            features = F.normalize(self.backbone.encode_images(batch), dim=-1)  # norm(f0(x)) (b, D)
        scores = torch.empty(len(batch), len(classes), dtype=self.class_vectors.dtype, device=self.device)
        for rule, columns in by_rule.items():
            own = [classes[column] for column in columns]
            if isinstance(rule, int):
                scores[:, columns] = self.expert_logits(rule, batch, own)
            elif rule == "initial":
                scores[:, columns] = self.initial_logits(features, own)
            else:
                scores[:, columns] = self.logits_by_similarity(batch, features, own)
        return scores

    def rule(self, c: int) -> Rule:
        """What scores a class: the expert of a task, the "initial" CLIP, or experts by "similarity"."""
        settings, task = self.settings, self.scenario.task_of_class[c]
        if not self.scenario.task_known or settings.scores == "similarity":
            return "similarity"
        if task >= len(self.changes):
            return "initial" if settings.scores == "task" else "similarity"
        return "initial" if settings.faithful_first_task and len(self.changes) == 1 else task

    def initial_logits(self, features: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """(b, C) scores by the initial CLIP of its unit features (b, D)."""
        return self.backbone.logit_scale * features @ self.class_vectors[list(classes)].T

    def logits_by_similarity(self, batch: torch.Tensor, features: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """(b, C) mean of the scores by the initial CLIP and by the experts of the most similar tasks of each image."""
        total = self.initial_logits(features, classes)
        nearest = self.nearest_tasks(features)  # (b, k)
        for task in nearest.unique().tolist():
            rows = torch.nonzero((nearest == task).any(dim=1)).flatten()
            total[rows] += self.expert_logits(task, batch[rows], classes)
        return total / (1 + nearest.shape[1])

    def nearest_tasks(self, features: torch.Tensor) -> torch.Tensor:
        """(b, k) the K learned tasks, or all if fewer, with the prototypes nearest to unit features (b, D)."""
        n = len(self.changes)
        if n == 0:
            return torch.zeros(len(features), 0, dtype=torch.long, device=features.device)
        owner = torch.tensor(self.scenario.task_of_class, device=features.device)
        similarities = features @ self.prototypes.T  # (b, N)
        of_tasks = torch.stack([similarities[:, owner == task].amax(dim=1) for task in range(n)], dim=1)  # (b, n)
        return of_tasks.topk(min(self.settings.experts, n), dim=1).indices

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def state_dict(self, *arguments, **options):
        """Without `clip`, which every use fills anew: experts are kept as `changes`."""
        state = super().state_dict(*arguments, **options)
        return {name: value for name, value in state.items() if not name.startswith("clip.")}

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        lent = {f"clip.{name}": value for name, value in self.clip.state_dict().items()}
        loaded = super().load_state_dict({**lent, **state_dict}, strict=strict, assign=assign)
        self.forget_experts()
        return loaded
