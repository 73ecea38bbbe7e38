"""CoOp against the authors' trainer and the released continual class: the same draws, number by number."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.streams.stream import Scenario, SealedSplit, Task
from bench.system.randomness import Draws
from methods.shared.prompts import ContextPrompts
from methods.shared.rehearsal import TrainingSet
from methods.shared.schedules import cosine_per_iteration
from methods.text_prompts.coop import CoOp, CoOpSettings
from tests.conformance.stored_batches import fit_stored


class StoredDraws(Draws):
    """Hands out the stored context of each task, and the stored order as it is."""

    def __init__(self, contexts: dict[int, torch.Tensor]):
        super().__init__("vectors", "coop", 0)
        self.contexts = contexts

    def normal(self, shape, *purpose):
        kind, row, *task = purpose
        assert kind == "context"
        stored = self.contexts[task[0] if task else 0][row] / 0.02  # the method scales what it draws
        assert stored.shape == tuple(shape)
        return stored

    def permutation(self, n, *purpose):
        assert purpose[0] == "batch order"
        return torch.arange(n)  # the rows are already in the stored order


def method(tiny, names, settings: CoOpSettings, contexts: dict[int, torch.Tensor], sizes=None, exemplars=None) -> CoOp:
    owners = np.repeat(range(len(sizes or [0])), sizes or [len(names)]).tolist()
    scenario = Scenario("class-incremental", tuple(names), (("{}",),) * len(names), tuple(owners), exemplars)
    return CoOp(settings, tiny.backbone, scenario, StoredDraws(contexts))


@pytest.mark.vectors("coop", "vectors*")
def test_forward_variants_gradients_and_steps(vectors, tiny):
    params, optimiser = vectors.params, vectors.params["optimiser"]
    names = [tiny.class_names[c] for c in vectors["classes"]]
    train, test = (tiny.features()[torch.from_numpy(vectors[f"{part}_idx"])] for part in ("train", "test"))
    labels = torch.from_numpy(vectors["labels"])
    settings = CoOpSettings(
        context_length=params["n_ctx"],
        placeholder=params["placeholder"],
        position=params["class_token_position"],
        epochs=1,
        batch_size=len(train) if params["full_batch"] else params["batch_size"],
        learning_rate=optimiser["lr"],
        scale_rate_with_batch=False,
        momentum=optimiser["momentum"],
        weight_decay=optimiser["weight_decay"],
        cosine_floor=1.0,
        mirrored_view=False,
    )
    unit = F.normalize(train, dim=-1)
    actual = {"image_feat_raw": train}

    coop = learner(tiny, names, settings, vectors.tensor("ctx0")[None])
    text = coop.text_of(coop.seen)
    _, prompts = text
    actual["tokens"] = prompts.tokens
    actual["text_raw0"] = prompts.features(coop.context[0])
    actual["logits0"] = tiny.backbone.logit_scale * unit @ F.normalize(actual["text_raw0"], dim=-1).T
    coop.loss(text, unit, labels).backward()
    actual["grad_ctx0"] = coop.context.grad[0].clone()
    for position in ("end", "middle", "front"):
        placed = ContextPrompts(tiny.backbone, names, params["n_ctx"], position, params["placeholder"])
        actual[f"text_raw_{position}"] = placed.features(coop.context[0])

    one_step = learner(tiny, names, settings, vectors.tensor("ctx0")[None])
    fit_stored(one_step, unit, labels)
    actual["ctx_step1"] = one_step.context[0]

    settings = replace(settings, epochs=params["n_steps"])
    trained = learner(tiny, names, settings, vectors.tensor("ctx0")[None])
    actual["losses"] = fit_stored(trained, unit, labels)
    actual["ctx_final"] = trained.context[0]
    with torch.no_grad():
        trained.store_class_vectors()
    actual["logits_test_final"] = trained.logits(test, range(len(names)))

    if "words" in params:
        words = replace(settings, context_words=params["words"]["text"])
        from_words = method(tiny, names, words, {})
        _, prompts = from_words.text_of(torch.arange(len(names)))
        actual |= {"ctx_words": from_words.context[0], "tokens_words": prompts.tokens}
        actual["text_raw_words"] = prompts.features(from_words.context[0])

    if "csc" in params:
        own = replace(
            settings,
            context_length=params["csc"]["n_ctx"],
            position=params["csc"]["class_token_position"],
            class_specific=True,
        )
        specific = learner(tiny, names, own, vectors.tensor("ctx_csc"))
        text = specific.text_of(specific.seen)
        _, prompts = text
        actual["text_raw_csc"] = prompts.features(specific.context)
        actual["loss_csc"] = specific.loss(text, unit, labels)
        actual["loss_csc"].backward()
        actual["grad_csc"] = specific.context.grad
    vectors.check(actual)


def learner(tiny, names, settings: CoOpSettings, context: torch.Tensor) -> CoOp:
    """A method whose context is the given one (n or 1, M, w), all classes seen."""
    coop = method(tiny, names, settings, {0: context})
    coop.seen = torch.arange(len(names))
    return coop


@pytest.mark.vectors("coop", "continual*")
def test_continual_run_with_replay(vectors, tiny):
    params, optimiser = vectors.params, vectors.params["optimiser"]
    tasks = vectors.tasks
    order = [c for classes in tasks for c in classes]
    names = [tiny.class_names[c] for c in order]
    position = {c: k for k, c in enumerate(order)}
    contexts = {t: vectors.tensor(f"task{t + 1}_ctx0") for t in range(len(tasks))}
    settings = CoOpSettings(
        context_length=params["n_ctx"],
        placeholder=params["placeholder"],
        epochs=params["n_epochs"],
        batch_size=params["batch_size"],
        learning_rate=optimiser["lr"],
        momentum=optimiser["momentum"],
        weight_decay=optimiser["weight_decay"],
        cosine_floor=params["floor_factor"],
        redraw_each_task=params["context_redrawn_per_task"],
        mirrored_view=False,
    )
    sizes = [len(classes) for classes in tasks]
    coop = method(tiny, names, settings, contexts, sizes, params["memory_per_class"])
    steps = CosineSteps(coop)
    actual = {}
    for index, classes in enumerate(tasks, start=1):
        # the stored order mixes the task's images with the exemplars; the method joins the two itself, so it is
        # given the new images, and its pool is put into the stored order
        rows = torch.from_numpy(vectors[f"task{index}_train_order"])
        labels = torch.tensor([position[int(c)] for c in tiny.labels[rows]])
        steps.pool = (F.normalize(tiny.features()[rows], dim=-1), labels)
        new = torch.isin(tiny.labels[rows], torch.tensor(classes))
        own = tuple(range(sum(sizes[: index - 1]), sum(sizes[:index])))
        in_file_order = rows[new].sort().values
        train = tiny.split(in_file_order, torch.tensor([position[int(c)] for c in tiny.labels[in_file_order]]))
        coop.learn(task_of(index - 1, own, train))
        actual[f"task{index}_lrs"] = torch.tensor(steps.rates)
        actual[f"task{index}_ctx"] = coop.context.detach().clone()
        test = tiny.features()[torch.from_numpy(vectors[f"task{index}_test_idx"])]
        actual[f"task{index}_test_logits"] = coop.logits(test, range(own[-1] + 1))
    vectors.check(actual)


def task_of(index, classes, train):
    return Task(index, f"task {index}", classes, train, SealedSplit())


class CosineSteps:
    """Wraps `fit`: checks that the method's own pool is the stored one, gives it in the stored order, keeps the rates."""

    def __init__(self, coop: CoOp):
        self.fit, coop.fit = coop.fit, self.in_stored_order
        self.pool, self.rates = None, []

    def in_stored_order(self, training, epochs, peak, task):
        stored, labels = self.pool
        every_row = torch.arange(len(training.labels))
        given = training.images(every_row, torch.zeros(len(every_row)))
        assert same_rows(given, stored), "new images and exemplars are not those of the stored run"
        self.rates = self.fit(TrainingSet(labels, lambda rows, mirrored: stored[rows]), epochs, peak, task)
        return self.rates


def same_rows(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Are these the same feature vectors, in any order?"""
    if found.shape != wanted.shape:
        return False
    distance = torch.cdist(found.flatten(1).double(), wanted.flatten(1).double())
    return bool((distance.min(dim=1).values < 1e-4).all() and (distance.min(dim=0).values < 1e-4).all())


def test_the_cosine_starts_at_the_peak_and_ends_above_the_floor():
    rates = cosine_per_iteration(0.6, steps=6, floor_factor=1e-3)
    assert rates[0] == 0.6
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0.6e-3
