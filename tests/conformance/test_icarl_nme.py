"""iCaRL with nearest-mean classification against a run of LAMDA-PILOT's code on the fixture's image tower."""

import dataclasses

import pytest
import torch

from bench.system.randomness import Draws
from methods.image_tower.icarl_nme import ICaRLNME
from tests.conformance.stored_runs import World


class StoredOrder(Draws):
    """Training goes through the pool in the stored order of images."""

    def __init__(self):
        super().__init__("conformance", "stored", 0)
        self.images_of_pool: list[int] = []
        self.orders = None  # (epochs, n) fixture images

    def permutation(self, n, *purpose):
        assert purpose[0] == "batch order"
        place = {image: k for k, image in enumerate(self.images_of_pool)}
        return torch.tensor([place[int(image)] for image in self.orders[purpose[-1]]])


@pytest.mark.vectors("icarl-cil", methods=("icarl-nme",))
def test_icarl_with_nearest_mean(vectors, tiny, tmp_path, monkeypatch):
    world = World(tiny, tmp_path, vectors.facts["dtype"], "class-incremental", vectors.tasks, ["{}"])
    world.scenario = dataclasses.replace(world.scenario, **budget(vectors.params["memory"]))
    draws = StoredOrder()
    method = ICaRLNME(settings(vectors.params, vectors), world.backbone, world.scenario, draws).to(world.backbone.dtype).eval()
    fixture_images: list[int] = []  # of `seen_images`
    actual = {}
    for index, classes in enumerate(world.classes):
        stored = f"task{index}"
        rows, labels = (torch.from_numpy(vectors[f"{stored}/train_{what}"]) for what in ("index", "label"))
        fixture_images += rows.tolist()
        draws.images_of_pool = rows.tolist() + [fixture_images[k] for k in method.exemplars.tolist()]
        draws.orders = vectors[f"{stored}/batch_order"]
        task = world.task(index, rows, labels)
        method.grow(task)
        with monkeypatch.context() as patch:
            patch.setattr(method, "draw_new_rows", lambda task, stored=stored: load_head(method, vectors, stored, task))
            ce, kd = watch(patch, method, "cross_entropy"), watch(patch, method, "distill")
            method.learn(task)
        found = {"ce_per_iter": torch.stack(ce)} | ({"kd_per_iter": torch.stack(kd)} if kd else {})
        found |= after_task(method, world, vectors, classes[-1] + 1, fixture_images, vectors[f"{stored}/nme_rows"])
        actual |= {f"{stored}/{name}": values for name, values in found.items()}
    vectors.check(actual, dtype=vectors.facts["dtype"])


def budget(memory: dict) -> dict:
    if memory["fixed_per_class"]:
        return {"exemplars_per_class": int(memory["per_class"])}
    return {"exemplars_total": int(memory["total"])}


def settings(params: dict, vectors):
    optimiser = params["optimiser"]
    return ICaRLNME.Settings(
        first_learning_rate=optimiser["lr"][0], learning_rate=optimiser["lr"][1], momentum=optimiser["momentum"],
        first_weight_decay=optimiser["weight_decay"][0], weight_decay=optimiser["weight_decay"][1],
        milestones=tuple(params["milestones"]), milestone_factor=params["milestone_gamma"], distillation=params["kd_weight"],
        temperature=float(params["temperature"]), epochs=int(vectors["hp_epochs"]), batch_size=int(vectors["hp_bs"]),
        mirrored_view=False,
    )  # fmt: skip


def load_head(method, vectors, stored: str, task) -> None:
    weight, bias = (torch.from_numpy(vectors[f"{stored}/start/fc_{what}"]).to(method.head.weight) for what in ("weight", "bias"))
    with torch.no_grad():
        method.head.weight[list(task.classes)] = weight[list(task.classes)]
        method.head.bias[list(task.classes)] = bias[list(task.classes)]


def watch(patch, method, name: str) -> list[torch.Tensor]:
    values, original = [], getattr(method, name)

    def watched(*arguments):
        value = original(*arguments)
        values.append(value.detach())
        return value

    patch.setattr(method, name, watched)
    return values


@torch.no_grad()
def after_task(method, world, vectors, seen: int, fixture_images: list[int], ranked) -> dict[str, torch.Tensor]:
    """Weights, memory, means, features and both classifiers' answers."""
    images = torch.tensor(fixture_images)[method.exemplars]
    every, test = (world.unlabelled(vectors[name]).pixels() for name in ("train_index_all", "test_index"))
    distances = method.logits(test, range(seen))
    ranks = min(vectors.params["nme_ranks_stored"], seen)
    return {
        "end/fc_weight": method.head.weight[:seen].clone(),
        "end/fc_bias": method.head.bias[:seen].clone(),
        "end/backbone_ln_post_weight": method.visual.ln_post.weight.clone(),
        "end/backbone_class_embedding": method.visual.class_embedding.clone(),
        "exemplar_index": images,
        "exemplar_label": world.positions(images),
        "class_means": method.means[:seen].clone(),
        "train_features": method.pooled(every),
        "test_features": method.pooled(test),
        "nme_ranking": distances[torch.from_numpy(ranked)].argsort(dim=-1, descending=True)[:, :ranks],
        "test_logits": method.head(method.pooled(test))[:, :seen],
    }
