"""MagMax against its authors' functions: sequential and independent training, and every merge of the changes."""

import numpy as np
import pytest
import torch

from bench.system.randomness import Draws
from methods.model_merging.magmax import MagMax
from methods.model_merging.task_vectors import WeightLayout
from methods.model_merging.vector_merges import TIES, LargestChange, MeanChange, RandomChange
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.recorded_steps import Steps, stored_names
from tests.conformance.stored_runs import World, places_in

VISUAL = "visual."


class StoredOrders(Draws):
    """The stored order of a task's images in every epoch. They lie in the order of the first."""

    def __init__(self, vectors, run: str):
        super().__init__("conformance", "magmax", 0)
        self.vectors, self.run = vectors, run

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        orders = self.vectors[f"{self.run}/task{task}/train_order"]
        assert what == "batch order" and orders.shape[1] == n
        return places_in(orders[0], orders[epoch])


class StoredChoice(Draws):
    """Draws that make the random mix take the stored task for every number: 0 for that task, close to 1 for all others."""

    def __init__(self, choice: torch.Tensor):
        super().__init__("conformance", "random mix", 0)
        self.choice = choice

    def uniform(self, shape, *purpose):
        assert tuple(shape) == tuple(self.choice.shape) and purpose[0] == "random mix"
        return torch.where(self.choice == purpose[1], 0.0, 1 - torch.finfo(torch.float32).eps)


@PRECISIONS
@pytest.mark.vectors("magmax", "magmax*")
def test_training_and_merging(vectors, tiny, tmp_path, monkeypatch, precision):
    params = vectors.params
    order = params["class_order"]
    ends = [len(order) * (t + 1) // params["n_tasks"] for t in range(params["n_tasks"])]
    tasks = [sorted(order[start:end]) for start, end in zip([0, *ends], ends)]
    never_learned = [c for c in range(len(tiny.class_names)) if c not in order]
    actual, changes = {}, []
    for run in params["runs"]:
        world = World(tiny, tmp_path, precision, "class-incremental", tasks, params["templates"], never_learned)
        method = MagMax(settings(params, run), world.backbone, world.scenario, StoredOrders(vectors, run))
        mean = MeanChange(method.initial())
        columns = [world.position[c] for c in range(len(tiny.class_names))]
        pixels = world.unlabelled(vectors["test_idx"]).pixels()
        actual |= {
            "head_weight": world.backbone.logit_scale * method.class_vectors[columns],
            "zeroshot_logits": method.logits(pixels, columns),
        }
        for index, classes in enumerate(tasks):
            place = f"{run}/task{index}"
            assert vectors[f"{place}/classes"].tolist() == classes
            rows = torch.from_numpy(vectors[f"{place}/train_order"][0])
            gradients, weights = (stored_names(vectors, f"{place}/{what}/") for what in ("first_grad", "after_step"))
            with monkeypatch.context() as patch:
                steps = Steps(method.tower, VISUAL, gradients, weights, patch)
                patch.setattr(method, "cut_gradient", steps.before(method.cut_gradient))
                method.learn(world.task(index, rows, world.positions(rows)))
            change = method.layout.read(method.tower) - method.initial()
            mean.add(change, index)
            if run in params["merge_run"]:
                changes.append(change)
            found = steps.arrays() | tensors(method.layout, vectors["param_names"], "vector", change)
            found |= tensors(method.layout, vectors["param_names"], "max_abs", method.merge.merged())
            found["logits"] = method.logits(pixels, columns)
            found["unmerged_logits"] = method.training_logits(pixels, columns)
            found["average_logits"] = logits_of(method, method.initial() + mean.SCALE * mean.merged(), pixels, columns)
            actual |= {f"{place}/{name}": values for name, values in found.items()}
    watched = [name for name in vectors["watched"] if f"merge/ties/{name}" in vectors]
    vectors.check(actual | other_merges(vectors, method.layout, watched, changes), dtype=precision)


def settings(params: dict, run: str) -> MagMax.Settings:
    optimiser = params["optimiser"]
    assert optimiser["name"] == "AdamW" and not optimiser["amsgrad"] and params["fresh_optimiser_per_task"]
    assert not params["drop_last"] and params["runs"].keys() <= {"sequential", "independent"}
    return MagMax.Settings(
        lr=optimiser["lr"], epochs=params["n_epochs"], warmup=params["warmup"], batch_size=params["batch_size"],
        label_smoothing=params["label_smoothing"], beta1=optimiser["betas"][0], beta2=optimiser["betas"][1],
        eps=optimiser["eps"], weight_decay=optimiser["weight_decay"], max_norm=params["max_grad_norm"] or 0.0,
        start={"sequential": "previous", "independent": "initial"}[run], scale=params["max_abs_scale"], crop_scale=1.0,
    )  # fmt: skip


def tensors(layout: WeightLayout, names: np.ndarray, what: str, change: torch.Tensor) -> dict[str, torch.Tensor]:
    """A change tensor by tensor, and the norms of those named."""
    found = {VISUAL + name: part for name, part in layout.parts(change).items()}
    return {f"{what}/{name}": part for name, part in found.items()} | {
        f"{what}_norm": torch.stack([found[name].norm() for name in names])
    }


def logits_of(method: MagMax, weights: torch.Tensor, pixels: torch.Tensor, columns: list[int]) -> torch.Tensor:
    """Scores by a tower of these weights."""
    kept = method.merged_weights
    method.merged_weights = method.layout.parts(weights)
    try:
        return method.logits(pixels, columns)
    finally:
        method.merged_weights = kept


def other_merges(vectors, layout: WeightLayout, watched: list[str], changes: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of the watched tensors alone; scales are applied by nobody here."""
    parts = [{VISUAL + name: part for name, part in layout.parts(change).items()} for change in changes]
    own = WeightLayout({name: parts[0][name].shape for name in watched})
    vectors_of = [torch.cat([part[name].flatten() for name in watched]) for part in parts]
    choice = torch.cat([torch.from_numpy(vectors[f"merge/random_mix_choice/{name}"]).flatten() for name in watched])
    ties = vectors.params["ties"]
    assert (ties["sign"], ties["merge"], ties["scale"]) == ("mass", "disjoint mean", TIES.SCALE)
    assert vectors.params["random_mix_scale"] == RandomChange.SCALE
    merges = {
        "random_mix": RandomChange(vectors_of[0], StoredChoice(choice)),
        "ties": TIES(vectors_of[0], ties["keep_percent"] / 100),
    }
    found = {}
    for what, merge in merges.items():
        for task, change in enumerate(vectors_of):
            merge.add(change, task)
        found |= {f"merge/{what}/{name}": part for name, part in own.parts(merge.merged()).items()}
    return found


@PRECISIONS
@pytest.mark.vectors("magmax", "merges*")
def test_merges_alone(vectors, precision):
    params, dtype = vectors.params, getattr(torch, precision)
    names, n = vectors["names"].tolist(), params["n_vectors"]
    stored = [{name: torch.from_numpy(vectors[f"vector{i}/{name}"]).to(dtype) for name in names} for i in range(n)]
    layout = WeightLayout({name: stored[0][name].shape for name in names})
    changes = [torch.cat([own[name].flatten() for name in names]) for own in stored]
    assert (params["ties_sign"], params["ties_merge"]) == ("mass", "disjoint mean")
    ties = {f"ties{percent}": TIES(changes[0], percent / 100) for percent in params["ties_keep_percent"]}
    largest, mean, found = LargestChange(changes[0]), MeanChange(changes[0]), {}
    for task, change in enumerate(changes):
        for merge in (largest, mean, *ties.values()):
            merge.add(change, task)
        found[f"max_abs{task + 1}"] = largest.merged()
    found |= {"sum": mean.total} | {name: merge.merged() for name, merge in ties.items()}
    split = {f"{what}/{name}": part for what, merged in found.items() for name, part in layout.parts(merged).items()}
    vectors.check(split, dtype=precision)
