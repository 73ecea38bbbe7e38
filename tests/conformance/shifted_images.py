"""Tasks of the stored runs of DIKI and DPW: images of the fixture, shifted and mirrored, some of them for validation."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.images.dataset import ImageSource
from bench.streams.stream import SealedSplit, Split, Task
from bench.system.randomness import Draws
from methods.residual_attention.held_out import Division
from methods.residual_attention.residual_method import ResidualAttention
from methods.residual_attention.towers import Bank
from tests.conformance.stored_runs import World


class Groups:
    """The world of a stored run: groups of classes that are learned as tasks, and one that is not."""

    def __init__(self, vectors, tiny, folder, precision: str):
        params = vectors.params
        self.vectors, self.n_tasks = vectors, params["n_tasks"]
        self.ids = [vectors[f"task{group}/classes"].tolist() for group in range(self.n_tasks)]
        never_learned = vectors[f"task{params['unseen_group']}/classes"].tolist()
        self.world = World(tiny, folder, precision, "task-incremental", self.ids, ["{}"], never_learned)
        sizes = [*map(len, self.ids), len(never_learned)]
        ends = [0, *accumulate(sizes)]
        self.classes = [range(first, end) for first, end in pairwise(ends)]
        templates = [params["templates"][group] for group in (*range(self.n_tasks), params["unseen_group"])]
        of_classes = tuple((template,) for template, size in zip(templates, sizes) for _ in range(size))
        self.world.scenario = replace(self.world.scenario, templates=of_classes)
        self.pixels = tiny.source.read(np.arange(len(tiny.labels)))

    def task(self, index: int) -> tuple[Task, Division]:
        """The task with training and then validation images, and which of them are which."""
        sources, labels = [], []
        for part in ("train", "val"):
            images = [
                self.shifted(*of_image)
                for of_image in zip(*(self.vectors[f"task{index}/{part}_{what}"] for what in ("rows", "shift", "flip")))
            ]
            sources.append(np.stack(images))
            labels.append(torch.from_numpy(self.vectors[f"task{index}/{part}_labels"]) + self.classes[index][0])
        of_task = torch.cat(labels)
        source = ImageSource.from_arrays(np.concatenate(sources), of_task.numpy())
        split = Split([(source, np.arange(len(of_task)))], of_task, self.world.store)
        division = Division(torch.arange(len(labels[0])), torch.arange(len(labels[0]), len(of_task)))
        return Task(index, f"task {index}", self.world.classes[index], split, SealedSplit()), division

    def shifted(self, row: int, shift: Sequence[int], flip: int) -> np.ndarray:
        image = np.roll(self.pixels[row], tuple(shift), axis=(0, 1))
        return image[:, ::-1] if flip else image

    def tests(self) -> list[tuple[str, torch.Tensor, range]]:
        """Of every stored test batch its name, its pixels, and the classes that compete."""
        names = sorted(name.split("/")[0] for name in self.vectors.arrays if name.startswith("eval") and name.endswith("/rows"))
        found = []
        for name in names:
            group = int(self.vectors[f"{name}/task"])
            place = group if group < self.n_tasks else self.n_tasks
            found.append((name, self.world.unlabelled(self.vectors[f"{name}/rows"]).pixels(), self.classes[place]))
        return found


class StoredOrders(Draws):
    """The stored order of every epoch; images that it leaves out come last."""

    def __init__(self, vectors):
        super().__init__("conformance", "residual attention", 0)
        self.vectors = vectors

    def permutation(self, n, *purpose):
        what, task, *epoch = purpose
        if what == "statistics order":
            return completed(self.vectors[f"task{task}/gaussian_order"], n)
        assert what == "batch order"
        return completed(self.vectors[f"task{task}/epoch_orders"][epoch[0]], n)


def completed(order: np.ndarray, n: int) -> torch.Tensor:
    """An order of n images that starts with the given one."""
    assert len(set(order.tolist())) == len(order) <= n
    return torch.from_numpy(np.concatenate([order, np.setdiff1d(np.arange(n), order)]))


class Record:
    """Notes what the learning of one task computes: every step, and the bank after every epoch."""

    def __init__(self, method: ResidualAttention, task: Task, patch: pytest.MonkeyPatch):
        self.losses, self.rates, self.logits = [], [], []
        self.first_gradients: dict[str, torch.Tensor] = {}
        self.after_steps: list[dict[str, torch.Tensor]] = []
        self.accuracies: list[float] = []
        self.after_epochs: list[dict[str, torch.Tensor]] = []
        self.method, self.index = method, task.index
        step, cross_entropy, validation = torch.optim.SGD.step, F.cross_entropy, method.validation_accuracy

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            self.rates.append(group["lr"])
            if not self.first_gradients:
                self.first_gradients = {
                    name: torch.zeros_like(own) if own.grad is None else own.grad.clone()
                    for name, own in self.bank.named_parameters()
                }
            step(optimiser, *rest)
            self.after_steps.append(snapshot(self.bank))

        def recorded_loss(logits, *arguments):
            self.logits.append(logits.detach())
            self.losses.append(cross_entropy(logits, *arguments))
            return self.losses[-1]

        def recorded_validation(*arguments):
            self.after_epochs.append(snapshot(self.bank))
            self.accuracies.append(validation(*arguments))
            return self.accuracies[-1]

        patch.setattr(torch.optim.SGD, "step", recorded_step)
        patch.setattr(F, "cross_entropy", recorded_loss)
        patch.setattr(method, "validation_accuracy", recorded_validation)

    @property
    def bank(self) -> Bank:
        """DPW makes a new one when a task starts."""
        return self.method.banks[self.index]

    def arrays(self) -> dict[str, object]:
        """What has one name for both methods."""
        kept = snapshot(self.bank)
        best = [all(torch.equal(kept[name], of_epoch[name]) for name in kept) for of_epoch in self.after_epochs].index(True)
        return {
            "losses": torch.stack(self.losses),
            "learning_rates": torch.tensor(self.rates, dtype=torch.float64),
            "step0_logits": self.logits[0],
            "best_epoch": best,
            "best_val_accuracy": self.accuracies[best],
        }


def snapshot(bank: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in bank.state_dict().items()}


def gaussian(method: ResidualAttention, task: int) -> dict[str, torch.Tensor]:
    factor = method.gaussians.factors[task].double()
    return {"mean": method.gaussians.means[task], "covariance": factor @ factor.T}


def common_settings(params: dict) -> dict:
    optimiser = params["optimiser"]
    assert optimiser["name"] == "SGD" and not optimiser["nesterov"] and optimiser["schedule"] == "cosine per iteration"
    assert params["lr_scale"] == "none" and params["selection"].startswith("strictly best validation accuracy")
    return {
        "image_depth": params["vision_depth"], "text_depth": params["text_depth"], "image_rows": params["vision_length"],
        "text_rows": params["text_length"],
        "epochs": params["epochs"], "batch_size": params["batch_size"], "lr": optimiser["lr"],
        "cosine_floor": params["floor_factor"], "momentum": optimiser["momentum"], "weight_decay": optimiser["weight_decay"],
        "covariance_ridge": params["covariance_ridge"], "weight_divisor": float(params["weight_divisor"]),
        "weight_offset": params["weight_offset"],
    }  # fmt: skip


def scored(method: ResidualAttention, groups: Groups) -> dict[str, object]:
    """Of every stored test batch: familiarity, vote, text weight, logits of the batch and of every image alone."""
    found: dict[str, object] = {}
    together = method.settings
    for name, pixels, classes in groups.tests():
        familiar = method.familiarity_of(F.normalize(method.backbone.encode_images(pixels), dim=-1))
        found |= {
            f"{name}_log_probs": familiar.log_densities,
            f"{name}_own_task": familiar.own_tasks,
            f"{name}_batch_task": familiar.voted_task,
            f"{name}_text_weight": familiar.own_weights.mean(),
            f"{name}_logits": method.logits(pixels, classes),
        }
        method.settings = replace(together, test_batches="single")
        found[f"{name}_logits_single"] = method.logits(pixels, classes)
        method.settings = together
    return found
