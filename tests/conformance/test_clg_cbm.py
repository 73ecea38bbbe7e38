"""CLG-CBM against its authors' learner, last epoch kept: stored layers, batches and samples in; both trainings and logits out."""

import json

import numpy as np
import pytest
import torch

from bench.system.randomness import Draws
from methods.clg_cbm import clg_cbm
from methods.clg_cbm.clg_cbm import CLGCBM
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World, places_in


class StoredRun(Draws):
    """What a task has drawn; tasks are numbered from 1 in the arrays' names."""

    def __init__(self, vectors):
        super().__init__("conformance", "clg-cbm", 0)
        self.vectors, self.rows = vectors, np.zeros(0)

    def epochs(self, name: str, n_epochs: int) -> list[np.ndarray]:
        return [part[part >= 0] for part in np.split(self.vectors[name], n_epochs)]

    def permutation(self, n, *purpose):
        what, task, *epoch = purpose
        prefix, params = f"task{task + 1}_", self.vectors.params
        if what == "search order":
            order = places_in(self.rows, self.epochs(f"{prefix}search_batches", params["search_epochs"])[epoch[0]])
        elif what == "batch order":
            n_epochs = params["later_epochs"] if task else params["first_epochs"]
            order = torch.from_numpy(self.epochs(f"{prefix}batches", n_epochs)[epoch[0]])
        else:
            assert what == "replayed classes"
            came = dict.fromkeys(self.vectors[f"{prefix}sample_class"].flatten().tolist())
            order = torch.tensor([*came, *(c for c in range(n) if c not in came)])
        assert sorted(order.tolist()) == list(range(n))
        return order

    def normal(self, shape, *purpose):
        what, task, step = purpose
        assert what == "samples"
        return torch.from_numpy(self.vectors[f"task{task + 1}_sample_noise"][step].astype(np.float64)).reshape(shape)


class Record:
    """Notes what the learning of one task computes."""

    def __init__(self, method: CLGCBM, monkeypatch):
        self.losses = {name: [] for name in ("search_loss", "loss", "similarity_loss", "sparse_loss", "mahalanobis_loss")}
        self.gradients, self.notes = {}, {}
        for owner, function, name in (
            (method, "search_loss", "search_loss"), (method, "loss", "loss"), (method, "unlikeness", "similarity_loss"),
            (method, "penalty", "sparse_loss"), (clg_cbm.ConceptSpread, "loss", "mahalanobis_loss"),
        ):  # fmt: skip
            self.note(monkeypatch, owner, function, self.losses[name].append)
        self.samples = []
        self.note(monkeypatch, method, "samples", lambda found: self.samples.append(found[0]))
        self.note(monkeypatch, method, "relation", lambda found: self.notes.update(relation=torch.tensor(found)))
        self.note(monkeypatch, method, "feature_set", lambda found: self.notes.update(features=found[0]))
        self.note(monkeypatch, clg_cbm, "nearest_free", lambda found: self.notes.update(kept=found))
        create, step = clg_cbm.ConceptSpread, torch.optim.Adam.step

        def spread(*arguments):
            self.notes["spread"] = create(*arguments)
            return self.notes["spread"]

        def recorded_step(optimiser, *rest):
            weights = optimiser.param_groups[0]["params"]
            names = ("search_layer",) if len(weights) > 2 else ("concept_layer", "head")
            for name, parameter in zip(names, weights):
                self.gradients.setdefault(f"grad_{name}", parameter.grad.clone())
            step(optimiser, *rest)
            if len(weights) > 2:
                self.notes["search_layer"] = weights[0].detach().clone()

        monkeypatch.setattr(clg_cbm, "ConceptSpread", spread)
        monkeypatch.setattr(torch.optim.Adam, "step", recorded_step)

    def note(self, monkeypatch, owner, function: str, take) -> None:
        original = getattr(owner, function)

        def recorded(*arguments):
            found = original(*arguments)
            take(found.detach() if isinstance(found, torch.Tensor) else found)
            return found

        monkeypatch.setattr(owner, function, recorded)

    def arrays(self, method: CLGCBM) -> dict[str, torch.Tensor]:
        found = {name: torch.stack(values) for name, values in self.losses.items()} | self.gradients
        features = self.notes["features"]
        found |= {
            "mean_distance": torch.tensor(self.notes["spread"].mean_distance, dtype=torch.float64),
            "search_layer": self.notes["search_layer"],
            "kept": self.notes["kept"],
            "class_mean": method.gaussians.means.clone(),
            "relation": self.notes["relation"] + len(self.notes["relation"]),  # the new class by its number, not its place
            "feature_set_size": torch.tensor(len(features)),
            "feature_set_mean": features.mean(dim=0),
            "concept_layer": method.concept_layer.clone(),
            "head": method.head.clone(),
        }
        return found | ({"samples": torch.stack(self.samples)} if self.samples else {})


def feed_layers(monkeypatch, method: CLGCBM, vectors, index: int) -> None:
    prefix, numbers = f"task{index + 1}_", {name: array for name, array in vectors.arrays.items() if array.dtype.kind == "f"}
    stored = {name: torch.from_numpy(array.astype(np.float64)) for name, array in numbers.items()}

    def fresh_net(task, n_concepts):
        net = CLGCBM.fresh_net(method, task, n_concepts).double()
        for layer, name in ((net.first.weight, "layer0"), (net.last.weight, "head0"), (net.last.bias, "head_bias0")):
            assert layer.shape == stored[f"{prefix}search_{name}"].shape
            layer.data.copy_(stored[f"{prefix}search_{name}"])
        return net

    def fresh_layers(task):
        rows, own = stored[f"{prefix}concept_layer_new"], stored[f"{prefix}head_new"]
        known, before = method.head.shape
        head = own.new_zeros(known + len(own), own.shape[1])
        head[known:] = own
        if known:
            head[:known, before:] = stored[f"{prefix}head_new_columns"]
        return clg_cbm.Layers(rows.to(method.bank), head.to(method.bank))

    monkeypatch.setattr(method, "fresh_net", fresh_net)
    monkeypatch.setattr(method, "fresh_layers", fresh_layers)


def concept_file(vectors, names, folder) -> str:
    found = {}
    for c, text in zip(vectors["concept_class"], vectors["concept_text"]):
        found.setdefault(names[c], []).append(str(text))
    (folder / "concepts.json").write_text(json.dumps(found))
    return str(folder / "concepts.json")


@PRECISIONS
@pytest.mark.vectors("clg-cbm")
def test_clg_cbm(vectors, tiny, tmp_path, monkeypatch, precision):
    params, draws = vectors.params, StoredRun(vectors)
    world = World(tiny, tmp_path, precision, "class-incremental", vectors.tasks, [params["class_prompt"]])
    chosen = settings(params, concept_file(vectors, tiny.class_names, tmp_path))
    method = CLGCBM(chosen, world.backbone, world.scenario, draws)
    test, actual = world.unlabelled(vectors["test_index"]).features(), {}
    for index, classes in enumerate(world.classes):
        prefix = f"task{index + 1}_"
        draws.rows = np.sort(draws.epochs(f"{prefix}search_batches", params["search_epochs"])[0])
        rows = torch.from_numpy(draws.rows)
        feed_layers(monkeypatch, method, vectors, index)
        with monkeypatch.context() as patch:
            record = Record(method, patch)
            method.learn(world.task(index, rows, world.positions(rows)))
        found = record.arrays(method)
        if "samples" in found:
            found["samples"] = found["samples"].reshape(vectors[f"{prefix}samples"].shape)
        found["test_logits"] = method.logits(test, range(classes[-1] + 1))
        actual |= {prefix + name: values for name, values in found.items()}
    vectors.check(actual, dtype=precision)


def settings(params: dict, concepts: str) -> CLGCBM.Settings:
    for name in ("search_optimiser", "optimiser"):
        adam = params[name]
        assert (adam["name"], adam["betas"], adam["eps"], adam["weight_decay"]) == ("Adam", [0.9, 0.999], 1e-8, 0)
    assert params["sparse_factor"] == clg_cbm.SPARSE and params["sparse_l1_share"] == clg_cbm.L1_SHARE
    assert params["class_covariance_ridge"] == clg_cbm.RIDGE and params["lr_scale"] == "none" and not params["drop_last"]
    return CLGCBM.Settings(
        concepts=concepts, prefix=params["concept_prefix"], kept_per_class=params["concepts_kept_per_class"],
        search_epochs=params["search_epochs"], search_lr=params["search_lr"], division_power=params["division_power"],
        covariance_ridge=params["covariance_ridge"], first_epochs=params["first_epochs"],
        later_epochs=params["later_epochs"], first_lr=params["first_lr"], later_lr=params["later_lr"],
        milestones=tuple(params["milestones"]), batch_size=params["batch_size"],
        samples_per_class=params["samples_per_class"], similarity_weight=params["similarity_weight"],
    )  # fmt: skip
