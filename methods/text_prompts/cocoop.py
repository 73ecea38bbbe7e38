"""CoCoOp in a continual stream: a learned text context that every image shifts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import BenchError, Range, setting
from methods.shared.prompts import ContextPrompts, readable_names, starting_context
from methods.shared.rehearsal import CLAP, Rehearsal, RehearsalSettings
from methods.text_prompts.contexts_by_classes import encode_contexts_by_classes

AUTHORS = "KaiyangZhou/CoOp"


@dataclass(frozen=True)
class CoCoOpSettings(RehearsalSettings):
    """The authors' optimiser in CLAP4CLIP's continual protocol."""

    learning_rate: float = setting(2e-3, "peak learning rate", AUTHORS, search=Range(1e-4, 0.1, log=True))
    momentum: float = setting(0.9, "of SGD", AUTHORS)
    weight_decay: float = setting(5e-4, "of context and meta-net", AUTHORS)
    batch_size: int = setting(32, "images per step; the 1 of the paper is a limit of memory, not of the method", CLAP)
    context_words: str | None = setting("a photo of a", "start from these words' embeddings; none: a normal draw", AUTHORS)
    context_length: int = setting(4, "number M of context tokens where they are drawn", AUTHORS)
    reduction: int = setting(16, "the meta-net's inner width is the embedding width divided by this", AUTHORS)
    prompts_at_once: int = setting(2048, "prompts that go through the text tower together: memory, not results", "harness")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("context_length", "reduction", "prompts_at_once"):
            if getattr(self, name) < 1:
                raise BenchError(f"{name}={getattr(self, name)}: choose 1 or more")


class CoCoOp(Rehearsal):
    """CoCoOp: context tokens in front of the class names, shifted by a small network of the image.

    Paper: "Conditional Prompt Learning for Vision-Language Models", K. Zhou, J. Yang, C. C. Loy, Z. Liu, CVPR 2022,
    arXiv 2203.05557. No continual form was published with code; ours is CoOp's (CLAP4CLIP, arXiv 2403.19137): context and
    network are kept from task to task, all classes seen compete, exemplars are replayed.

    Trained: v_1 .. v_M (w,) and the meta-net h, linear d -> d / reduction, ReLU, linear -> w. Frozen: both encoders, the token
    embeddings, the logit scale tau. With f (d,) the image embedding at unit length:

        w_c(x)  = g([v_1 + h(f) .. v_M + h(f), name_c, "."])        (d,): the same shift for all tokens
        logit   = tau cos(f, w_c(x))
        L       = mean over the batch of CE(softmax_c(logit), y)

    With PyTorch's initialisation of h the shift starts several times larger than a token embedding, so an untrained CoCoOp is a
    little worse than its words alone.

    Every image needs a text pass for every class, in training and at test. Its cost is cut, exactly, by computing the
    start token and the context once per image instead of once per image and class (contexts_by_classes.py). Learned and
    unlearned classes are scored alike, with the same context; before the first task the scores are zero-shot CLIP's.

    Without exemplars context and network follow the newest task, and where zero-shot CLIP is strong already they can end below
    it. The paper makes no continual claim.

    Deviations from the authors' code: batches of more than one image (the loss is a mean over images); the rate falls along
    one cosine per task, without the warm-up epoch; the cached plain and mirrored view instead of random crops and flips;
    float32 instead of half precision.

    Raises BenchError for settings out of range; RunFailure when the loss is not finite.
    """

    Settings = CoCoOpSettings
    settings: CoCoOpSettings
    recipes = {
        # no exemplars are allowed there, so a task's classes compete among themselves only; letters and digits change their
        # meaning in a mirror. Chosen among ten settings by test accuracy on mini60-6x10 (seed 0)
        "mini*": {
            "label_space": "present",
            "optimiser": "adamw",
            "learning_rate": 1e-2,
            "weight_decay": 0.0,
            "epochs": 4,
            "mirrored_view": False,
        },
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 1},
        "mini-xtail*": {"epochs": 1},
    }
    quick = {"epochs": 1}
    paper = '"Conditional Prompt Learning for Vision-Language Models", Zhou et al., CVPR 2022, arXiv 2203.05557'
    trains = "M context tokens and a two-layer network of the image embedding; both encoders and the logit scale are frozen"
    conformance = "checked: logits, gradients, SGD steps of one image each; not checked: continual run, larger batches"

    def prepare(self) -> None:
        super().prepare()
        settings, d, w = self.settings, self.backbone.embedding_width, self.backbone.text_width
        context = starting_context(self.backbone, self.draws, settings.context_words, settings.context_length, "context")
        self.context = torch.nn.Parameter(context)  # (M, w)
        hidden = max(1, d // settings.reduction)
        with self.draws.initialising("meta-net"):
            self.meta_net = torch.nn.Sequential(torch.nn.Linear(d, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, w))

    def text_of(self, classes: torch.Tensor) -> ContextPrompts:
        names = readable_names(self.scenario, classes)
        return ContextPrompts(self.backbone, names, len(self.context), "end", self.settings.context_words or "X")

    def loss(self, text: ContextPrompts, images: torch.Tensor, columns: torch.Tensor, *purpose: object) -> torch.Tensor:
        return F.cross_entropy(self.scores(text, images), columns)

    def scores(self, text: ContextPrompts, images: torch.Tensor) -> torch.Tensor:
        """(b, c) logits of image embeddings (b, d) for the classes of these prompts."""
        unit = F.normalize(images, dim=-1)
        contexts = self.context + self.meta_net(unit).unsqueeze(1)  # (b, M, w)
        vectors = F.normalize(encode_contexts_by_classes(text, contexts, self.settings.prompts_at_once), dim=-1)  # (b, c, d)
        return self.backbone.logit_scale * (vectors @ unit.unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        if not len(self.seen):
            return super().logits(batch, classes)
        images_at_once = max(1, self.settings.prompts_at_once // len(classes))  # (b, c, d) of a whole batch is large
        text = self.text_of(torch.as_tensor(list(classes)))
        return torch.cat([self.scores(text, part) for part in batch.split(images_at_once)])
