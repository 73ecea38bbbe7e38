"""ENGINE against its authors' learner: stored units, batches, noise and descriptions in; losses, units and scores out."""

import json

import numpy as np
import pytest
import torch

from bench.system.randomness import Draws
from methods.engine.engine import ENGINE
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World, places_in

SIDES = ("image", "text")


class StoredRun(Draws):
    """What a task has drawn. Images lie as the first epoch has them; tasks are numbered from 1 in the arrays' names."""

    def __init__(self, vectors):
        super().__init__("conformance", "engine", 0)
        self.vectors, self.method, self.labels = vectors, None, None

    def epochs(self, task: int) -> list[np.ndarray]:
        """Rows of the fixture, epoch by epoch."""
        batches = self.vectors[f"task{task + 1}_batches"]
        return [part[part >= 0] for part in np.split(batches, self.vectors.params["n_epochs"])]

    def first_step(self, task: int, epoch: int) -> int:
        return epoch * len(self.vectors[f"task{task + 1}_batches"]) // self.vectors.params["n_epochs"]

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        if what == "old classes":
            order = torch.from_numpy(self.vectors[f"task{task + 1}_proto_class"][self.first_step(task, epoch)])
        else:
            assert what == "batch order"
            epochs = self.epochs(task)
            order = places_in(epochs[0], epochs[epoch])
        assert sorted(order.tolist()) == list(range(n))
        return order

    def normal(self, shape, *purpose):
        what, task, step = purpose
        if what == "prototype noise":
            noise = self.vectors[f"task{task + 1}_proto_noise"][step]
        else:
            assert what == "pixel noise"
            times = self.vectors.params["pixel_noise_enlarged"]
            noise = self.vectors[f"task{task + 1}_pixel_noise"][step][: shape[0]].repeat(times, axis=2).repeat(times, axis=3)
        assert noise.shape == tuple(shape)
        return torch.from_numpy(noise.astype(np.float64))

    def uniform(self, shape, *purpose):
        """Shares that lead to the stored descriptions."""
        what, task, *step = purpose
        if what == "re-ranking":  # stored image by image instead
            return super().uniform(shape, *purpose)
        assert what == "descriptions"
        rows = self.vectors[f"task{task + 1}_des_row"][step[0]][: shape[0]]
        shares = []
        for row in rows.tolist():
            c, place = self.place(row)
            pool = self.method.descriptions.pool(c)
            shares.append((pool.index(place) + 0.5) / len(pool))
        return torch.tensor(shares, dtype=torch.float64)

    def place(self, row: int) -> tuple[int, int]:
        """A stored description as the class that it is of, and its place among those of the class."""
        classes, others = self.vectors["des_class"], self.vectors["des_other"]
        c = self.position[int(classes[row])]
        own = [k for other in dict.fromkeys(others[classes == classes[row]].tolist())
               for k in np.flatnonzero((classes == classes[row]) & (others == other)).tolist()]  # fmt: skip
        return c, own.index(row)


def description_file(vectors, names, folder) -> str | None:
    if "des_text" not in vectors:
        return None
    found = {}
    for c, other, text in zip(vectors["des_class"], vectors["des_other"], vectors["des_text"]):
        found.setdefault(str(names[c]), {}).setdefault(str(names[other]), []).append(str(text))
    path = folder / "descriptions.json"
    path.write_text(json.dumps(found))
    return str(path)


class Record:
    """Notes what the learning of one task computes."""

    def __init__(self, method: ENGINE, monkeypatch):
        self.method, self.parts, self.losses, self.rates, self.newest, self.gradients = method, [], [], [], [], None
        loss, matching, step = method.loss, method.matching, torch.optim.SGD.step

        def recorded_loss(image_unit, text_unit, step):
            self.newest = [parameter for unit in (image_unit, text_unit) for parameter in (unit.weight, unit.bias)]
            self.matches = []
            self.losses.append(loss(image_unit, text_unit, step).detach())
            forward, backward, *others = self.matches
            named = {"clip": (forward + backward) / 2}
            for name, there in (("image", len(step.copies)), ("text", len(step.described))):
                named |= {name: others.pop(0)} if there else {}
            assert not others
            self.parts.append(named)
            return loss(image_unit, text_unit, step)

        def recorded_matching(similarities):
            self.matches.append(matching(similarities).detach())
            return matching(similarities)

        def recorded_step(optimiser, *rest):
            self.rates.append(optimiser.param_groups[0]["lr"])
            if self.gradients is None:
                self.gradients = [parameter.grad.clone() for parameter in self.newest]
            step(optimiser, *rest)

        monkeypatch.setattr(method, "loss", recorded_loss)
        monkeypatch.setattr(method, "matching", recorded_matching)
        monkeypatch.setattr(torch.optim.SGD, "step", recorded_step)

    def arrays(self, n_old: int) -> dict[str, torch.Tensor]:
        method, kinds = self.method, [f"{side}_{part}" for side in SIDES for part in ("weight", "bias")]
        found = {"loss": torch.stack(self.losses), "lr": torch.tensor(self.rates, dtype=torch.float64)}
        found |= {f"{name}_loss": torch.stack([step[name] for step in self.parts]) for name in self.parts[0]}
        found |= {f"grad_{kind}": gradient for kind, gradient in zip(kinds, self.gradients)}
        parts = [part for own in (method.image_units, method.text_units) for part in (own.weights, own.offsets)]
        stacks = dict(zip(kinds, parts))
        found |= {kind: stack[-1].clone() for kind, stack in stacks.items()}
        found |= {f"unit{j + 1}_{kind}": one.clone() for kind, stack in stacks.items() for j, one in enumerate(stack[:-1])}
        found |= {"mu": method.discriminant.means.clone(), "precision": method.discriminant.precision.clone()}
        found["gda_weight"], found["gda_bias"] = method.discriminant.weights()
        return found | {"prototypes": method.prototypes[n_old:].clone()}


@PRECISIONS
@pytest.mark.vectors("engine")
def test_engine(vectors, tiny, tmp_path, monkeypatch, precision):
    params, draws = vectors.params, StoredRun(vectors)
    world = world_of(vectors, tiny, tmp_path, precision)
    draws.position = world.position
    chosen = settings(params, description_file(vectors, tiny.class_names, tmp_path))
    method = ENGINE(chosen, world.backbone, world.scenario, draws)
    draws.method = method
    test = world.unlabelled(vectors["test_index"]).features(layer="pooled")
    actual, n_classes = {}, len(world.scenario.class_names)
    for index, classes in enumerate(world.classes):
        prefix, n_seen = f"task{index + 1}_", classes[-1] + 1
        feed_units(monkeypatch, method, vectors, prefix)
        rows, n_old = torch.from_numpy(draws.epochs(index)[0]), len(method.prototypes)
        with monkeypatch.context() as patch:
            record = Record(method, patch)
            method.learn(world.task(index, rows, world.positions(rows)))
        found, seen = record.arrays(n_old), range(n_seen)
        if f"{prefix}rerank_row" in vectors:
            feed_descriptions(monkeypatch, method, vectors[f"{prefix}rerank_row"], draws)
        found["test_logits"] = method.logits(test, seen)
        found |= parts_of_scores(method, test, n_seen, f"{prefix}rerank_row" in vectors)
        # classes of no later task are there for this alone: with one of them asked for, no discriminant counts
        adapted = torch.nn.functional.normalize(method.image_units(test @ method.projection), dim=-1)
        zero_shot = adapted @ method.class_vectors.T
        if n_seen < n_classes:
            torch.testing.assert_close(method.logits(test, range(n_classes)), zero_shot)
        found["zero_shot_logits"] = zero_shot
        actual |= {prefix + name: values for name, values in found.items()}
    vectors.check(actual, dtype=precision, faithful=True)


def parts_of_scores(method: ENGINE, test: torch.Tensor, n_seen: int, reranked: bool) -> dict[str, torch.Tensor]:
    """The cosine and the re-ranking of seen classes, from scores that have no other part."""
    found, discriminant, seen = {}, method.settings.discriminant_weight, range(n_seen)
    wanted = {"cosine": 0.0} | ({"rerank": 1.0} if reranked else {})
    kept = method.rerank_weight
    object.__setattr__(method.settings, "discriminant_weight", 0.0)
    for name, weight in wanted.items():
        method.rerank_weight = weight
        found[name] = method.logits(test, seen)
    method.rerank_weight = kept
    object.__setattr__(method.settings, "discriminant_weight", discriminant)
    return found


def feed_units(monkeypatch, method: ENGINE, vectors, prefix: str) -> None:
    """The units that training begins with."""
    for side, units in zip(SIDES, (method.image_units, method.text_units)):
        weight, offset = (torch.from_numpy(vectors[f"{prefix}{side}_{part}0"].astype(np.float64)) for part in ("weight", "bias"))

        def fresh(draws, *purpose, weight=weight, offset=offset, own=units):
            unit = torch.nn.Linear(*weight.T.shape).to(own.weights)
            unit.load_state_dict({"weight": weight, "bias": offset})
            return unit

        monkeypatch.setattr(units, "fresh", fresh)


def feed_descriptions(monkeypatch, method: ENGINE, stored: np.ndarray, draws: StoredRun) -> None:
    """The descriptions that re-ranking has drawn for every image (draws, images, k, k - 1)."""

    def rows_of(best):
        rows = torch.tensor([draws.place(row)[1] for row in stored.flatten().tolist()]).view(stored.shape)
        owners = torch.tensor([draws.place(row)[0] for row in stored[0, :, :, 0].flatten().tolist()]).view(best.shape)
        assert torch.equal(owners, best)
        return rows

    monkeypatch.setattr(method, "rows_of", rows_of)


def world_of(vectors, tiny, folder, precision: str) -> World:
    first, others = vectors.params["train_template"], vectors.params["templates"]
    templates = [first, *(template for template in others if template != first)]  # the harness trains with the first
    assert len(templates) == len(others)
    learned = [c for task in vectors.tasks for c in task]
    scored = int(vectors["task1_zero_shot_logits"].shape[1])
    others = [c for c in range(len(tiny.class_names)) if c not in learned][: scored - len(learned)]
    return World(tiny, folder, precision, "class-incremental", vectors.tasks, templates, others)


def settings(params: dict, descriptions: str | None) -> ENGINE.Settings:
    optimiser = params["optimiser"]
    assert optimiser["name"] == "SGD" and not optimiser["nesterov"] and not optimiser["dampening"] and not params["drop_last"]
    assert params["optimiser_renewed_per_task"] and params["lr_scale"] == "none" and params["pixel_noise_clamp"] == [0, 1]
    assert params["contrastive_scale"].startswith("logit_scale as stored") and params["description_lower_case"]
    assert params["description_prompt"] == "{name} with {caption}"
    return ENGINE.Settings(
        descriptions=descriptions, epochs=params["n_epochs"], batch_size=params["batch_size"], lr=optimiser["lr"],
        min_lr=optimiser["min_lr"], momentum=optimiser["momentum"], weight_decay=optimiser["weight_decay"],
        image_weight=params["image_loss_weight"], pixel_noise=params["pixel_noise_std"],
        prototype_noise=params["proto_noise"], text_weight=params["text_loss_weight"],
        discriminant_weight=params["gda_weight"], rerank_weight=params["rerank_weight"], rerank_top=params["rerank_top"],
        rerank_draws=params["rerank_draws"], frozen_units_decay=params["frozen_units_decay"],
    )  # fmt: skip
