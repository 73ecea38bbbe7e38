"""CoLeCLIP: a prompt for each task in the image tower, and a vocabulary of all class names that moves slowly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Range, Task, setting
from bench.clip.image_tower import blocks
from bench.clip.text_tower import encode_tokens
from methods.coleclip.image_prompts import prompted_images
from methods.coleclip.open_domain_loss import best_of_tasks, open_domain_loss
from methods.coleclip.vocabulary import Names, class_vectors, mean_distance, moved, zero_shot_vocabulary
from methods.shared.attention_lora import AttentionLoRA, ChangedTowers, projections
from methods.shared.batches import Batch, steps_within_budget
from methods.shared.descent import Descent
from methods.shared.pixels import check_crop_scale, pixel_batches, training_pixels

PROMPT_START = 0.01  # prompts are drawn uniformly from 0 to this

MTIL_EPOCHS = (
    ("aircraft", 20), ("caltech101", 10), ("cifar100", 2), ("dtd", 35), ("eurosat", 3), ("flowers", 63), ("food", 1),
    ("mnist", 2), ("oxford-pet", 18), ("stanford-cars", 8), ("sun397", 1),
)  # fmt: skip
SATELLITE = "a centered satellite photo of {}."  # EuroSAT's first template


@dataclass(frozen=True)
class CoLeCLIPSettings:
    """Defaults: MTIL."""

    lr: float = setting(
        1e-3, "learning rate of Adam, constant; Adam starts anew with every task", search=Range(1e-4, 0.03, log=True)
    )
    batch_size: int = setting(128, "images per update; the quantile is taken over them")
    epochs: int = setting(15, "passes over a task's images: 600 updates for 5000 of them, as many as the authors'", "harness")
    epochs_of_task: tuple[tuple[str, int], ...] = setting((), "pairs (task name, passes) where they differ")
    prompt_tokens: int = setting(1, "p: tokens of a task's prompt")
    rank: int = setting(5, "r of the text tower's low-rank changes, which a task draws anew and does not keep")
    lora_blocks: tuple[int, ...] = setting((), "blocks of the text tower that are changed; none given: all")
    momentum: float = setting(
        0.1,
        "m: by this share an entry of the vocabulary moves towards its class vector in every update",
        search=Range(0.02, 0.9, log=True),
    )
    penalty_weight: float = setting(
        1.0, "weight of the distance that class vectors may go from the task's start", search=Range(0.1, 10.0, log=True)
    )
    open_from: float = setting(0.5, "share of a task's updates after which classes of earlier tasks compete")
    quantile: float = setting(0.7, "of a batch, how many images at most are not shown to an earlier task's classes")
    one_list: tuple[tuple[str, str], ...] = setting(
        (), "pairs (name, template): of the data sets that share this name, only those with this template give it templates"
    )
    crop_scale: float = setting(0.9, "train on random crops of at least this share of an image's area; 1: no crops")

    def __post_init__(self):
        if min(self.batch_size, self.prompt_tokens, self.rank, self.epochs, *(n for _, n in self.epochs_of_task)) < 1:
            raise BenchError("batch_size, prompt_tokens, rank and epochs: choose 1 or more")
        for name in ("momentum", "open_from", "quantile"):
            if not 0 <= getattr(self, name) <= 1:
                raise BenchError(f"{name}={getattr(self, name)}: choose a share from 0 to 1")
        check_crop_scale(self.crop_scale)


class CoLeCLIP(Method):
    """CoLeCLIP: a learned token per task in the frozen image tower, and one slowly moving vector per class name.

    Paper: "CoLeCLIP: Open-Domain Continual Learning via Joint Task Prompt and Vocabulary Learning", Y. Li, G. Pang, W. Suo,
    C. Jing, Y. Xi, L. Liu, H. Chen, G. Liang, P. Wang, IEEE TNNLS 2025, arXiv 2403.10245. Where paper and code differ, this
    follows the code.

    Trained in task t: its prompt P_t (p, w), kept for ever, and LoRA on keys and values of the text tower with a trained scale
    for each (methods/shared/attention_lora.py), thrown away after the task. CLIP is frozen. Kept: an entry e_c (d,) for each
    class *name*, which no gradient moves.

    Of an image, in one pass (image_prompts.py), the class token's output c and q_j of each prompt, un-normalised:

        c_hat = norm(c)      v_j = norm((q_j + c) / 2)         j = 0 .. t                           (d,) each

    Vocabulary (vocabulary.py). e_c starts as z_c, the unit mean over all templates of the name by frozen CLIP; a name that
    several data sets share gets the templates of all, except `forest` and `river`, which get EuroSAT's (`one_list`). With t_c
    the unit text feature of the data set's first template by the text tower as it is, in every update

        T_c = norm((e_c + t_c) / 2)                  vector of class c in the losses
        e_c <- norm(m T_c + (1 - m) e_c)             for the classes of the task alone; T_c from before the update's step

    Loss of an update, with s = exp(logit scale) and a_c the entry at the task's start:

        first half   (CE(s c_hat . T) + CE(s v_t . T)) / 2 + mean of |T_c - a_c|     over the classes of the task
        then         from the second task on, also against the classes of earlier tasks (open_domain_loss.py)

    The quantile in that loss is over the images of the *training* batch: results depend on `batch_size`.

    Score of class c, independent of the other images and of the list of classes, without a task identity:

        max over learned tasks j that have a class of this name of s v_j . e_c;       without one: s c_hat . z_c

    So before the first task, and for classes of which nothing was learned, it is zero-shot CLIP with the templates as above. A
    class of an unlearned data set whose name is learned is scored by the learned entry and prompt. An entry goes on moving when
    its name returns in a later task, for the older data set too. Equal names of two data sets have equal scores: the first wins.

    Kept of the past: prompts of all tasks, one entry per name (`bench table --view cost`); no image, no statistics.

    Deviations from the authors' code. Theirs scores a test set of a task not yet learned among its own classes, also where it
    has no task identity otherwise; here the protocol says what competes. The distance |T_c - a_c| has no gradient below 1e-6: in
    the first update of a data set with one template it is rounding error, which Adam would make a step of full size. An
    earlier task whose names all come back has no columns (theirs: not a number). Energies are taken without overflow.
    Crops are taken from the resized and centre-cropped square. Their image tower computes all tokens with gradients; here the
    image's own tokens have none, the same numbers. Adapters and prefixes in place of LoRA are not here.

    Raises BenchError for impossible settings and other towers than transformers, RunFailure when training diverges.
    """

    Settings = CoLeCLIPSettings
    settings: CoLeCLIPSettings
    recipes = {
        "mtil-*": {"epochs_of_task": MTIL_EPOCHS, "one_list": (("forest", SATELLITE), ("river", SATELLITE))},
        # ours: about a hundred updates a task; no crops of images of 32 pixels
        "mini*": {"batch_size": 25, "epochs": 5, "crop_scale": 1.0},
    }
    quick = {"epochs": 2}
    paper = (
        '"CoLeCLIP: Open-Domain Continual Learning via Joint Task Prompt and Vocabulary Learning", Li et al., '
        "TNNLS 2025, arXiv 2403.10245"
    )
    trains = "a prompt per task in the image tower, LoRA in the text tower for the time of a task; one slow vector per class name"
    conformance = (
        "checked: vocabulary with a name that tasks share, tokens, losses of both halves, gradients, prompts, LoRA and entries "
        "over three tasks, outputs of all prompts, logits of learned and unlearned tasks; not checked: crops, data sets with one "
        "template, forest and river"
    )
    inputs = "pixels"
    prompts: torch.Tensor
    vocabulary: torch.Tensor
    n_tasks: torch.Tensor

    def prepare(self) -> None:
        settings, scenario = self.settings, self.scenario
        self.names = Names(scenario)
        self.towers = ChangedTowers(self.backbone.clip)
        every_block = blocks(self.towers.clip)
        if settings.lora_blocks and not set(settings.lora_blocks) <= set(range(len(every_block))):
            raise BenchError(f"lora_blocks: the text tower has blocks 0 to {len(every_block) - 1}")
        chosen = settings.lora_blocks or range(len(every_block))
        self.changed_blocks = [every_block[i] for i in chosen]  # of the text tower
        self.prompt_tokens = self.backbone.tokenize(scenario.prompts(range(len(scenario.class_names))))  # (N, 77)
        vocabulary = zero_shot_vocabulary(self.backbone, self.names, settings.one_list)
        self.register_buffer("vocabulary", vocabulary)  # e, or z where nothing has been learned (names, d)
        width = projections(blocks(self.backbone.clip.visual)[0]).shape[1]
        drawn = self.draws.uniform((scenario.n_tasks, settings.prompt_tokens, width), "prompts")
        self.register_buffer("prompts", PROMPT_START * drawn.to(vocabulary.dtype))  # P (tasks, p, w)
        self.register_buffer("n_tasks", torch.zeros((), dtype=torch.long))  # learned

    # -- learning -------------------------------------------------------------------------------------------------

    def learn(self, task: Task) -> None:
        settings, n = self.settings, len(task.train)
        training = TaskTraining(self, task)
        optimiser = torch.optim.Adam(training.parameters(), lr=settings.lr)
        epochs, budget = dict(settings.epochs_of_task).get(task.name, settings.epochs), self.scenario.images_per_task
        length: dict[str, Any] = {"images": n, "batch_size": settings.batch_size, "epochs": epochs}
        updates = steps_within_budget(**length, budget=budget)
        descent = Descent(self, optimiser, at_step=f"{task.name}, update", at_end=f"{task.name}, last update")

        def read(batch: Batch) -> torch.Tensor:
            purpose = ("task", task.index)
            return training_pixels(task.train, batch, self.draws, crop=settings.crop_scale, mirrored=False, purpose=purpose)

        for batch, pixels in pixel_batches(self, read, **length, budget=budget, purpose=("batch order", task.index)):
            against_others = task.index > 0 and batch.step > int(settings.open_from * updates)
            labels = task.train.labels[batch.rows].to(self.device)
            descent.step(training.loss(pixels, labels, against_others), settings.lr)
        descent.finish()
        self.prompts[task.index] = training.prompt.detach()
        self.n_tasks.fill_(task.index + 1)

    # -- scores ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        n, scale = int(self.n_tasks), self.backbone.logit_scale
        of_prompts, of_images = unit_outputs(prompted_images(self.backbone.clip.visual, batch, self.prompts[:n]))
        of_class = [self.names.of_class[c] for c in classes]
        entries = list(dict.fromkeys(of_class))  # each once: classes of one name have equal scores, to the last bit
        vectors = self.vocabulary[entries]
        scores = scale * of_images @ vectors.T
        owned = self.names.owned(n, entries).to(self.device)
        if owned.any():
            scores = torch.where(owned.any(dim=0), best_of_tasks(scale * of_prompts @ vectors.T, owned), scores)
        return scores[:, [entries.index(entry) for entry in of_class]]


class TaskTraining(torch.nn.Module):
    """What is trained on one task: its prompt, and LoRA that ends with it. It moves the method's vocabulary."""

    def __init__(self, method: CoLeCLIP, task: Task):
        super().__init__()
        settings, like = method.settings, method.prompts
        self.index, names = task.index, method.names
        self.prompt = torch.nn.Parameter(method.prompts[task.index].clone())  # P_t (p, w)
        self.lora = AttentionLoRA(method.changed_blocks, settings.rank).to(like)
        self.lora.start(self.lora.kaiming_bound, method.draws, "lora", task.index)
        self.k_scale, self.v_scale = (torch.nn.Parameter(like.new_ones(len(method.changed_blocks))) for _ in range(2))
        self.entries = names.of_task[task.index]  # of the task's names in the vocabulary
        earlier = dict.fromkeys(i for entries in names.of_task[: task.index] for i in entries)
        self.others = [i for i in earlier if i not in self.entries]
        self.owned = names.owned(task.index + 1, [*self.entries, *self.others]).to(like.device)
        first_class = [names.of_class.index(i, task.classes[0]) for i in self.entries]
        self.tokens = method.prompt_tokens[first_class]  # (C, 77)
        column = {i: k for k, i in enumerate(self.entries)}
        self.columns = torch.tensor([column[names.of_class[c]] for c in task.classes], device=like.device)
        self.first_label = task.classes[0]
        self.anchors = F.normalize(method.vocabulary[self.entries], dim=-1)  # a (C, d)
        self.belongs_to = [method]  # in a list: not a part of this module

    def loss(self, pixels: torch.Tensor, labels: torch.Tensor, against_others: bool) -> torch.Tensor:
        """The loss of an update; labels (b,) are positions in the stream's class list."""
        (method,) = self.belongs_to
        settings, scale = method.settings, method.backbone.logit_scale
        vectors = self.class_vectors()
        prompts = torch.cat([method.prompts[: self.index], self.prompt.unsqueeze(0)])
        of_prompts, of_images = unit_outputs(prompted_images(method.backbone.clip.visual, pixels, prompts))
        targets = self.columns[labels - self.first_label]
        if against_others:
            columns = torch.cat([vectors, method.vocabulary[self.others]])
            loss = open_domain_loss(of_prompts, of_images, columns, self.owned, len(vectors), targets, scale, settings.quantile)
        else:
            both = (F.cross_entropy(scale * images @ vectors.T, targets) for images in (of_images, of_prompts[:, -1]))
            loss = torch.stack([*both]).mean()
        return loss + settings.penalty_weight * mean_distance(vectors, self.anchors)

    def class_vectors(self) -> torch.Tensor:
        """T (C, d) of the task's classes; their entries move towards them."""
        (method,) = self.belongs_to
        clip = method.towers.clip
        changes = self.lora.changes(self.k_scale, self.v_scale)
        method.towers.change(method.changed_blocks, changes)
        texts = F.normalize(encode_tokens(clip, self.tokens), dim=-1)  # t (C, d)
        entries = method.vocabulary[self.entries]
        vectors = class_vectors(entries, texts)
        method.vocabulary[self.entries] = moved(entries, vectors, method.settings.momentum)
        return vectors


def unit_outputs(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of prompts, then of the class token, (b, m + 1, d) -> v (b, m, d), c_hat (b, d)."""
    of_prompts, of_images = outputs[:, :-1], outputs[:, -1]
    return F.normalize((of_prompts + of_images.unsqueeze(1)) / 2, dim=-1), F.normalize(of_images, dim=-1)
