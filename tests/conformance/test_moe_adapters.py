"""MoE-Adapters against the authors' modified CLIP, class-incremental form: the same adapters and noise, number by number."""

import dataclasses

import numpy as np
import pytest
import torch

from bench.streams.stream import Scenario, SealedSplit, Task
from bench.system.randomness import Draws
from methods.moe_adapters.moe_adapters import MoEAdapters, MoEAdaptersSettings


class StoredDraws(Draws):
    """Hands out the stored gating noise of a step or of the test, and the rows in the order in which they are stored."""

    def __init__(self, vectors):
        super().__init__("vectors", "moe-adapters", 0)
        self.vectors = vectors

    def normal(self, shape, *purpose):
        kind, tower, when, *step = purpose
        assert kind == "gating noise"
        stored = self.vectors.tensor(f"test_noise_{tower}" if when == "test" else f"step{step[0]}_noise_{tower}")
        assert stored.shape == tuple(shape)
        return stored

    def permutation(self, n, *purpose):
        return torch.arange(n)


class Steps:
    """The first step's logits, gates and gradients."""

    def __init__(self, method: MoEAdapters, monkeypatch):
        self.method, self.training_logits, self.update = method, method.training_logits, torch.optim.AdamW.step
        method.training_logits = self.record
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimiser, *rest: self.record_gradients(optimiser, *rest))
        self.first, self.gates = {}, {}
        for tower in ("image", "text"):
            for index, mixture in enumerate(getattr(method.towers, tower)):
                self._record_gates(mixture, (tower, index))

    def _record_gates(self, mixture, place):
        gates = mixture.gates

        def recorded(*arguments):
            found = gates(*arguments)
            self.gates.setdefault(place, found.detach())  # the first call's
            return found

        mixture.gates = recorded

    def record(self, *arguments):
        logits = self.training_logits(*arguments)
        if "step0_logits" not in self.first:
            self.first["step0_logits"] = logits.detach()
            for tower in ("image", "text"):
                n = len(getattr(self.method.towers, tower))
                self.first[f"step0_gates_{tower}"] = torch.stack([self.gates[tower, index] for index in range(n)])
        return logits

    def record_gradients(self, optimiser, *rest):
        if "step0_grad_norms" not in self.first:
            self.keep_gradients()
        return self.update(optimiser, *rest)

    def keep_gradients(self):
        norms = []
        for tower in ("image", "text"):
            mixtures = getattr(self.method.towers, tower)
            self.first[f"step0_grad_router_{tower}"] = torch.stack([m.routers[0].grad.clone() for m in mixtures])
            for mixture in mixtures:
                grads = [p.grad.norm() for expert in mixture.experts for p in expert.parameters() if p.grad is not None]
                norms.append(torch.stack(grads).norm())
        self.first["step0_grad_norms"] = torch.stack(norms)  # of each block's adapters


@torch.no_grad()
def load_adapters(method: MoEAdapters, vectors) -> None:
    for tower in ("image", "text"):
        for index, mixture in enumerate(getattr(method.towers, tower)):
            stored = vectors.group(f"{tower}{index}_")
            mixture.routers[0].copy_(stored["router"])
            mixture.noise_weights[0].copy_(stored["wnoise"])
            for number, expert in enumerate(mixture.experts):
                for layer, name in ((expert.down, "down"), (expert.up, "up")):
                    layer.weight.copy_(stored[f"{name}_w"][number])
                    layer.bias.copy_(stored[f"{name}_b"][number])


def settings_of(params) -> MoEAdaptersSettings:
    optimiser = params["optimiser"]
    assert params["no_update_for_experts_without_gradient"]
    return MoEAdaptersSettings(
        experts=params["n_experts"],
        chosen=params["top_k"],
        bottleneck=params["bottleneck"],
        adapter_scale=params["adapter_scale"],
        adapter_dropout=params["adapter_dropout"],
        crop_scale=1.0,
        epochs=1,
        batch_size=params["batch_size"],
        lr=optimiser["lr"],
        beta1=optimiser["betas"][0],
        beta2=optimiser["betas"][1],
        eps=optimiser["eps"],
        weight_decay=optimiser["weight_decay"],
        label_smoothing=params["label_smoothing"],
        test_noise=True,
    )


@pytest.mark.vectors("moe-adapters")
def test_updates_on_a_task_and_scores_of_all_classes(vectors, tiny, monkeypatch):
    params, tasks = vectors.params, vectors.tasks
    order = [c for classes in tasks for c in classes]
    position = torch.full((len(tiny.class_names),), -1)
    position[torch.tensor(order)] = torch.arange(len(order))
    sizes = [len(classes) for classes in tasks]
    names = tuple(tiny.class_names[c] for c in order)
    owners = tuple(np.repeat(range(len(sizes)), sizes).tolist())
    scenario = Scenario("class-incremental", names, ((params["template"],),) * len(names), owners)
    method = MoEAdapters(settings_of(params), tiny.backbone, scenario, StoredDraws(vectors))
    load_adapters(method, vectors)
    steps = Steps(method, monkeypatch)
    if params["optimiser"]["schedule"] == "constant":
        method.schedule = lambda peak, iterations: [peak] * iterations  # without the one more of the authors' loop
    losses, fit = [], method.fit
    method.fit = lambda *arguments: losses.extend(fit(*arguments))

    trained = params["train_task"]
    first = sum(sizes[:trained])
    rows = torch.from_numpy(vectors["batches"]).flatten()  # one after another as a single epoch
    train = tiny.split(rows, position[tiny.labels[rows]])
    method.learn(Task(trained, "task", tuple(range(first, first + sizes[trained])), train, SealedSplit()))

    test_rows = torch.from_numpy(vectors["test_idx"])
    test = tiny.split(test_rows, position[tiny.labels[test_rows]]).pixels()
    actual = {**steps.first, "losses": losses, "test_logits": method.logits(test, range(len(names)))}
    method.settings = dataclasses.replace(method.settings, test_noise=False)
    method.store_class_vectors()
    actual["test_logits_noise_free"] = method.logits(test, range(len(names)))
    vectors.check(actual)
