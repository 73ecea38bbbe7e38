"""BOFA against its authors' learner: stored batches in; statistics, search, both stages, average and logits out."""

import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods import bofa
from methods.bofa import BOFA
from methods.shared.schedules import cosine_by_epoch
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World, places_in


def stored_batches(vectors, task: int) -> torch.Tensor:
    """(epochs, n) rows of the fixture, in the order in which the epochs of both stages go through them."""
    batches = vectors[f"task{task + 1}_batches"]
    params = vectors.params
    return torch.from_numpy(batches[batches >= 0].reshape(params["n_epochs"] + params["n_stage2_epochs"], -1))


class StoredOrders(Draws):
    """The order of the images in every epoch; they lie as the first epoch has them."""

    def __init__(self, vectors):
        super().__init__("conformance", "bofa", 0)
        self.vectors = vectors

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        assert what in ("batch order", "low-rank order")
        epochs = stored_batches(self.vectors, task)
        row = epochs[epoch + (self.vectors.params["n_epochs"] if what == "low-rank order" else 0)]
        order = places_in(epochs[0].numpy(), row.numpy())
        assert len(order) == n
        return order


class Record:
    """Notes what the learning of one task computes."""

    def __init__(self, method: BOFA, monkeypatch):
        self.method = method
        self.losses, self.rates, self.gradients, self.weights = [], [], [], []
        self.accuracies, self.moments, self.bases = [], [], []
        for name, notes in (
            ("mixing_accuracies", self.accuracies), ("second_moment", self.moments), ("quiet_directions", self.bases),
        ):  # fmt: skip
            self.note(monkeypatch, bofa, name, notes)
        self.note(monkeypatch, method, "loss", self.losses)
        step = torch.optim.SGD.step

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            (weights,) = group["params"]
            self.rates.append(group["lr"])
            self.gradients.append(weights.grad.clone())
            self.weights.append(weights.detach().clone())
            step(optimiser, *rest)

        monkeypatch.setattr(torch.optim.SGD, "step", recorded_step)

    def note(self, monkeypatch, owner, function: str, notes: list) -> None:
        original = getattr(owner, function)

        def recorded(*arguments):
            notes.append(original(*arguments))
            return notes[-1]

        monkeypatch.setattr(owner, function, recorded)

    def arrays(self, params: dict, before: torch.Tensor) -> dict[str, torch.Tensor]:
        """Under the names of the stored ones. `before`: the sum of the projections of past tasks."""
        method = self.method
        found = {
            "second_moment": self.moments[0],
            "loss": torch.stack(self.losses).detach(),
            "lr": self.rates_of_all(params),
            "grad_weight": self.gradients[0],
            "weight_stage1": method.bridge.detach().clone(),
            "fusion_weight": method.average.clone(),
            "lambda": method.mixing.clone(),
            "mu": method.means.clone(),
            "mu_unit": method.discriminant.means.clone(),
            "precision": method.discriminant.precision.clone(),
        }
        found["gda_weight"], found["gda_bias"] = method.discriminant.weights()
        if self.accuracies:
            found["lambda_accuracy"] = self.accuracies[0]
        if self.bases:
            basis = self.bases[0].to(method.bridges)
            change = method.bridges - before - method.initial
            projected = (method.bridge.detach() - method.initial) @ basis @ basis.T
            first = next(step for step, weights in enumerate(self.weights) if weights.shape[1] == basis.shape[1])
            found |= {
                "projected_change": projected,
                "stage2_change": change - projected,
                "grad_low_rank": self.gradients[first] @ basis.T,
            }
        return found

    def rates_of_all(self, params: dict) -> torch.Tensor:
        """(steps, 3) of the projection, the low-rank factor and the head that is left out, one of which a step has used."""
        optimiser, n_epochs = params["optimiser"], params["n_epochs"]
        steps = len(self.rates) // (n_epochs + params["n_stage2_epochs"])
        peaks = optimiser["lr"], params["low_rank_lr"], params["low_rank_lr"]
        rates = [
            [cosine_by_epoch(peak, optimiser["min_lr"], step // steps, n_epochs) for peak in peaks]
            for step in range(len(self.rates))
        ]
        for step, used in enumerate(self.rates):
            rates[step][bool(self.bases) and step // steps >= n_epochs] = used
        return torch.tensor(rates, dtype=torch.float64)


@PRECISIONS
@pytest.mark.vectors("bofa", "vectors*", "lambda_given*")
def test_bofa(vectors, tiny, tmp_path, monkeypatch, precision):
    params = vectors.params
    world = world_of(vectors, tiny, tmp_path, precision)
    method = BOFA(settings(params), world.backbone, world.scenario, StoredOrders(vectors))
    test = world.unlabelled(vectors["test_index"]).features(layer="pooled")
    texts = world.backbone.encode_text(world.scenario.prompts(range(len(method.texts))))
    torch.testing.assert_close(F.normalize(texts, dim=-1), method.texts)
    actual = {}
    for index, classes in enumerate(world.classes):
        rows, before, seen = stored_batches(vectors, index)[0], method.bridges.clone(), range(classes[-1] + 1)
        with monkeypatch.context() as patch:
            record = Record(method, patch)
            method.learn(world.task(index, rows, world.positions(rows)))
        found, scores = record.arrays(params, before), method.logits(test, seen)
        of_discriminant, share = method.discriminant.scores(F.normalize(test, dim=-1)), params["gda_weight"]
        found |= {
            "text_proto": texts[: len(seen)],
            "test_logits": scores,
            "gda": of_discriminant,
            "fused_cosine": (scores - share * of_discriminant) / (1 - share),
        }
        actual |= {f"task{index + 1}_{name}": values for name, values in found.items()}
    vectors.check(actual, dtype=precision)


@PRECISIONS
@pytest.mark.vectors("bofa", "lambda_search*")
def test_the_search_for_lambda(vectors, tiny, tmp_path, precision):
    assert vectors.params["lambda_grid"] == bofa.GRID
    dtype = getattr(torch, precision)
    world = World(tiny, tmp_path, precision, "class-incremental", vectors.tasks, ["{}"])
    features = F.normalize(world.unlabelled(vectors["train_index"]).features(), dim=-1)
    images, texts = (F.normalize(torch.from_numpy(vectors[f"{side}_prototypes"]).to(dtype), dim=-1) for side in ("image", "text"))
    accuracies = bofa.mixing_accuracies(features, torch.from_numpy(vectors["train_label"]), images, texts)
    best = float(accuracies.argmax()) / (bofa.GRID - 1)
    vectors.check({"accuracy": accuracies, "best_lambda": best}, dtype=precision)


def world_of(vectors, tiny, folder, precision: str) -> World:
    first, others = vectors.params["train_template"], vectors.params["templates"]
    templates = [first, *(template for template in others if template != first)]  # the harness trains with the first
    assert len(templates) == len(others)
    return World(tiny, folder, precision, "class-incremental", vectors.tasks, templates)


def settings(params: dict) -> BOFA.Settings:
    optimiser = params["optimiser"]
    assert optimiser["name"] == "SGD" and not optimiser["nesterov"] and not optimiser["dampening"] and not params["drop_last"]
    assert params["optimiser_renewed_per_task"] and params["prototypes"] == "mix" and params["lr_scale"] == "none"
    assert params["lambda_grid"] == bofa.GRID and params["logit_factor"].startswith("logit_scale as stored")
    assert params["lambda_weights_text_in_search"]
    return BOFA.Settings(
        epochs=params["n_epochs"], low_rank_epochs=params["n_stage2_epochs"], batch_size=params["batch_size"],
        lr=optimiser["lr"], min_lr=optimiser["min_lr"], momentum=optimiser["momentum"],
        weight_decay=optimiser["weight_decay"], low_rank_lr=params["low_rank_lr"],
        low_rank_weight_decay=params["low_rank_weight_decay"], rank=params["rank"], moment_ridge=params["moment_ridge"],
        discriminant_weight=params["gda_weight"], mixing_weight=params["lambda_given"] or 0.0,
        swapped_mixing=params["lambda_weights_image_in_training_and_test"],
    )  # fmt: skip
