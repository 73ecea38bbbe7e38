"""CLAP: a distribution for every class on top of frozen text features, conditioned on the images of the batch."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from bench import BenchError, Split, Task, TestBatches
from methods.clap.adapters import Gaussian, ProbabilisticAdapters, divergence, orthogonality, past_task_regularisation
from methods.clap.head import ClapHead, VisualGuidedAttention
from methods.clap.settings import MINI, ClapSettings
from methods.shared.memory import exemplars_per_class
from methods.shared.rehearsal import Rehearsal, TrainingSet
from methods.shared.schedules import warm_cosine_per_iteration
from methods.shared.selection import mix_samples_as_released


class Competing(NamedTuple):
    """The classes that compete in a loss."""

    classes: torch.Tensor  # (K,) ascending
    tasks: torch.Tensor  # (K,) the task of each
    prompts: Any  # what a variant needs to encode their text anew


class Inputs(NamedTuple):
    """What enters the attention: unit image features x (b, d) and unit text features h (K, d)."""

    images: torch.Tensor
    text: torch.Tensor
    own: torch.Tensor | None = None  # (b, K) a cosine that each image adds by itself (AttriCLIP)
    penalty: torch.Tensor | float = 0.0  # a loss of the variant's own


class Terms(NamedTuple):
    """The parts of the loss, weighted."""

    cross_entropy: torch.Tensor
    regularisation: torch.Tensor | float  # beta * R (+ orthogonality)
    prior: torch.Tensor | float  # prior_weight * KL
    penalty: torch.Tensor | float


class Clap(Rehearsal):
    """CLAP: task-specific distributions over the class vectors, from hand-made prompts and the images of the batch.

    Paper: "CLAP4CLIP: Continual Learning with Probabilistic Finetuning for Vision-Language Models", S. Jha, D. Gong, L. Yao,
    NeurIPS 2024, arXiv 2403.19137.

    With x_b (d,) the unit feature of an image of the batch, e_kp (d,) the unit text feature of class k in its hand-made prompt
    p, h_k = norm(mean_p e_kp), s the logit scale, and i the task of class k:

        v      = attention(h; x_1 .. x_B)                     (K, d), methods/clap/head.py
        u_k    = h_k + v_k
        q(z_k) = Normal(mu_i(u_k), sigma_i(u_k)^2)            adapters of task i, methods/clap/adapters.py
        logit  = s x_b . (z_k^(r) + u_k)                      r = 1 .. S samples; the class weight is not normalised again
        L      = CE + beta R + 0.001 KL(q || prior)

    CE is the mean over samples and images of the cross-entropy over all classes seen. R asks every sampled z_k to be closer to
    the prompts of class k than to those of the other classes of its task. Both R and KL are sums over tasks of means over
    classes: over the current task in the main phase, over all tasks in the consolidation.

    A task has two phases. Main: its images and the exemplars, one shuffled set; attention and the newest adapters are
    trained, older adapters are frozen. Their weights start from the language features of all classes seen so far. Then the
    exemplars are updated, and consolidation trains all adapters on the exemplars alone, at a tenth of the rate, with the
    attention frozen and without dropout; none without exemplars. Under a compute budget (Scenario.images_per_task) the two
    phases share it in proportion to the images that they would go through. SGD without momentum, the rate rising over 30 % of
    the main phase's steps, then falling along a cosine. Features are cached and frozen: no image is encoded in training.

    Prediction averages the logits over S samples. They are linear in the noise, so one product with its mean is exact. Because
    the attention sees the batch, every score depends on the other test images of its batch. As published, a batch holds
    images of one task: a transductive setting that tells which images belong together. `test_batches` sets the composition
    (task, mixed, single), and results record it. The noise of a class is the same for all batches of a run.

    An unseen class attends like the others (its task is a block of its own) and is scored by u_k, without adapters
    (unseen_adapter none), or by those of the newest task: the released code never scores one. Before the first task the
    scores are zero-shot CLIP's.

    The switches of the paper's Table 3: variational, visual_attention, balanced_epochs=0 (no consolidation),
    adapter_per_task, language_aware_start, regularisation=0. Priors: standard normal; data-driven, the distribution in
    view of a random part of the batch; language-aware, Normal(mu_i(m_k), sigma_i(m_k)) with m_k = mean_p e_kp.

    Defaults are those of the released code where it differs from the paper: batches of 32 and rates scaled with them (paper:
    64, 1e-3), one head of attention, R on the current task in the main phase (paper: on past tasks), exemplars that are the
    first of each class. Deviations from it: float32 throughout (theirs is half precision on a GPU); test noise drawn once per
    run, not per batch; a flip is the cached plain or mirrored view, half of the images each, drawn anew for every epoch; the
    data-driven prior also works from the second task on (there it stops with a wrong mask) and every class sees the whole
    mask; a single hand-made prompt has variance 0 (there NaN); scores by any class list. Not here: the code's unused
    hierarchical adapter, distillation and deterministic path, and its rule that lowers the rate for good once a data set is
    smaller than a batch.

    Raises BenchError for settings out of range or heads that do not divide d; RunFailure when the loss is not finite.
    """

    Settings = ClapSettings
    settings: ClapSettings
    recipes = {"mini*": MINI}
    quick = {"epochs": 2}
    paper = (
        '"CLAP4CLIP: Continual Learning with Probabilistic Finetuning for Vision-Language Models", Jha, Gong and Yao, '
        "NeurIPS 2024, arXiv 2403.19137"
    )
    trains = "attention over texts and images, two adapters per task; both encoders and the logit scale are frozen"
    conformance = (
        "checked: attention alone; language-aware start, losses, gradients, rates, parameters and logits of both phases over "
        "two tasks, exemplars, novelty scores; priors and switches as single passes; not checked: dropout"
    )

    # -- state --------------------------------------------------------------------------------------------------

    language_means: torch.Tensor  # (N, d) m_k
    language_variances: torch.Tensor  # (N, d) v_k
    task_of_class: torch.Tensor  # (N,)

    @property
    def needs(self) -> tuple[str, ...]:
        return self.needs_if_frozen

    def prepare(self) -> None:
        super().prepare()
        s, width = self.settings, self.backbone.embedding_width
        heads = s.attention_heads or max(1, width // 64)
        if width % heads:
            raise BenchError(f"attention_heads={heads} does not divide the joint width {width} of {self.backbone.name}")
        prompts = self.language_features()
        means = torch.stack([features.mean(dim=0) for features in prompts])
        # a single prompt has no variance; several similar ones have next to none
        variances = torch.stack([features.var(dim=0, correction=min(1, len(features) - 1)) for features in prompts])
        self.register_buffer("language_means", means, persistent=False)
        self.register_buffer("language_variances", variances, persistent=False)
        self.register_buffer("task_of_class", torch.tensor(self.scenario.task_of_class), persistent=False)
        attention = None
        if s.visual_attention:
            with self.draws.initialising("attention"):
                attention = VisualGuidedAttention(width, heads, s.attention_width, s.attention_dropout)
        adapters = ProbabilisticAdapters(width, s.adapter_layer_norm, s.variational)
        self.head = ClapHead(width, attention, adapters, s.adapter_per_task, s.task_tokens)
        self._mean_noise: dict[int, torch.Tensor] = {}  # of the test samples, by task; can be drawn again at any time

    def language_features(self) -> list[torch.Tensor]:
        """For each class of the stream (P, d): unit text features of its hand-made prompts."""
        texts = [t.format(name) for name, templates in zip(self.scenario.class_names, self.scenario.templates) for t in templates]
        features = F.normalize(self.backbone.encode_text(texts), dim=-1)
        return [part.clone() for part in features.split([len(templates) for templates in self.scenario.templates])]

    def grow(self, task: Task) -> None:
        self.head.grow(task.index, self.draws)
        self.to(self.device)

    # -- learning -----------------------------------------------------------------------------------------------

    def start_task(self, task: Task) -> None:
        if self.settings.language_aware_start:
            self.head.adapters.start_from_language(self.language_means[self.seen], self.language_variances[self.seen])

    def fit(
        self, training: TrainingSet, epochs: int, peak: float, task: int, budget: int | None = None, phase: str = ""
    ) -> list[float]:
        s = self.settings
        peak = peak * (s.batch_size / 20 if s.scale_rate_with_batch else 1)
        with self._training_only(self.trained_parameters(phase)), self.draws.initialising("dropout", phase, task):
            self.head.train(phase == "" or s.attention_in_consolidation)
            return super().fit(training, epochs, peak, task, budget, phase)

    def schedule(self, peak: float, steps: int, phase: str) -> list[float]:
        warm_up = self.settings.warm_up if phase == "" else 0.0
        return warm_cosine_per_iteration(peak, steps, self.settings.cosine_floor, warm_up)

    def trained_parameters(self, phase: str) -> list[torch.nn.Parameter]:
        """Main phase (""): all but the adapters of earlier tasks. Consolidation: all adapters, and no attention."""
        attention = self.head.attention
        kept: list[torch.nn.Parameter] = []
        if phase == "":
            kept = self.head.of_earlier_tasks()
        elif attention is not None and not self.settings.attention_in_consolidation:
            kept = list(attention.parameters())
        frozen = {id(p) for p in kept}
        return [p for p in self.parameters() if id(p) not in frozen]

    @contextlib.contextmanager
    def _training_only(self, chosen: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """Only these parameters require a gradient inside, those of them that do outside."""
        before = [(p, p.requires_grad) for p in self.parameters()]
        trained = {id(p) for p in chosen}
        try:
            for p, required in before:
                p.requires_grad_(required and id(p) in trained)
            yield
        finally:
            for p, required in before:
                p.requires_grad_(required)

    def text_of(self, classes: torch.Tensor) -> Competing:
        return Competing(classes, self.task_of_class[classes], self.prompts_of(classes))

    def loss(self, text: Competing, images: torch.Tensor, columns: torch.Tensor, *purpose: object) -> torch.Tensor:
        phase, task, step = purpose  # so Rehearsal.fit names a step
        assert isinstance(phase, str) and isinstance(task, int) and isinstance(step, int)
        terms = self.terms(text, images, columns, phase, task, step)
        return terms.cross_entropy + terms.regularisation + terms.prior + terms.penalty

    def terms(self, text: Competing, images: torch.Tensor, columns: torch.Tensor, phase: str, task: int, step: int) -> Terms:
        """The weighted terms of a step's loss; `columns` (b,) are the labels as positions in `text.classes`."""
        s = self.settings
        inputs = self.training_inputs(text, images)
        u = self.head.attend(inputs.text, inputs.images, text.tasks)
        q = self.head.distributions(u, text.tasks)
        z = q.samples(self.draws.normal((s.train_samples, *u.shape), "noise", phase, task, step).to(self.device))  # (S, K, d)
        logits = self.sample_logits(inputs, z + u)  # (S, b, K)
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), columns.repeat(len(logits)))
        concerned = torch.nonzero(text.tasks == task if phase == "" else text.tasks >= 0).flatten()
        tasks, language = text.tasks[concerned], self.language_means[text.classes[concerned]]
        regularisation: torch.Tensor | float = 0.0
        if s.regularisation:
            regularisation = s.regularisation * past_task_regularisation(z[:, concerned], language, tasks)
        if s.orthogonality:
            regularisation = regularisation + s.orthogonality * orthogonality(z)
        prior: torch.Tensor | float = 0.0
        if s.variational and s.prior_weight:
            of_all = self._prior(text, inputs, phase, task, step)
            of_concerned = None if of_all is None else of_all.rows(concerned)
            prior = s.prior_weight * divergence(q.rows(concerned), of_concerned, tasks)
        return Terms(cross_entropy, regularisation, prior, inputs.penalty)

    def _prior(self, text: Competing, inputs: Inputs, phase: str, task: int, step: int) -> Gaussian | None:
        """The prior of every competing class; None is the standard normal distribution. Gradients flow into it."""
        s = self.settings
        if s.prior == "language-aware":
            return self.head.distributions(self.language_means[text.classes], text.tasks)
        if s.prior == "data-driven" and (phase == "" or s.prior_in_consolidation):
            n = len(inputs.images)
            chosen = self.draws.permutation(n, "prior images", phase, task, step)[: math.ceil(s.prior_images * n)]
            u = self.head.attend(inputs.text, inputs.images[chosen.to(self.device)], text.tasks)
            return self.head.distributions(u, text.tasks)
        return None

    def sample_logits(self, inputs: Inputs, weights: torch.Tensor) -> torch.Tensor:
        """(S, b, K) logits s x_b . w_k for sampled class weights (S, K, d)."""
        cosines = inputs.images @ weights.transpose(1, 2)
        return self.backbone.logit_scale * (cosines if inputs.own is None else cosines + inputs.own)

    # -- what a variant of the prompts replaces -----------------------------------------------------------------

    def prompts_of(self, classes: torch.Tensor) -> Any:
        """What `training_inputs` needs to encode the text of the classes; made once per phase."""

    def training_inputs(self, text: Competing, images: torch.Tensor) -> Inputs:
        """With gradients to whatever prompts are learned."""
        return Inputs(F.normalize(images, dim=-1), self.class_vectors[text.classes])

    def test_inputs(self, batch: torch.Tensor, classes: torch.Tensor) -> Inputs:
        """From what `store_class_vectors` has stored."""
        return Inputs(F.normalize(batch, dim=-1), self.class_vectors[classes])

    # -- scoring ------------------------------------------------------------------------------------------------

    @property
    def test_batches(self) -> TestBatches:
        return TestBatches(self.settings.test_batches, self.settings.batch_size)

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Means over the test samples, exactly: logits are linear in the noise, so its mean is enough.

        The batch is what the attention sees. All classes learned so far are always scored, and `classes` picks columns.
        """
        return self._scored(batch, classes, self._mean_test_noise)[0]

    @torch.no_grad()
    def sampled_logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """(S, b, len(classes)) logits of every test sample: their spread says how uncertain the model is."""
        return self._scored(batch, classes, self.test_noise)

    def _scored(self, batch: torch.Tensor, classes: Sequence[int], noise: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """(S, b, len(classes)); `noise` gives (S, classes of a task, d) for a task."""
        wanted = torch.as_tensor(list(classes), device=self.device)
        involved = torch.cat([self.task_of_class[self.seen], self.task_of_class[wanted]]).unique()  # whole tasks
        context = torch.nonzero(torch.isin(self.task_of_class, involved)).flatten()
        tasks = self.task_of_class[context]
        inputs = self.test_inputs(batch, context)
        if not len(self.seen):
            weights = inputs.text.unsqueeze(0)
        else:
            u = self.head.attend(inputs.text, inputs.images, tasks)
            adapted = (tasks <= self.task_of_class[self.seen[-1]]) | (self.settings.unseen_adapter == "newest")
            q = self.head.distributions(u[adapted], tasks[adapted])
            z = q.samples(torch.cat([noise(task) for task in tasks[adapted].unique().tolist()], dim=1))
            weights = u.repeat(len(z), 1, 1)  # (S, K, d)
            weights[:, adapted] += z
        return self.sample_logits(inputs, weights)[:, :, torch.searchsorted(context, wanted)]

    def test_noise(self, task: int) -> torch.Tensor:
        """(S, classes of the task, d), the same whenever and for whichever batch it is asked for."""
        shape = (self.settings.test_samples, int((self.task_of_class == task).sum()), self.backbone.embedding_width)
        if not self.settings.test_samples:
            return torch.zeros(1, *shape[1:], device=self.device)
        return self.draws.normal(shape, "test noise", task).to(self.device)

    def _mean_test_noise(self, task: int) -> torch.Tensor:
        if task not in self._mean_noise:
            self._mean_noise[task] = self.test_noise(task).mean(dim=0, keepdim=True)
        return self._mean_noise[task]

    # -- exemplars ----------------------------------------------------------------------------------------------

    def remember(self, train: Split) -> None:
        """Update the exemplars. Most rules look at what the model, as it is now, makes of every candidate."""
        rule, per_class = self.settings.exemplar_rule, exemplars_per_class(self.scenario, len(self.seen))
        if rule == "first" or not per_class:
            return super().remember(train)
        with torch.no_grad():
            self.store_class_vectors()
        every = torch.arange(len(train))
        images = self._features(train) if self.inputs == "features" else self.backbone.to_uint8(self._pixels_of(train, every))
        purpose = ("exemplars", int(self.task_of_class[self.seen[-1]]))
        self.memory.update(
            images, train.labels.to(self.device), per_class, rule, self._candidate_logits, self.draws, purpose
        )

    def _candidate_logits(self, images: torch.Tensor) -> torch.Tensor:
        """(n, S, K) of stored images, in their order, a training batch at a time: so the code scores candidates."""
        s = self.settings
        found = []
        self.eval()
        for part in images.split(s.batch_size):
            batch = part[:, 0] if self.inputs == "features" else self.backbone.preprocess(part.cpu().numpy())
            found.append(self.sampled_logits(batch, self.seen.tolist()).transpose(0, 1))
        self.train()
        logits = torch.cat(found)
        if s.selection_as_released and s.exemplar_rule in ("energy", "variance"):
            logits = torch.from_numpy(mix_samples_as_released(logits.cpu().numpy(), s.batch_size))
        return logits
