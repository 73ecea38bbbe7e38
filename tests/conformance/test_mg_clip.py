"""MG-CLIP against its authors' programs: both steps of every task, scores, and the search for the number of epochs."""

import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.mg_clip import MGCLIP
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World, places_in

PLAIN_ADAM = {"name": "Adam", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}


class StoredOrders(Draws):
    """The stored orders of the stream whose arrays begin with `place`."""

    def __init__(self, vectors, place: str):
        super().__init__("conformance", "mg-clip", 0)
        self.vectors, self.place = vectors, place

    def permutation(self, n, *purpose):
        what, task, number = purpose
        name, row = {
            "gap order": ("gap_order", number),
            "trial order": ("train_order", number),
            "batch order": ("train_order", number),
            "visual order": ("visual_order", number + 1),  # the first is that of the pass that takes the means
        }[what]
        rows = self.vectors[f"{self.place}task{task}/{name}"].reshape(-1, n)[row]
        return places_in(self.vectors[f"{self.place}task{task}/train_index"], rows)


class Steps:
    """Notes what every step of both optimisers computes, while `monkeypatch` holds. LoRA's are "", the rows' "visual_"."""

    def __init__(self, method: MGCLIP, monkeypatch):
        self.losses: dict[str, list[torch.Tensor]] = {"": [], "visual_": []}
        self.rates: dict[str, list[float]] = {"": [], "visual_": []}
        self.before, self.gradients, self.after = {}, {}, {}  # of the first steps
        cross_entropy, adam_step = F.cross_entropy, torch.optim.Adam.step
        of_lora = {id(weights): name for name, weights in lora_of(method).items()}

        def recorded_loss(*arguments):
            self.loss = cross_entropy(*arguments)
            return self.loss

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            named = {of_lora.get(id(weights), "rows"): weights for weights in group["params"]}
            which = "visual_" if "rows" in named else ""
            self.losses[which].append(self.loss.detach().clone())
            self.rates[which].append(group["lr"])
            first = len(self.losses[which]) == 1
            if first:
                self.before |= {name: weights.detach().clone() for name, weights in named.items()}
                self.gradients |= {name: weights.grad.clone() for name, weights in named.items()}
            adam_step(optimiser, *rest)
            if first:
                self.after |= {name: weights.detach().clone() for name, weights in named.items()}

        monkeypatch.setattr(F, "cross_entropy", recorded_loss)
        monkeypatch.setattr(torch.optim.Adam, "step", recorded_step)

    def arrays(self, method: MGCLIP) -> dict[str, torch.Tensor]:
        found = {f"{which}losses": torch.stack(losses) for which, losses in self.losses.items() if losses}
        found |= {f"{which}learning_rates": torch.tensor(rates, dtype=torch.float64) for which, rates in self.rates.items()}
        found |= {f"grad0/{name}": gradient for name, gradient in self.gradients.items()}
        found |= {f"step1/{name}": weights for name, weights in self.after.items()}
        return found | {f"lora/{name}": weights.detach().clone() for name, weights in lora_of(method).items()}


def lora_of(method: MGCLIP) -> dict[str, torch.nn.Parameter]:
    towers = {"visual": method.image_lora, "text": method.text_lora}
    return {f"{tower}/{name}": getattr(lora, name) for tower, lora in towers.items() for name in ("k_A", "v_A", "k_B", "v_B")}


def build(world: World, vectors, place: str, params: dict, **settings) -> MGCLIP:
    """The method that starts from the stored A, in the precision of the world."""
    optimiser = params["optimiser"]
    assert optimiser.items() >= PLAIN_ADAM.items() and not params["drop_last"] and params["batch_means_unweighted"]
    settings |= {
        "rank": params["lora_rank"], "alpha": params["lora_alpha"], "lr": optimiser["lr"], "batch_size": params["batch_size"],
        "lr_floor": optimiser["floor_factor"], "template": params["template"],
    }  # fmt: skip
    method = MGCLIP(MGCLIP.Settings(**settings), world.backbone, world.scenario, StoredOrders(vectors, place))
    method.to(world.backbone.dtype)
    for name, weights in lora_of(method).items():
        if name.endswith("_A"):
            weights.data = torch.from_numpy(vectors[f"{place}lora0/{name}"]).to(weights)
    return method


def task_of(world: World, vectors, place: str, index: int):
    rows = torch.from_numpy(vectors[f"{place}task{index}/train_index"])
    return world.task(index, rows, world.positions(rows))


@torch.no_grad()
def zero_shot_means(method: MGCLIP, task) -> dict[str, torch.Tensor]:
    images = F.normalize(task.train.features(), dim=-1)
    right, wrong = method.mean_scores(task, images, method.backbone.clip, 0)
    return {"zero_shot_positive_mean": right, "zero_shot_negative_mean": wrong}


@PRECISIONS
@pytest.mark.vectors("mg-clip", "cil*")
def test_both_steps_and_scores_over_tasks(vectors, tiny, tmp_path, monkeypatch, precision):
    params, actual = vectors.params, {}
    visual = params["visual_optimiser"]
    assert visual.items() >= PLAIN_ADAM.items() and visual["floor_factor"] == params["optimiser"]["floor_factor"]
    assert params["optimiser_reset_per_task"] and params["lora_B_start"] == 0
    learned = sum(map(len, vectors.tasks))
    never_learned = vectors["class_order"].tolist()[learned:]
    world = World(tiny, tmp_path, precision, "class-incremental", vectors.tasks, ["{}"], never_learned)
    method = build(
        world, vectors, "", params, epochs=params["epochs"], visual_lr=visual["lr"], visual_epochs=params["visual_epochs"],
        visual_batch_size=params["visual_batch_size"], text_weight=params["text_weight"], visual_weight=params["visual_weight"],
        text_softmax_twice=params["text_softmax_twice"],
    )  # fmt: skip
    every_class = range(len(world.scenario.class_names))
    all_pixels = world.unlabelled(vectors["test_index"]).pixels()
    for index, classes in enumerate(world.classes):
        place, n_old, n_seen = f"task{index}", classes[0], classes[-1] + 1
        task = task_of(world, vectors, "", index)
        found = zero_shot_means(method, task)
        with monkeypatch.context() as patch:
            steps = Steps(method, patch)
            method.learn(task)
        found |= steps.arrays(method)
        of_old = torch.zeros(n_old, method.rows.shape[1], dtype=world.backbone.dtype)  # whose rows are not trained
        found |= {
            "class_means": steps.before["rows"],
            "visual_grad0": torch.cat([of_old, steps.gradients["rows"]]),
            "visual_weights": method.rows.clone(),
            "test_image_features": method.test_features(all_pixels),
            "text_features_all_classes": method.class_vectors.clone(),
        }
        pixels = world.unlabelled(vectors[f"{place}/seen_test_index"]).pixels()
        logits = method.logits(pixels, range(n_seen))
        features = method.test_features(pixels)
        found |= {
            "test_text_probabilities": method.text_scores(features, range(n_seen)).softmax(dim=-1),
            "test_visual_cosines": method.cosines(features, range(n_seen)),
            "test_scores": logits.softmax(dim=-1),
            "test_predictions": logits.argmax(dim=-1),
        }
        by_text = method.text_scores(method.test_features(all_pixels), every_class)
        if n_seen < len(every_class):
            assert torch.equal(method.logits(all_pixels, every_class), by_text)
        found["text_probabilities_all_classes"] = by_text.softmax(dim=-1)
        actual |= {f"{place}/{name}": values for name, values in found.items()}
    vectors.check(actual, dtype=precision)


@PRECISIONS
@pytest.mark.vectors("mg-clip", "epochs*")
def test_the_search_for_the_number_of_epochs(vectors, tiny, tmp_path, monkeypatch, precision):
    shared, actual = {name: value for name, value in vectors.params.items() if name != "cases"}, {}
    assert shared["minimum_epochs"] == 1
    for number, own in enumerate(vectors.params["cases"]):
        place, params = f"case{number}/", shared | own
        first = vectors[f"{place}task0/classes"].tolist()
        world = World(tiny, tmp_path, precision, "class-incremental", [first], ["{}"])
        method = build(world, vectors, place, params, gap_tolerance=params["gap_tolerance"], max_epochs=params["max_epochs"])
        task, means, mean_scores = task_of(world, vectors, place, 0), [], method.mean_scores
        found = zero_shot_means(method, task)

        def recorded(*arguments, means=means, mean_scores=mean_scores):
            means.append(mean_scores(*arguments))
            return means[-1]

        with monkeypatch.context() as patch:
            patch.setattr(method, "mean_scores", recorded)
            steps = Steps(method, patch)
            actual[f"{place}chosen_epochs"] = torch.tensor(method.search_epochs(task, None))
        found |= steps.arrays(method)
        found["positive_mean"], found["negative_mean"] = (torch.stack(values) for values in zip(*means[1:]))
        actual |= {f"{place}task0/{name}": values for name, values in found.items()}
    vectors.check(actual, dtype=precision)
