"""CLAP and CoOp + CLAP against the released code: the same weights, noise and batches, number by number."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.results import novelty
from bench.streams.stream import SealedSplit, Task
from bench.system.randomness import Draws
from methods.clap.clap import Clap, ClapSettings
from methods.clap.clap_coop import ClapCoOp, ClapCoOpSettings
from methods.clap.head import VisualGuidedAttention


def settings_from(params: dict, **others) -> ClapSettings:
    """What all files of vectors state."""
    kind = ClapCoOpSettings if "prompt" in params else ClapSettings
    vga = params["vga"]
    assert vga["activation"] == "gelu"
    return kind(
        attention_heads=vga["heads"],
        attention_width=vga["feed_forward"],
        attention_dropout=vga["dropout"],
        regularisation=params["beta"],
        prior_weight=params["prior_weight"],
        train_samples=params["n_samples"],
        test_samples=params["n_samples"],
        batch_size=params["batch_size"],
        mirrored_view=False,
        **others,
    )


def start_attention(attention: VisualGuidedAttention, seed: int, names=None, in_proj_factor: float = 1.0) -> np.ndarray:
    """The weights of the reference run, by the rule that params.json names. Returns (sum, sum of absolutes) of each."""
    random, sums = np.random.RandomState(seed), []
    own = {f"layers.0.{name}": weights for name, weights in attention.layer.named_parameters()}
    for name in own if names is None else names:
        draw = random.uniform(-1, 1, tuple(own[str(name)].shape))
        if draw.ndim == 2:
            draw = draw / np.sqrt(draw.shape[1])
        else:
            draw = 1 + 0.1 * draw if "norm" in name and name.endswith("weight") else 0.05 * draw
        if name.endswith("in_proj_weight"):
            draw = draw * in_proj_factor
        weights = draw.astype(np.float32)
        own[str(name)].data.copy_(torch.from_numpy(weights))
        sums.append([weights.sum(dtype=np.float64), np.abs(weights).sum(dtype=np.float64)])
    return np.array(sums)


# -- the attention alone ----------------------------------------------------------------------------------------


@pytest.mark.vectors("clap", "vga_unit*", methods=("clap", "clap-coop"))
def test_attention_layer(vectors):
    params = vectors.params
    query, images = vectors.tensor("query"), vectors.tensor("context")
    sizes = torch.from_numpy(vectors["task_sizes"])
    tasks = torch.arange(len(sizes)).repeat_interleave(sizes)
    assert np.array_equal((tasks[:, None] != tasks).numpy(), vectors["attn_mask"])
    actual = {}
    for heads in params["heads"]:
        attention = VisualGuidedAttention(query.shape[1], heads, params["feed_forward"], params["dropout"]).eval()
        start_attention(attention, int(vectors["seed"]), in_proj_factor=params["in_proj_factor"])
        asked = query.clone().requires_grad_()
        out = attention(asked, images, tasks)
        (out * vectors.tensor("cotangent")).sum().backward()
        own = {f"layers.0.{name}": weights.grad for name, weights in attention.layer.named_parameters()}
        actual |= {f"out_h{heads}": out, f"grad_query_h{heads}": asked.grad}
        actual[f"grad_norms_h{heads}"] = [float(own[str(name)].double().norm()) for name in vectors["param_names"]]
    vectors.check(actual)


# -- single passes with switches --------------------------------------------------------------------------------


class GivenNoise(Draws):
    """Hands out stored arrays for noise and for the images of the data-driven prior."""

    def __init__(self, noise: Iterator[torch.Tensor], task_sizes, permutations: Iterable[torch.Tensor] = ()):
        super().__init__("vectors", "clap", 0)
        self.noise, self.task_sizes, self.permutations = noise, task_sizes, iter(permutations)

    def normal(self, shape, *purpose):
        assert purpose[0] in ("noise", "test noise")
        sizes = [shape[1]] if purpose[0] == "test noise" else self.task_sizes
        parts = []
        while sum(part.shape[1] for part in parts) < shape[1]:  # the reference draws task by task
            parts.append(next(self.noise))
            assert parts[-1].shape[1] == sizes[len(parts) - 1]
        drawn = torch.cat(parts, dim=1)
        assert drawn.shape == tuple(shape)
        return drawn

    def permutation(self, n, *purpose):
        assert purpose[0] == "prior images"
        return next(self.permutations)


SWITCHES = {  # of params.json -> settings
    "frozen_prior": lambda on: {"prior": "language-aware"} if on else {},
    "np_prior": lambda on: {"prior": "data-driven"} if on else {},
    "ortho_loss": lambda on: {"orthogonality": 5.0 if on else 0.0},
    "vga": lambda on: {"visual_attention": on},
    "adapter_per_task": lambda on: {"adapter_per_task": on},
    "task_tokens": lambda on: {"task_tokens": on},
    "lasp": lambda on: {} if on else {"regularisation": 0.0},
    "only_task_0": lambda on: {},
}


@pytest.mark.vectors("clap", "clap_variants*")
def test_switches(vectors, tiny):
    params, actual = vectors.params, {}
    order, sizes = order_of(vectors.tasks)
    position = torch.full((len(tiny.class_names),), -1)
    position[order] = torch.arange(len(order))
    labels = position[tiny.labels]
    stream = tiny.stream([tiny.class_names[c] for c in order], sizes, labels, params["templates"])
    assert params["np_prior_context_rounding"] == "ceil"
    common = settings_from(params, prior_images=params["np_prior_context_fraction"])
    for prefix, switches in params["switches"].items():
        values = {key: value for name, on in switches.items() for key, value in SWITCHES[name](on).items()}
        settings = replace(common, **values)
        stored = (vectors.tensor(f"{prefix}_noise{i}") for i in range(1000) if f"{prefix}_noise{i}" in vectors)
        permutations = (torch.from_numpy(row) for row in vectors["np_prior_context_perms"])
        draws = GivenNoise(stored, sizes, permutations)
        clap = Clap(settings, tiny.backbone, stream.scenario, Draws("vectors", "clap", 0)).eval()
        clap.draws = draws
        if clap.head.attention is not None:
            start_attention(clap.head.attention, params["vga"]["init_seed"])
        for task, consolidation in product(range(len(sizes)), ("", "ft")):
            phase = f"s{task}{consolidation}"
            if f"{prefix}_{phase}_logits" not in vectors:
                continue
            if len(clap.seen) <= sum(sizes[:task]):
                begin(clap, stream.tasks[task], vectors, sizes)
            rows = torch.from_numpy(vectors[f"batch_{phase}"])
            logits = Recorder(clap, "sample_logits")
            text = clap.text_of(clap.seen)
            with torch.no_grad():
                terms = clap.terms(text, tiny.features()[rows], labels[rows], consolidation and "balanced ", task, 0)
            actual[f"{prefix}_{phase}_logits"] = logits.last
            actual[f"{prefix}_{phase}_ce_lasp_prior"] = [float(term) for term in terms[:3]]
    vectors.check(actual)


def begin(clap: Clap, task: Task, vectors, sizes) -> None:
    """The start of a task, with the stored biases and task tokens."""
    drawn, clap.draws = clap.draws, Draws("vectors", "clap", 0)
    adapters = len(clap.head.adapters)
    clap.grow(task)
    clap.draws = drawn
    clap.seen = torch.arange(sum(sizes[: task.index + 1]))
    if len(clap.head.adapters) > adapters:
        clap.head.adapters.means[-1][1].bias.data.copy_(vectors.tensor(f"mu_bias_t{task.index}"))
        clap.head.adapters.deviations[-1][1].bias.data.copy_(vectors.tensor(f"sigma_bias_t{task.index}"))
    if clap.settings.task_tokens:
        clap.head.tokens[-1].data.copy_(vectors.tensor(f"task_token{task.index}").flatten())
    clap.start_task(task)


class Recorder:
    """Wraps a method of an object and keeps what it returned last."""

    def __init__(self, owner, name: str):
        self.call, self.last = getattr(owner, name), None
        setattr(owner, name, self)

    def __call__(self, *arguments, **named):
        self.last = self.call(*arguments, **named)
        return self.last


def order_of(tasks: list[list[int]]) -> tuple[list[int], list[int]]:
    """The classes in learning order, and the sizes of the tasks."""
    return [c for classes in tasks for c in classes], [len(classes) for classes in tasks]


# -- whole runs -------------------------------------------------------------------------------------------------


class StoredRun(Draws):
    """The draws of a whole run: noise in the order of its use, and the stored batch orders.

    `pool` holds the fixture's image numbers of the rows that the method shuffles.
    """

    def __init__(self, vectors, sizes: list[int]):
        super().__init__("vectors", "clap", 0)
        self.vectors, self.sizes, self.used, self.pool = vectors, sizes, 0, []

    def normal(self, shape, *purpose):
        if purpose[0] == "context":
            return self.vectors.tensor("ctx_init") / 0.02  # the method scales what it draws
        parts = []
        while sum(part.shape[1] for part in parts) < shape[1]:
            parts.append(self.vectors.tensor(f"noise_{self.used:03d}"))
            self.used += 1
        drawn = torch.cat(parts, dim=1)
        assert drawn.shape == tuple(shape)
        return drawn

    def permutation(self, n, *purpose):
        phase, task, epoch = purpose
        stored = self.vectors[f"t{task}_{'ft' if phase.startswith('balanced') else 'train'}_orders"][epoch].tolist()
        assert sorted(stored) == sorted(self.pool), "new images and exemplars are not those of the stored run"
        return torch.tensor([self.pool.index(image) for image in stored])


class Watched:
    """A method whose first step in each phase, every loss and every parameter afterwards are kept under the stored names."""

    def __init__(self, clap: Clap, draws: StoredRun, vectors, rows_of):
        self.clap, self.draws, self.vectors, self.rows_of = clap, draws, vectors, rows_of
        self.actual, self.steps, self.prefix = {}, [], None
        self.inner_fit, clap.fit = clap.fit, self.fit
        self.inner_terms, clap.terms = clap.terms, self.terms
        self.inner_optimiser, clap._optimiser = clap._optimiser, self.optimiser
        self.inner_start, clap.start_task = clap.start_task, self.start_task
        self.logits = Recorder(clap, "sample_logits")

    def start_task(self, task: Task) -> None:
        """The stored biases, then the language-aware weights."""
        t, adapters = task.index, self.clap.head.adapters
        for name, heads in (("mu", adapters.means), ("sigma", adapters.deviations)):
            heads[-1][1].bias.data.copy_(self.vectors.tensor(f"t{t}_{name}_bias_init"))
        self.inner_start(task)
        for name, heads in (("mu", adapters.means), ("sigma", adapters.deviations)):
            weight = heads[-1][1].weight.detach()
            rows = self.vectors[f"t{t}_{name}_weight_init_rows"].shape[0]
            self.actual[f"t{t}_{name}_weight_init_rows"] = weight[:rows].clone()
            self.actual[f"t{t}_{name}_weight_init_fro"] = float(weight.double().norm())

    def fit(self, training, epochs, peak, task, scenario=None, phase=""):
        self.prefix = f"t{task}_{'ft' if phase else 'train'}"
        self.draws.pool = self.rows_of(training.images(torch.arange(len(training.labels)), torch.zeros(len(training.labels))))
        rates = self.inner_fit(training, epochs, peak, task, scenario, phase)
        self.actual[f"{self.prefix}_lrs"] = rates
        self._keep_parameters(f"t{task}_after_{'ft' if phase else 'train'}_")
        return rates

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        names = {id(weights): self._name(name) for name, weights in self.clap.named_parameters()}
        optimiser = self.inner_optimiser(rate)
        trained = {names[id(weights)]: weights for group in optimiser.param_groups for weights in group["params"]}
        self.actual[f"{self.prefix}_trainable"] = np.array(sorted(trained))

        def first_gradients(*_) -> None:
            handle.remove()
            order = self.vectors[f"{self.prefix}_first_gradnorm_names"]
            assert set(order.tolist()) == set(trained)
            self.actual[f"{self.prefix}_first_gradnorm"] = [float(trained[str(name)].grad.double().norm()) for name in order]

        handle = optimiser.register_step_pre_hook(first_gradients)
        return optimiser

    def terms(self, text, images, columns, phase, task, step):
        seen = {}
        handles = []
        if step == 0:
            handles = [
                self.clap.head.attention.register_forward_hook(lambda module, given, out: seen.update(given=given, out=out)),
                self.clap.head.adapters.register_forward_hook(lambda module, given, out: seen.update(q=out)),
                self.clap.head.attention.layer.register_forward_pre_hook(
                    lambda module, given, named: seen.update(mask=named["tgt_mask"]), with_kwargs=True
                ),
            ]
        terms = self.inner_terms(text, images, columns, phase, task, step)
        for handle in handles:
            handle.remove()
        if step == 0:
            first = {"vga_query": seen["given"][0], "vga_context": seen["given"][1], "vga_out": seen["out"]}
            first |= {"attn_mask": seen["mask"], "labels": columns, "logits": self.logits.last}
            sizes = [int(n) for n in text.tasks.bincount()]
            for i, (mean, deviation) in enumerate(zip(seen["q"].mean.split(sizes), seen["q"].deviation.split(sizes))):
                first |= {f"mu{i}": mean, f"sigma{i}": deviation}
            self.actual |= {f"{self.prefix}_first_{name}": value.detach().clone() for name, value in first.items()}
        self.steps.append([float(torch.as_tensor(term).detach()) for term in terms[:3]])
        self.actual.setdefault("steps_phase", []).append(self.prefix)
        return terms

    def _name(self, name: str) -> str:
        """The released code's name of one of our parameters."""
        if name == "context":
            return "ctx.0"
        part, rest = name.removeprefix("head.").split(".", 1)
        if part == "attention":
            return f"vga.layers.0.{rest.removeprefix('layer.')}"
        kind, pair, place, weight = rest.split(".")
        place = place if self.clap.settings.adapter_layer_norm else "0"
        return f"{ {'means': 'mu', 'deviations': 'sigma'}[kind] }_adapters.{pair}.fc.{place}.{weight}"

    def _keep_parameters(self, prefix: str) -> None:
        own = {}
        for name, weights in self.clap.named_parameters():
            stored = self._name(name).replace("_adapters.", "").replace("vga.", "vga_", 1).replace(".fc.", "_fc.")
            own["ctx" if name == "context" else stored] = weights.detach()
        for name in self.vectors.arrays:
            short = name.removeprefix(prefix)
            if name.startswith(prefix) and short.endswith("_fro"):
                self.actual[name] = self._norm(name, own[short.removesuffix("_fro")])
            elif name.startswith(prefix):
                self.actual[name] = own[short][: self.vectors[name].shape[0]].clone()

    def _norm(self, name: str, weights: torch.Tensor) -> float:
        """The Frobenius norm; the stored one where both are below what a single entry may be wrong by.

        Such a norm is rounding, for which a relative limit has no meaning. (The layer norm's offset in front of the first
        task's means moves all classes alike, which no loss but the small prior sees: its norm is stored as 4.288e-9, and is
        4.301e-9 in double precision.)
        """
        norm, stored = float(weights.double().norm()), float(self.vectors[name])
        entry = dict(self.vectors.expected()).get(name.removesuffix("_fro"), {}).get("abs", 0.0)
        return stored if max(norm, stored) < entry else norm


@pytest.mark.vectors("clap", "clap_handcrafted*")
def test_run_with_replay_and_consolidation(vectors, tiny):
    check_run(vectors, tiny)


@pytest.mark.vectors("clap", "coop_clap*", methods=("clap-coop",))
def test_run_with_replay_and_consolidation_and_a_context(vectors, tiny):
    check_run(vectors, tiny)


def check_run(vectors, tiny) -> None:
    params, optimiser = vectors.params, vectors.params["optimiser"]
    order, sizes = order_of(vectors.tasks)
    labels = torch.from_numpy(vectors["newlab"]).long()
    own = {"context_length": params["prompt"]["n_ctx"]} if "prompt" in params else {}
    assert params["lr_scale"] == "lr * batch_size / 20" and not optimiser["nesterov"]
    settings = settings_from(
        params,
        learning_rate=optimiser["lr"],
        momentum=optimiser["momentum"],
        weight_decay=optimiser["weight_decay"],
        epochs=params["n_epochs"],
        balanced_epochs=params["n_finetune_epochs"],
        balanced_rate=params["finetune_lr_factor"],
        adapter_layer_norm=params["adapter_layer_norm"],
        **own,
    )
    stream = tiny.stream([tiny.class_names[c] for c in order], sizes, labels, params["templates"])
    scenario = replace(stream.scenario, exemplars_per_class=params["exemplars_per_class"])
    features = tiny.features()
    draws = StoredRun(vectors, sizes)
    clap = (ClapCoOp if own else Clap)(settings, tiny.backbone, scenario, Draws("vectors", "clap", 0))
    clap.draws = draws
    if own:
        clap.context.data.copy_(0.02 * draws.normal(clap.context.shape, "context"))
    sums = start_attention(clap.head.attention, params["vga"]["init_seed"], vectors["vga_init_names"])
    assert np.allclose(sums, vectors["vga_init_sum_abssum"], rtol=1e-6, atol=1e-6)

    def rows_of(found: torch.Tensor) -> list[int]:
        return torch.cdist(found.double(), features.double()).argmin(dim=1).tolist()

    watched = Watched(clap, draws, vectors, rows_of)
    actual = watched.actual
    actual["image_features"] = F.normalize(features, dim=-1)
    prompts, start = clap.language_features(), clap.class_vectors.clone()
    for t, classes in enumerate(np.split(np.arange(len(order)), np.cumsum(sizes)[:-1])):
        seen = int(classes[-1]) + 1
        actual[f"t{t}_text_individual"] = torch.stack(prompts[:seen])
        actual[f"t{t}_text_frozen"] = start[:seen]
        # as the stored run drew its batches from them, the task's images are those of its classes in the stored orders
        trained = np.unique(vectors[f"t{t}_train_orders"])
        rows = torch.from_numpy(trained[np.isin(vectors["newlab"][trained], classes)])
        task = Task(t, f"task {t}", tuple(classes.tolist()), tiny.split(rows, labels[rows]), SealedSplit())
        drawn, clap.draws = clap.draws, Draws("vectors", "clap", 0)
        clap.train()
        clap.grow(task)
        clap.draws = drawn
        clap.learn(task)
        clap.eval()
        actual[f"t{t}_memory"] = rows_of(clap.memory.images[:, 0])
        actual[f"t{t}_memory_labels"] = clap.memory.labels
        actual |= evaluation(clap, vectors, t, seen, features, labels)
    ce, lasp, prior = np.array(watched.steps).T
    actual |= {"steps_ce": ce, "steps_lasp": lasp, "steps_prior": prior, "steps_loss": ce + lasp + prior}
    actual["steps_phase"] = np.array(actual["steps_phase"])
    actual["acc_steps"] = [actual.pop(f"t{t}_accuracy") for t in range(len(sizes))]
    assert draws.used == int(vectors["n_noise"])
    vectors.check(actual)


def evaluation(clap: Clap, vectors, t: int, seen: int, features: torch.Tensor, labels: torch.Tensor) -> dict:
    """Every task's test images in batches of their own, with the noise that the run drew for each batch."""
    actual, draws, size = {}, clap.draws, vectors.params["test_batch_size"]
    classes = list(range(seen))

    def scored(rows: torch.Tensor) -> list[torch.Tensor]:
        return [clap.sampled_logits(features[part], classes) for part in rows.split(size)]

    assert draws.used == int(vectors[f"t{t}_eval_first_noise"])
    tests = [torch.from_numpy(vectors[f"t{task}_test_idx"]) for task in range(t + 1)]
    batches = [scored(rows) for rows in tests]
    flat = [logits for task in batches for logits in task]
    assert len(flat) == int(vectors[f"t{t}_n_eval"])
    actual |= {f"t{t}_eval_logits_{j}": logits for j, logits in enumerate(flat)}
    means = [torch.cat([logits.mean(dim=0) for logits in task]) for task in batches]  # (n, K) of each task
    hits = [(mean.argmax(dim=1) == labels[rows]).double().mean() for mean, rows in zip(means, tests)]
    actual[f"t{t}_accuracy"] = float(torch.stack(hits).mean())
    if f"t{t}_ood_logits" in vectors:
        later = torch.from_numpy(vectors[f"t{t + 1}_test_idx"])
        novel = torch.cat([logits.transpose(0, 1) for logits in scored(later)])  # (images, S, K)
        stored = [vectors[f"t{t}_energy_{part}"].astype(float) for part in ("id", "ood")]
        actual[f"t{t}_ood_logits"] = novel
        actual[f"t{t}_energy_id"] = torch.cat(means).logsumexp(dim=1)
        actual[f"t{t}_energy_ood"] = novel.mean(dim=1).logsumexp(dim=1)
        actual[f"t{t}_auroc_aupr_fpr95"] = [rule(*stored) for rule in (novelty.auroc, novelty.aupr, novelty.fpr95)]
    return actual


def test_the_mean_over_samples_is_exact(tiny):
    """`logits` with the mean noise equals the mean of `sampled_logits`, for learned and unlearned classes."""
    labels = tiny.labels.long()
    stream = tiny.stream(tiny.class_names, [4, 4], labels, ["a photo of a {}.", "a blurry photo of a {}."])
    settings = ClapSettings(epochs=1, train_samples=2, test_samples=5, mirrored_view=False)
    clap = Clap(settings, tiny.backbone, stream.scenario, Draws("vectors", "clap", 0))
    task = replace(stream.tasks[0], test=SealedSplit())
    clap.grow(task)
    clap.learn(task)
    clap.eval()
    batch, classes = tiny.features()[:12], list(range(8))
    assert torch.allclose(clap.logits(batch, classes), clap.sampled_logits(batch, classes).mean(dim=0), atol=1e-3)
