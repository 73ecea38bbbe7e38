"""ConDU against its authors' program: experts, unifying and rebuilding after every task, prototypes, both ways of scoring."""

from dataclasses import replace

import pytest
import torch

from bench.system.randomness import Draws
from methods.model_merging.condu import ConDU
from methods.model_merging.task_vectors import WeightLayout
from methods.model_merging.unified_changes import UnifiedChanges
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.recorded_steps import Steps, stored_names
from tests.conformance.stored_runs import World, places_in


class StoredOrders(Draws):
    """The stored batches of a task: a pass over its images takes the next ones; the last may have been left before its end."""

    def __init__(self, vectors, images: list[torch.Tensor]):
        super().__init__("conformance", "condu", 0)
        self.vectors, self.images = vectors, images

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        batches = self.vectors[f"task{task}/train_rows"]
        per_pass = -(-n // batches.shape[1])
        rows = batches[epoch * per_pass : (epoch + 1) * per_pass].flatten()
        taken = places_in(self.images[task].numpy(), rows[rows >= 0])
        assert what == "batch order" and len(self.images[task]) == n and len(taken)
        rest = [place for place in range(n) if place not in set(taken.tolist())]
        return torch.cat([taken, torch.tensor(rest, dtype=torch.long)])


@PRECISIONS
@pytest.mark.vectors("condu", "condu*")
def test_condu(vectors, tiny, tmp_path, monkeypatch, precision):
    params, actual = vectors.params, {}
    world = world_of(vectors, tiny, tmp_path, precision)
    images = [torch.cat([training_images(tiny, c) for c in classes]) for classes in params["tasks"]]
    method = ConDU(settings(params), world.backbone, world.scenario, StoredOrders(vectors, images))
    test = [world.split(torch.from_numpy(vectors[f"test_idx_of_task{u}"])).pixels() for u in range(len(world.classes))]
    for index, rows in enumerate(images):
        place = f"task{index}/"
        gradients, weights = (stored_names(vectors, f"{place}{what}/") for what in ("first_grad", "after_step"))
        changes = []
        with monkeypatch.context() as patch:
            add = method.changes.add
            patch.setattr(method.changes, "add", lambda change: changes.append(change) or add(change))
            method.settings = replace(method.settings, lr=params["lr_of_task"][index])
            steps = Steps(method.clip, "", gradients, weights, patch)
            method.learn(world.task(index, rows, world.positions(rows)))
        found = steps.arrays() | kept(vectors, method, changes[0])
        found["prototypes"] = method.prototypes[list(world.classes[index])]
        found |= scores(method, params, world, test, index)
        actual |= {place + name: values for name, values in found.items()}
    vectors.check(actual, dtype=precision)


def world_of(vectors, tiny, folder, precision: str) -> World:
    """The tasks with their own templates; the one that trains comes first, as the harness wants it."""
    params = vectors.params
    templates = [list(of_task) for of_task in params["templates"]]
    for of_task in templates:
        of_task.insert(0, of_task.pop(params["train_template_index"]))
    world = World(tiny, folder, precision, "task-incremental", params["tasks"], templates[0])
    of_classes = tuple(tuple(templates[owner]) for owner in world.scenario.task_of_class)
    world.scenario = replace(world.scenario, templates=of_classes)
    return world


def training_images(tiny, c: int) -> torch.Tensor:
    return torch.nonzero((tiny.labels == c) & tiny.is_train).flatten()


def settings(params: dict) -> ConDU.Settings:
    optimiser = params["optimiser"]
    assert optimiser["name"] == "AdamW" and not optimiser["amsgrad"] and optimiser["lr"] == "lr_of_task"
    assert params["fresh_optimiser_per_task"] and not params["drop_last"] and params["max_grad_norm"] is None
    return ConDU.Settings(
        iterations=params["iterations"], warmup=params["warmup"], batch_size=params["batch_size"],
        label_smoothing=params["label_smoothing"], beta1=optimiser["betas"][0], beta2=optimiser["betas"][1],
        eps=optimiser["eps"], weight_decay=optimiser["weight_decay"], crop_scale=1.0,
    )  # fmt: skip


def kept(vectors, method: ConDU, change: torch.Tensor) -> dict[str, torch.Tensor]:
    """The new expert's change, and what is kept of all."""
    changes, layout = method.changes, method.layout
    of_logit_scale = {"logit_scale": method.prototypes.new_zeros(())}  # never trained, and no part of what is kept
    names = vectors["param_names"]

    def norms(vector: torch.Tensor) -> torch.Tensor:
        parts = layout.tensors(vector) | of_logit_scale
        return torch.stack([parts[name].norm() for name in names])

    found = {"expert_norm": norms(change), "unified_norm": norms(changes.unified), "rescalers": changes.scales}
    found |= {f"expert/{name}": part for name, part in layout.tensors(change).items()}
    found |= {f"unified/{name}": part for name, part in layout.tensors(changes.unified).items()}
    shares = []
    for task in range(len(changes)):
        mask = layout.tensors(changes.mask(task).to(change.dtype)) | of_logit_scale
        found |= {f"mask_of_task{task}/{name}": part for name, part in mask.items()}
        found[f"decoupled_norm_of_task{task}"] = norms(changes.change(task))
        shares.append(torch.stack([mask[name].mean() for name in vectors["share_names"]]))
    return found | {"mask_share": torch.stack(shares)}


def scores(method: ConDU, params: dict, world: World, test: list[torch.Tensor], index: int) -> dict[str, torch.Tensor]:
    """Logits of every task's test images among its own classes, in each way of scoring."""
    ways = {"aware": {"scores": "task"}, "aware_released": {"scores": "task", "faithful_first_task": True}}
    ways |= {f"agnostic{k}": {"scores": "similarity", "experts": k} for k in params["experts_averaged"]}
    scale = params["test_scale"] / world.backbone.logit_scale  # they differ in digit 8
    found, learned_with = {}, method.settings
    for way, settings in ways.items():
        method.settings = replace(learned_with, **settings)
        for task, (pixels, classes) in enumerate(zip(test, world.classes)):
            found[f"{way}/logits_of_task{task}"] = scale * method.logits(pixels, classes)
    method.settings = learned_with
    return found


@PRECISIONS
@pytest.mark.vectors("condu", "unify*")
def test_unifying_alone(vectors, precision):
    names, dtype, actual = vectors["names"].tolist(), getattr(torch, precision), {}
    stored = [
        {name: torch.from_numpy(vectors[f"vector{i}/{name}"]).to(dtype) for name in names}
        for i in range(vectors.params["n_vectors"])
    ]
    layout = WeightLayout({name: stored[0][name].shape for name in names})
    vectors_of = [torch.cat([own[name].flatten() for name in names]) for own in stored]
    changes = UnifiedChanges(layout, vectors_of[0])
    for task, change in enumerate(vectors_of):
        changes.add(change)
        found = {"unified": changes.unified}
        for i in range(task + 1):
            found |= {f"mask{i}": changes.mask(i), f"decoupled{i}": changes.change(i)}
        for what, vector in found.items():
            actual |= {f"after{task}/{what}/{name}": part for name, part in layout.parts(vector).items()}
        actual[f"after{task}/rescalers"] = changes.scales
    vectors.check(actual, dtype=precision)
