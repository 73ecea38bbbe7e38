"""LADA against its authors' code: stored starts, orders, noise and mixtures in; steps, adapters, memory and scores out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.lada import class_mixtures, lada
from methods.lada.class_memory import centres, is_unit
from methods.lada.class_mixtures import Mixture, fit_mixture
from methods.lada.lada import LADA
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World, places_in


class StoredDraws(Draws):
    """Orders of images and the noise of every step. `task1` of the file is the stream's task 0."""

    def __init__(self, vectors):
        super().__init__("conformance", "lada", 0)
        self.vectors = vectors

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        assert what == "batch order"
        order = places_in(self.vectors[f"task{task + 1}/update_idx"], self.vectors[f"task{task + 1}/train_order"][epoch])
        assert len(order) == n
        return order

    def normal(self, shape, *purpose):
        what, task, step = purpose
        noise = self.vectors[f"task{task + 1}/noise"][step]
        assert what == "replay" and noise.shape == tuple(shape)
        return torch.from_numpy(noise)


class Run:
    """A method that starts every task from what is stored of it, and notes what learning computes."""

    def __init__(self, vectors, world: World, monkeypatch):
        self.vectors, self.place = vectors, "task1"
        self.method = LADA(settings(vectors.params), world.backbone, world.scenario, StoredDraws(vectors))
        new_adapters, fit, logits, loss = (
            getattr(self.method, name) for name in ("new_adapters", "fit", "training_logits", "loss")
        )
        self.steps: list[dict] = []

        def stored_adapters():
            adapters = new_adapters()
            for down, start in zip(adapters.down, vectors[f"{self.place}/down_weight0"]):
                assert down.weight.shape == start.shape
                down.weight.data = torch.from_numpy(start).to(down.weight)
            return adapters

        def noted_fit(*arguments):
            self.units, self.counts = arguments[-2:]
            self.tokens = arguments[-3]
            fit(*arguments)

        def noted_logits(*arguments):
            found = logits(*arguments)
            self.steps.append({"logits": found.detach()})
            return found

        def noted_loss(scores, inputs):
            found = loss(scores, inputs)
            self.steps[-1] |= {"loss": found.detach(), "targets": inputs.labels, "weights": inputs.weights}
            return found

        step = torch.optim.AdamW.step

        def noted_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            beta2, weight_decay = group["betas"][1], group["weight_decay"]
            stored = vectors.params["optimiser"]
            assert (beta2, group["eps"], weight_decay) == (stored["betas"][1], stored["eps"], stored["weight_decay"])
            self.steps[-1] |= {"lr": group["lr"], "beta1": group["betas"][0], "gradients": self.trained(gradients=True)}
            step(optimiser, *rest)

        for name, replacement in (
            ("new_adapters", stored_adapters), ("fit", noted_fit), ("training_logits", noted_logits), ("loss", noted_loss),
        ):  # fmt: skip
            monkeypatch.setattr(self.method, name, replacement)
        monkeypatch.setattr(torch.optim.AdamW, "step", noted_step)
        monkeypatch.setattr(lada, "centres", self.stored_centres)

    def stored_centres(self, features: torch.Tensor, units: int) -> torch.Tensor:
        """The memory with which the next class of the task starts."""
        own = self.vectors[f"{self.place}/memory0"][self.vectors[f"{self.place}/memory_class"] == self.classes_started]
        assert len(own) == min(units, len(features))
        self.classes_started += 1
        return torch.from_numpy(own).to(features)

    def trained(self, gradients: bool = False) -> dict[str, torch.Tensor]:
        """Adapters and new units, or their gradients, under the names of the stored ones."""
        def value(parameter):
            return (parameter.grad if gradients else parameter).detach().clone()

        adapters, taken = self.method.adapters, is_unit(self.counts, self.units.shape[1])
        found = {"memory": value(self.units)[taken]}
        parts = zip(adapters.norms, adapters.down, adapters.up, adapters.factors)
        for block, (norm, down, up, factor) in enumerate(parts):
            layers = {"ln": norm, "down": down, "up": up}
            for name, layer in layers.items():
                found |= {f"block{block}/{name}_{what}": value(getattr(layer, what)) for what in ("weight", "bias")}
            found[f"block{block}/scale"] = value(factor)
        return found

    def learn(self, task) -> dict[str, torch.Tensor]:
        """Expected arrays of the task."""
        self.place, self.classes_started, self.steps = f"task{task.index + 1}", 0, []
        known = self.method.n_seen
        self.method.learn(task)
        self.take_stored_mixtures(task)
        first, *_ = self.steps
        found = {
            "tokens": self.tokens,
            "lrs": torch.tensor([step["lr"] for step in self.steps], dtype=torch.float64),
            "beta1s": torch.tensor([step["beta1"] for step in self.steps], dtype=torch.float64),
            "losses": torch.stack([step["loss"] for step in self.steps]),
            "logits_first": first["logits"], "targets_first": first["targets"], "weights_first": first["weights"],
            "text_kept": self.method.kept_texts[known:],
        }  # fmt: skip
        for place, arrays in (("grad0", first["gradients"]), ("grad1", self.steps[1]["gradients"]), ("final", self.trained())):
            found |= {f"{place}/{name}": array for name, array in arrays.items()}
        return {f"{self.place}/{name}": array for name, array in found.items()}

    def take_stored_mixtures(self, task) -> None:
        """The stored mixtures in the place of those that were fitted, of the same classes and numbers of components."""
        mixtures = self.method.mixtures
        means, variances, weights = (self.vectors[f"{self.place}/gmm_{name}"] for name in ("means", "variances", "weights"))
        own = mixtures.owners >= task.classes[0]
        assert int(own.sum()) == len(means) and torch.equal(mixtures.owners[own], mixtures.owners[own].sort().values)
        for name, stored in (("means", means), ("variances", variances), ("weights", weights)):
            getattr(mixtures, name)[own] = torch.from_numpy(stored).to(mixtures.means)


@PRECISIONS
@pytest.mark.vectors("lada", "lada*")
def test_lada(vectors, tiny, tmp_path, monkeypatch, precision):
    tasks = tasks_of(vectors)
    never_learned = vectors["class_ids"].tolist()[sum(map(len, tasks)) :]
    world = World(tiny, tmp_path, precision, "class-incremental", tasks, [vectors.params["template"]], never_learned)
    run = Run(vectors, world, monkeypatch)
    method, every_class = run.method, range(len(vectors["class_ids"]))
    images = world.unlabelled(vectors["test_idx"]).features()
    labels = torch.from_numpy(vectors["test_labels"])
    actual = {
        "image_raw_test": images,
        "zero_shot_text": method.frozen_texts[method.prompt_of_class],
        "zero_shot_logits": method.logits(images, every_class),
    }
    for index, classes in enumerate(world.classes):
        rows = torch.from_numpy(vectors[f"task{index + 1}/update_idx"])
        assert (vectors[f"task{index + 1}/update_labels"] + classes[0]).tolist() == world.positions(rows).tolist()
        actual |= run.learn(world.task(index, rows, world.positions(rows)))
        scores, place = method.logits(images, every_class), f"task{index + 1}"
        actual |= {
            f"{place}/test_logits": scores,
            f"{place}/test_pred": scores.argmax(dim=1),
            f"{place}/gate": scores.argmax(dim=1) < method.n_seen,
            f"{place}/current_only_logits": method.logits(images[rows_of_classes(labels, classes)], classes),
            f"{place}/selector_scores": with_selector(method).logits(images, every_class),
        }
    vectors.check(actual, dtype=precision)


def tasks_of(vectors) -> list[list[int]]:
    ids, ends = vectors["class_ids"].tolist(), np.cumsum(vectors["task_sizes"]).tolist()
    return [ids[end - size : end] for end, size in zip(ends, vectors["task_sizes"].tolist())]


def rows_of_classes(labels: torch.Tensor, classes) -> torch.Tensor:
    """Rows of the test images of these classes, class by class."""
    return torch.cat([torch.nonzero(labels == c).flatten() for c in classes])


def with_selector(method: LADA) -> LADA:
    """The same learned state, scored as the release does with its selector."""
    params = {field: getattr(method.settings, field) for field in method.settings.__dataclass_fields__}
    other = LADA(LADA.Settings(**params | {"selector": True}), method.backbone, method.scenario, method.draws)
    other.load_state_dict(method.state_dict())
    return other


def settings(params: dict) -> LADA.Settings:
    optimiser, cycle = params["optimiser"], params["one_cycle"]
    assert optimiser["name"] == "AdamW" and not params["drop_last"] and params["fresh_optimiser_per_task"]
    assert optimiser["lr"] == cycle["max_lr"] and cycle["pct_start"] == 0.3 and cycle["anneal"] == "cosine"
    assert cycle["div_factor"] == lada.RISE and cycle["div_factor"] * cycle["final_div_factor"] == lada.FALL
    assert (cycle["base_beta1"], cycle["max_beta1"]) == (lada.BETA1_LOW, lada.BETA1_HIGH)
    assert params["adapter_redrawn_per_task"] and params["adapter_layer_norm_eps"] == 1e-5
    return LADA.Settings(
        epochs=params["n_epochs"], batch_size=params["batch_size"], lr=optimiser["lr"],
        weight_decay=optimiser["weight_decay"], bottleneck=params["adapter_bottleneck"],
        adapter_scale=params["adapter_factor"], units=params["memory_per_class"],
        components=params["prototypes_per_class"], alpha=params["alpha"], beta=params["beta"],
        replay_weight=params["replay_weight"], unseen_penalty=params["unseen_penalty"], template=params["template"],
        crop_scale=1.0, mirrored_view=False,
    )  # fmt: skip


@PRECISIONS
@pytest.mark.vectors("lada", "fits*")
def test_the_fits_of_memory_and_mixtures(vectors, precision):
    params = vectors.params
    assert params["gmm"]["added_to_variance"] == class_mixtures.FLOOR and params["gmm"]["max_rounds"] == class_mixtures.ROUNDS
    actual = {}
    for name in vectors.arrays:
        place, _, what = name.rpartition("/")
        features = torch.from_numpy(vectors[f"{name.split('/')[0]}/features"]) if place else None
        if what == "centres":
            unit = F.normalize(features.to(getattr(torch, precision)), dim=-1)
            found = centres(unit, int(place.partition("kmeans")[2]))
            actual[name] = found[found[:, 0].argsort()]
            distances = (unit.unsqueeze(1) - found).square().sum(dim=2)
            actual[f"{place}/inertia"] = distances.amin(dim=1).sum()
        elif what == "start_labels":
            mixture: Mixture = fit_mixture(features.to(getattr(torch, precision)).numpy(), vectors[name])
            actual |= {f"{place}/{part}": getattr(mixture, part) for part in Mixture._fields}
    vectors.check(actual, dtype=precision)
