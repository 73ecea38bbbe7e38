"""RAIL: ridge regression on frozen image features beside zero-shot CLIP, in a primal and a dual form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from bench import BenchError, Method, Range, RunFailure, Task, setting
from bench.system.memory import available_memory
from methods.closed_form.ridge import GramRidge, RecursiveRidge, SampleRidge
from methods.shared.class_names import check_template


@dataclass(frozen=True)
class RAILSettings:
    """The fusion with zero-shot CLIP, which both forms share."""

    fusion_weight: float = setting(0.8, "weight b of the regression beside the zero-shot probabilities", search=Range(0.1, 1.0))
    temperature: float = setting(
        100.0, "factor on the cosines of zero-shot CLIP, whatever its logit scale", search=Range(10.0, 200.0, log=True)
    )
    label_space: Literal["seen", "all"] = setting(
        "seen",
        "class-incremental streams: the classes whose names are known; in task-agnostic ones the stream says it",
        "harness",
    )
    template: str | None = setting(None, "one prompt template for all classes; none: those of the protocol", "harness")

    def __post_init__(self):
        if not 0 <= self.fusion_weight <= 1:
            raise BenchError(f"fusion_weight={self.fusion_weight}: choose a value from 0 to 1")
        check_template("template", self.template)


@dataclass(frozen=True)
class RAILPrimalSettings(RAILSettings):
    expansion: int = setting(15000, "width m of the random expansion")
    ridge: float = setting(0.1, "lambda of the ridge regression", search=Range(1e-3, 100.0, log=True))
    solver: Literal["recursive", "gram", "woodbury"] = setting(
        "recursive", "recursion over batches, one solution per task from H^T H, or one among the (kept) samples", "harness"
    )
    rows: int = setting(1024, "images per step of the recursion (authors: 128); does not influence the result", "harness")

    def __post_init__(self):
        super().__post_init__()
        if self.expansion < 1 or self.rows < 1 or not self.ridge > 0:
            raise BenchError("rail-primal needs expansion and rows of at least 1 and a positive ridge")


@dataclass(frozen=True)
class RAILDualSettings(RAILSettings):
    gamma: float = setting(0.1, "of the kernel exp(-gamma |f - f'|^2)", search=Range(0.01, 3.0, log=True))
    ridge: float = setting(
        1e-3,
        "lambda of the ridge regression; the authors' configuration file has 0.1, their code this",
        search=Range(1e-5, 1.0, log=True),
    )

    def __post_init__(self):
        super().__post_init__()
        if not (self.gamma > 0 and self.ridge > 0):
            raise BenchError("rail-dual needs a positive gamma and a positive ridge")


class RAIL(Method):
    """What both forms share: the classes seen so far, and the fusion of a regression with zero-shot CLIP.

    A subclass regresses one-hot targets on unit features f(x) = norm(E_img(x)) (d,): `remember` takes a task's images,
    `regression` gives outputs (b, n) for the n classes seen.
    """

    recipes = {
        "xtail*": {"label_space": "all", "template": "a photo of a {}."},
    }
    paper = (
        '"Advancing Cross-domain Discriminability in Continual Learning of Vision-Language Models", Xu et al., '
        "NeurIPS 2024, arXiv 2406.18868"
    )
    inputs = "features"
    class_vectors: torch.Tensor
    n_seen: torch.Tensor

    on_embeddings = {"template": None}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("features", "texts") if self.settings.template is None else ("towers",)

    def prepare(self) -> None:
        every_class = range(len(self.scenario.class_names))
        text = self.backbone.classifier(self.scenario.prompts_of(every_class, self.settings.template))
        self.register_buffer("class_vectors", text)  # t_c (N, d), unit
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.long))
        owner = torch.tensor(self.scenario.task_of_class)
        self.task_sizes = owner.unique_consecutive(return_counts=True)[1].tolist()

    def learn(self, task: Task) -> None:
        self.n_seen.fill_(task.classes[-1] + 1)  # classes are numbered as they come
        self.remember(F.normalize(task.train.features(), dim=-1), task.train.labels.to(self.device), int(self.n_seen))

    def remember(self, features: torch.Tensor, labels: torch.Tensor, n_classes: int) -> None:
        """Learn from unit features (n, d) of one task; n_classes have been seen, this task's included."""
        raise NotImplementedError

    def regression(self, features: torch.Tensor) -> torch.Tensor:
        """(b, n) outputs for unit features (b, d) and the n classes seen."""
        raise NotImplementedError

    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        return self.scores(batch)[:, list(classes)]

    def scores(self, batch: torch.Tensor) -> torch.Tensor:
        """(b, N) of all classes of the stream; not logits: what is learned lies between about 0 and 1."""
        features, n, b = F.normalize(batch, dim=-1), int(self.n_seen), self.settings.fusion_weight
        zero_shot = self.settings.temperature * features @ self.class_vectors.T  # (b, N)
        everything = zero_shot.softmax(dim=-1)
        if n == 0:
            return self._within_tasks(zero_shot) if self.scenario.task_known else everything
        adapter = self.regression(features).to(everything)  # (b, n)
        if self.scenario.task_known:
            p = self._within_tasks(zero_shot)
            return torch.cat([(1 - b) * p[:, :n] + b * adapter, p[:, n:]], dim=-1)
        looks_seen = everything.argmax(dim=-1, keepdim=True) < n  # (b, 1)
        if self.settings.label_space == "all" or self.scenario.names_known:
            return torch.where(looks_seen, (1 - b) * everything + b * F.pad(adapter, (0, everything.shape[1] - n)), everything)
        seen = (1 - b) * zero_shot[:, :n].softmax(dim=-1) + b * adapter
        # an image that looks like no seen class belongs to an unseen one: they all come before the seen classes
        unseen = torch.where(looks_seen, (1 - b) * everything[:, n:], seen.amax(dim=-1, keepdim=True) + everything[:, n:])
        return torch.cat([seen, unseen], dim=-1)

    def _within_tasks(self, zero_shot: torch.Tensor) -> torch.Tensor:
        """(b, N) zero-shot probabilities of each class among those of its own task."""
        return torch.cat([part.softmax(dim=-1) for part in zero_shot.split(self.task_sizes, dim=-1)], dim=-1)


class RAILPrimal(RAIL):
    """RAIL, primal form: ridge regression on randomly expanded image features, fused with zero-shot CLIP.

    Paper: "Advancing Cross-domain Discriminability in Continual Learning of Vision-Language Models", Y. Xu, Y. Chen,
    J. Nie, Y. Wang, H. Zhuang, M. Okumura, NeurIPS 2024, arXiv 2406.18868.

    Nothing is trained by gradients. With f(x) (d,) the unit image feature, W_e (m, d) drawn once and uniform within
    1/sqrt(d) of 0, one-hot targets Y over the n classes seen so far:

        h(x) = relu(W_e f(x))                                          (m,)
        W    = (H^T H + lambda I)^-1 H^T Y over all samples so far     (m, n)  closed_form/ridge.py
        a(x) = h(x) W                                                  (n,)       regression: about 0 to 1

    so every task leaves the solution of joint ridge regression, whatever the order. What is kept of the past is one matrix
    (m, m), 1.8 GB for m = 15000 and half of it in a checkpoint; up to m / 2 images as many rows that say the same. Fusion at
    test time, with p = softmax(temperature f . t_c) over the label space and t_c the unit text feature of class c:

        score = (1 - b) p + b [a, 0]     if argmax p is a class already seen (0 for the classes not seen)
        score = p                        otherwise: exactly zero-shot CLIP

    The label space is that of the scenario. X-TAIL (task-agnostic, or label_space "all"): all classes of the stream, whose
    names are known in advance. Class-incremental ("seen"): the classes seen so far, so the condition always holds; where the
    evaluation asks for unseen classes too, a seen class keeps that score, and an image whose argmax p over all classes is an
    unseen class gets every unseen class ahead of the seen ones, in the order of p, as the rule above would have it.
    Task-incremental (MTIL): the classes of the image's task; learned tasks are fused, the others are zero-shot.

    Deviations from the authors' code. It passes once over random crops, 128 at a time; here images are cached as they are, so
    the result has no draw but W_e. It recurs in float32, which drifts; here everything is float64. The solver is a choice
    without influence but rounding. "recursive" is the default: where a task has few images against m, it needs less time and
    memory than "gram", which is faster where a task has many. "woodbury" is the fastest for few images in all, and keeps every
    image feature instead of the matrix, which counts as stored training data. The released evaluation is X-TAIL's only; the
    other two are ours.

    Raises BenchError for impossible settings.
    """

    Settings = RAILPrimalSettings
    settings: RAILPrimalSettings
    # the mini world's features are 128 wide, not 512; and 32 MB of state instead of 1.8 GB make a run one of seconds
    recipes = {**RAIL.recipes, "mini*": {"expansion": 2000}}
    quick = {"expansion": 200}
    version = "2"  # the recursion begins with few images solved among themselves, which rounds otherwise
    trains = "one linear map of randomly expanded image features, in closed form; CLIP is frozen"
    conformance = "checked: solution after every task by all three solvers, outputs, fusion in X-TAIL's label space, predictions"

    expansion: torch.Tensor
    weights: torch.Tensor
    ridge: RecursiveRidge | GramRidge | SampleRidge

    def prepare(self) -> None:
        super().prepare()
        settings, d = self.settings, self.backbone.embedding_width
        with self.draws.initialising("expansion"):
            expansion = torch.nn.Linear(d, settings.expansion, bias=False).weight.detach()
        self.register_buffer("expansion", expansion)  # W_e (m, d)
        if settings.solver == "recursive":
            self.ridge = RecursiveRidge(self.expand, settings.ridge, settings.rows)
        elif settings.solver == "gram":
            self.ridge = GramRidge(self.expand)
        else:
            self.ridge = SampleRidge(d, self.expanded_kernel, settings.ridge)
        if settings.solver != "recursive":
            self.register_buffer("weights", torch.zeros(settings.expansion, 0, dtype=torch.float64))  # W (m, n)

    def expand(self, features: torch.Tensor) -> torch.Tensor:
        """h (n, m) of unit features (n, d)."""
        return F.relu(features @ self.expansion.T)

    def expanded_kernel(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        expanded = self.expand(left).double()
        return expanded @ (expanded if left is right else self.expand(right).double()).T

    def remember(self, features: torch.Tensor, labels: torch.Tensor, n_classes: int) -> None:
        if isinstance(self.ridge, SampleRidge):
            refuse_too_many(self.ridge, len(features))
        self.ridge.add(features, labels, n_classes)
        if isinstance(self.ridge, SampleRidge):
            self.weights = self.expand(self.ridge.inputs).double().T @ self.ridge.alpha
        elif isinstance(self.ridge, GramRidge):
            self.weights = self.ridge.solve(self.settings.ridge)

    def regression(self, features: torch.Tensor) -> torch.Tensor:
        weights = self.ridge.weights if isinstance(self.ridge, RecursiveRidge) else self.weights
        return self.expand(features).double() @ weights

    def exemplar_bytes(self) -> int:
        return self.ridge.bytes if isinstance(self.ridge, SampleRidge) else 0


class RAILDual(RAIL):
    """RAIL, dual form: kernel ridge regression on all image features so far, fused with zero-shot CLIP.

    Paper: "Advancing Cross-domain Discriminability in Continual Learning of Vision-Language Models", Y. Xu, Y. Chen,
    J. Nie, Y. Wang, H. Zhuang, M. Okumura, NeurIPS 2024, arXiv 2406.18868.

    Nothing is trained by gradients. The unit features f_i (d,) of ALL training images of all tasks are kept; with their
    one-hot targets Y (s, n) over the n classes seen:

        k(f, f') = exp(-gamma |f - f'|^2),     alpha = (K + lambda I)^-1 Y     (s, n)
        a(x)     = k(f(x), f_1 .. f_s) alpha                                   (n,)

    The fusion with zero-shot CLIP is that of the primal form (`bench show rail-primal`).

    The kept features are training data: no protocol's exemplar limit is applied to them, since without them the method does
    not exist, but the results state their bytes. Time and memory grow with the number of images: b new ones cost about
    4 s^2 b operations, and s^2 numbers are held, 2.5 GB for 1100 classes x 16 images; for few-shot streams only.

    Deviations from the authors' code: images are cached as they are instead of cropped at random; solutions are in float64;
    only X-TAIL's label space is in their code.

    Raises BenchError for impossible settings.
    """

    Settings = RAILDualSettings
    settings: RAILDualSettings
    trains = "one weight per training image and class, in closed form; CLIP is frozen"
    conformance = "checked: solution after every task, outputs, fusion in X-TAIL's label space, predictions"

    def prepare(self) -> None:
        super().prepare()
        self.ridge = SampleRidge(self.backbone.embedding_width, self.kernel, self.settings.ridge)

    def kernel(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """(n, n') of features (n, d) and (n', d)."""
        left, right = left.double(), right.double()
        squares = left.square().sum(dim=1, keepdim=True) + right.square().sum(dim=1) - 2 * left @ right.T
        return torch.exp(-self.settings.gamma * squares)

    def remember(self, features: torch.Tensor, labels: torch.Tensor, n_classes: int) -> None:
        refuse_too_many(self.ridge, len(features))
        self.ridge.add(features, labels, n_classes)

    def regression(self, features: torch.Tensor) -> torch.Tensor:
        return self.kernel(features, self.ridge.inputs) @ self.ridge.alpha

    def exemplar_bytes(self) -> int:
        return self.ridge.bytes


def refuse_too_many(kept: SampleRidge, new: int) -> None:
    """RunFailure if the pairs of the images so far and so many new ones do not fit into memory.

    A system that promises more memory than it has would end the process in the middle, and others with it. Needed are the longer
    factor, and two matrices with a column for every new image; the factor that is there already is held as well.
    """
    before, on_cpu = len(kept.inputs), kept.inputs.device.type == "cpu"
    needed = 8 * ((before + new) ** 2 + 2 * before * new)
    free = available_memory() if on_cpu else 0  # CUDA says by itself that it has no more
    if free and needed > free:
        raise RunFailure(
            f"all pairs of {before + new} training images are held, for which {needed / 1e9:.0f} GB more are needed and "
            f"{free / 1e9:.0f} GB are free; take fewer images of each class (--limit-train, or few shots)"
        )
