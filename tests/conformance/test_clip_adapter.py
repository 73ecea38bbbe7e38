"""CLIP-Adapter against its authors' forward pass and CLAP4CLIP's continual run of it."""

import numpy as np
import pytest
import torch

from bench.streams.stream import Scenario, SealedSplit, Task
from methods.shared.rehearsal import TrainingSet
from methods.text_prompts.clip_adapter import CLIPAdapter, CLIPAdapterSettings
from tests.conformance.stored_batches import StoredOrder, all_seen, fit_stored, load, one_task, optimiser_settings
from tests.conformance.test_coop import same_rows


@pytest.mark.vectors("clip-adapter", "vectors*")
def test_forward_gradients_and_steps(vectors, tiny):
    params = vectors.params
    names = [tiny.class_names[c] for c in vectors["classes"]]
    train, test = (tiny.features()[torch.from_numpy(vectors[f"{part}_idx"])] for part in ("train", "test"))
    labels = torch.from_numpy(vectors["labels"])
    size = len(train) if params["full_batch"] else params["batch_size"]
    scenario = one_task(names, [params["template"]])
    settings = CLIPAdapterSettings(
        reduction=params["reduction"], ratio=params["ratio"], **optimiser_settings(params["optimiser"], size)
    )
    method = all_seen(CLIPAdapter(settings, tiny.backbone, scenario, StoredOrder("clip-adapter")))
    load(method.down, vectors.tensor("w_down0"))
    load(method.up, vectors.tensor("w_up0"))
    actual = {
        "image_raw": train,
        "text_raw": tiny.backbone.encode_text(scenario.prompts(range(len(names)))),
        "adapter_out0": method.adapter(train),
        "logits0": method.logits(train, range(len(names))),
    }
    method.loss(method.text_of(method.seen), train[:size], labels[:size]).backward()
    actual |= {"grad_down0": method.down.grad.clone(), "grad_up0": method.up.grad.clone()}
    method.zero_grad()
    rows = torch.arange(params["n_steps"] * size) % len(train)
    actual["losses"] = fit_stored(method, train[rows], labels[rows])
    actual |= {"w_down_final": method.down, "w_up_final": method.up}
    actual["logits_test_final"] = method.logits(test, range(len(names)))
    vectors.check(actual)


@pytest.mark.vectors("clip-adapter", "continual*")
def test_continual_run_with_replay_and_balanced_finetuning(vectors, tiny):
    params, optimiser = vectors.params, vectors.params["optimiser"]
    tasks = vectors.tasks
    order = [c for classes in tasks for c in classes]
    position = {c: k for k, c in enumerate(order)}
    sizes = [len(classes) for classes in tasks]
    scenario = Scenario(
        "class-incremental",
        tuple(tiny.class_names[c] for c in order),
        (tuple(str(template) for template in vectors["templates"]),) * len(order),
        tuple(np.repeat(range(len(tasks)), sizes).tolist()),
        exemplars_per_class=params["memory_per_class"],
    )
    settings = CLIPAdapterSettings(
        reduction=params["reduction"],
        ratio=params["ratio"],
        epochs=params["n_epochs"],
        batch_size=params["batch_size"],
        learning_rate=optimiser["lr"],
        momentum=optimiser["momentum"],
        weight_decay=optimiser["weight_decay"],
        cosine_floor=params["floor_factor"],
        balanced_epochs=params["n_finetune_epochs"],
        balanced_rate=params["finetune_lr_factor"],
        reinit_each_task=params["adapter_redrawn_per_task"],
        mirrored_view=False,
    )
    method = StoredStarts(vectors, settings, tiny.backbone, scenario, StoredOrder("clip-adapter"))
    features, labels = tiny.features(), torch.tensor([position.get(int(c), -1) for c in tiny.labels])
    phases = RecordedPhases(method)
    actual = {}
    for index, classes in enumerate(tasks, start=1):
        phases.start(*((features[rows], labels[rows]) for rows in stored_rows(vectors, index)))
        rows = next(stored_rows(vectors, index))
        new = rows[torch.isin(tiny.labels[rows], torch.tensor(classes))].sort().values
        own = tuple(range(sum(sizes[: index - 1]), sum(sizes[:index])))
        method.learn(Task(index - 1, f"task {index}", own, tiny.split(new, labels[new]), SealedSplit()))
        actual |= {f"task{index}_{name}": value for name, value in phases.results.items()}
        actual |= {f"task{index}_w_down": method.down.detach().clone(), f"task{index}_w_up": method.up.detach().clone()}
        test = features[torch.from_numpy(vectors[f"task{index}_test_idx"])]
        actual[f"task{index}_test_logits"] = method.logits(test, range(own[-1] + 1))
    vectors.check(actual)


class StoredStarts(CLIPAdapter):
    """Starts each task's adapter from the stored weights."""

    def __init__(self, vectors, *arguments):
        self.__dict__["vectors"] = vectors
        super().__init__(*arguments)

    def new_adapter(self, task):
        return tuple(self.vectors.tensor(f"task{task + 1}_w_{part}0") for part in ("down", "up"))


def stored_rows(vectors, task: int):
    """The fixture's rows of each phase of a task, in the order of training."""
    for phase in ("train", "memory"):
        if f"task{task}_{phase}_order" in vectors:
            yield torch.from_numpy(vectors[f"task{task}_{phase}_order"])


class RecordedPhases:
    """Wraps `fit`: checks that the method's own images are the stored ones, gives them in the stored order, keeps results."""

    def __init__(self, method: CLIPAdapter):
        self.method, self.fit = method, method.fit
        method.fit = self.in_stored_order

    def start(self, *phases):
        self.phases, self.results = list(phases), {}

    def in_stored_order(self, training: TrainingSet, *arguments, phase="", **budget):
        images, labels = self.phases.pop(0)
        n = len(training.labels)
        own = training.images(torch.arange(n), torch.zeros(n, dtype=torch.bool))
        assert same_rows(own, images), "new images and exemplars are not those of the stored run"
        stored = TrainingSet(labels, lambda rows, mirrored: images[rows])
        rates = self.fit(stored, *arguments, phase=phase, **budget)
        name = "finetune_lrs" if phase else "lrs"
        self.results[name] = torch.tensor(rates)
        if not phase:
            self.results["w_down_trained"] = self.method.down.detach().clone()
            self.results["w_up_trained"] = self.method.up.detach().clone()
        return rates
