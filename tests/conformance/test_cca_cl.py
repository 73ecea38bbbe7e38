"""CCA-CL against the released learner: tuning, statistics, directions and logits; the closed form also by itself."""

import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.closed_form.canonical_correlation import RunningCorrelation
from methods.closed_form.cca_cl import CCACL, fourier_features
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World, places_in, snapshot


class StoredDraws(Draws):
    """The random features, and the orders of images in tuning and in the statistics."""

    def __init__(self, vectors, run: str):
        super().__init__("conformance", "cca-cl", 0)
        self.vectors, self.run = vectors, run

    def images(self, task: int):
        """Rows of the fixture: the training images of a task, in the order in which the statistics see them."""
        return self.vectors[f"{self.run}/task{task}/statistics_order"].copy()

    def permutation(self, n, *purpose):
        what, task, *epoch = purpose
        if what == "statistics order":
            return torch.arange(n)
        assert what == "batch order" and task == 0
        return places_in(self.images(task), self.vectors[f"{self.run}/train_order"][epoch[0]])

    def normal(self, shape, *purpose):
        assert purpose == ("random features",) and tuple(shape) == self.vectors["rff_weight"].shape
        return torch.from_numpy(self.vectors["rff_weight"]) * self.vectors.params["sigma"]  # the method divides by it

    def uniform(self, shape, *purpose):
        assert purpose == ("random phases",) and tuple(shape) == self.vectors["rff_phase"].shape
        return torch.from_numpy(self.vectors["rff_phase"]) / (2 * torch.pi)


class Tuning:
    """Notes what every step of the tuning computes."""

    def __init__(self, method: CCACL, watched: list[str], monkeypatch):
        self.notes = {name: [] for name in ("loss", "lr", "grad_norm", *(f"after_step/{name}" for name in watched))}
        loss_of_pairs, sgd_step = method.loss_of_pairs, torch.optim.SGD.step

        def recorded_loss(images, texts):
            self.notes.setdefault("first_image_features", images.detach().clone())
            self.notes.setdefault("first_text_features", texts.detach().clone())
            loss = loss_of_pairs(images, texts)
            self.notes["loss"].append(loss.detach())
            return loss

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            self.notes["lr"].append(torch.tensor(group["lr"], dtype=torch.float64))
            self.notes["grad_norm"].append(torch.stack([weights.grad.norm() for weights in group["params"]]).norm())
            tuned = dict(method.clip.named_parameters())
            for name in watched:
                self.notes.setdefault(f"first_grad/{name}", tuned[name].grad.clone())
            sgd_step(optimiser, *rest)
            for name in watched:
                self.notes[f"after_step/{name}"].append(tuned[name].detach().clone())

        monkeypatch.setattr(method, "loss_of_pairs", recorded_loss)
        monkeypatch.setattr(torch.optim.SGD, "step", recorded_step)

    def arrays(self) -> dict[str, torch.Tensor]:
        return {name: torch.stack(values) if isinstance(values, list) else values for name, values in self.notes.items()}


@PRECISIONS
@pytest.mark.vectors("cca-cl", "cca-cl*", methods=("cca-cl", "cca-cl-frozen"))
def test_cca_cl(vectors, tiny, tmp_path, monkeypatch, precision):
    params = vectors.params
    templates = list(params["templates"])
    templates.insert(0, templates.pop(params["train_template_index"]))  # the harness trains with the first
    never_learned = vectors["class_order"].tolist()[sum(map(len, vectors.tasks)) :]
    world = World(tiny, tmp_path, precision, "class-incremental", vectors.tasks, templates, never_learned)
    test = world.unlabelled(vectors["test_idx"])
    names, watched = ([str(name) for name in vectors[of]] for of in ("param_names", "watched"))
    actual = {}
    for run, epochs in params["runs"].items():
        draws = StoredDraws(vectors, run)
        method = CCACL(settings(params, epochs), world.backbone, world.scenario, draws)
        inputs = next(test.batches(method.inputs, len(test)))
        assert method.inputs == ("pixels" if epochs else "features")
        for index, classes in enumerate(world.classes):
            rows, place = torch.from_numpy(draws.images(index)), f"{run}/task{index}"
            with monkeypatch.context() as patch:
                tuning = Tuning(method, watched, patch)
                method.learn(world.task(index, rows, world.positions(rows)))
            if epochs and index == 0:
                before, after = dict(world.backbone.clip.named_parameters()), snapshot(method)
                assert set(after) == set(names)
                actual |= {f"{run}/{name}": values for name, values in tuning.arrays().items()}
                actual[f"{run}/change_norm"] = torch.stack([(after[name] - before[name]).norm() for name in names])
            else:
                assert not tuning.notes["loss"]
            texts = method.expand(method.class_vectors)[: classes[-1] + 1]
            actual |= {f"{place}/{name}": values for name, values in statistics(method.statistics, texts).items()}
            actual |= {
                f"{place}/n_directions": method.image_map.shape[1],
                f"{place}/correlations": method.found.correlations,
                f"{place}/text_prototypes": method.class_vectors.clone(),
                f"{place}/logits": method.logits(inputs, range(len(vectors["class_order"]))),
            }
    vectors.check(actual, dtype=precision)


def statistics(running: RunningCorrelation, texts: torch.Tensor) -> dict[str, torch.Tensor]:
    """The sums and means as the authors keep them, of full width for texts too."""
    n = running.counts.sum()
    return {
        "n": n,
        "Szz": running.image_scatter.whole(),
        "Stt": texts.T @ running.text_scatter @ texts,
        "Szt": running.cross_scatter.T @ texts,
        "mz": running.image_mean.clone(),
        "mt": running.counts @ texts / n,
    }


def settings(params: dict, epochs: int) -> CCACL.Settings:
    optimiser = params["optimiser"]
    assert optimiser["name"] == "SGD" and not optimiser["nesterov"] and not optimiser["dampening"] and not params["drop_last"]
    assert params["scatter"] == "within batches" and params["whiten_text"] == "twice"
    return CCACL.Settings(
        tuned_epochs=epochs, lr=optimiser["lr"], momentum=optimiser["momentum"], weight_decay=optimiser["weight_decay"],
        batch_size=params["batch_size"], statistics_batch=params["statistics_batch_size"],
        random_features=params["random_features"], sigma=params["sigma"], ridge=params["ridge"],
        eigenvalue_floor=params["eigenvalue_floor"], energy=params["energy"], correlation_floor=params["correlation_floor"],
        temperature=params["temperature"],
    )  # fmt: skip


@PRECISIONS
@pytest.mark.vectors("cca-cl", "analysis*", methods=("cca-cl", "cca-cl-frozen"))
def test_the_closed_form_on_drawn_features(vectors, precision):
    params, dtype = vectors.params, getattr(torch, precision)
    text, test, weight, phase = (torch.from_numpy(vectors[name]) for name in ("text", "test", "rff_weight", "rff_phase"))
    text = text.to(dtype)
    running = RunningCorrelation(text.shape[1])
    actual = {"rff_of_text": fourier_features(text, weight, phase)}
    identity = torch.eye(text.shape[1], dtype=torch.float64)
    for index in range(params["n_tasks"]):
        images, labels = (torch.from_numpy(vectors[f"task{index}/{name}"]) for name in ("images", "labels"))
        running.add(images.to(dtype), labels, len(text), params["batch_size"])
        found = statistics(running, text.double())
        n = found.pop("n")
        for name, ridge in (("z", "Szz"), ("t", "Stt")):
            found[f"S{name}"] = found.pop(ridge) / (n - 1) + params["ridge"] * identity
        found["Szt"] /= n - 1
        for energy in params["energies"]:
            directions = running.directions(
                text, params["ridge"], params["eigenvalue_floor"], energy, params["correlation_floor"], whiten_once=False
            )
            images_at = F.normalize((F.normalize(test, dim=-1) - directions.image_mean) @ directions.image_map, dim=-1)
            texts_at = F.normalize((F.normalize(text.double(), dim=-1) - directions.text_mean) @ directions.text_map, dim=-1)
            found |= {
                f"energy{energy}/n_directions": len(directions.correlations),
                f"energy{energy}/correlations": directions.correlations,
                f"energy{energy}/logits": images_at @ texts_at.T / params["temperature"],
            }
        actual |= {f"task{index}/{name}": values for name, values in found.items()}
    vectors.check(actual, dtype=precision)
