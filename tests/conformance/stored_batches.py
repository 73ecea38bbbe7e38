"""Puts stored batches through the training loop of methods.shared.rehearsal."""

from collections.abc import Sequence

import torch

from bench.streams.stream import Scenario
from bench.system.randomness import Draws
from methods.shared.rehearsal import Rehearsal, RehearsalSettings, TrainingSet


class StoredOrder(Draws):
    """Leaves every training set in the order in which it is given."""

    def __init__(self, method: str):
        super().__init__("vectors", method, 0)

    def permutation(self, n, *purpose):
        return torch.arange(n)


def one_task(names: Sequence[str], templates: Sequence[str] = ("a photo of a {}.",)) -> Scenario:
    """A stream whose only task has these classes."""
    return Scenario("class-incremental", tuple(names), (tuple(templates),) * len(names), (0,) * len(names))


def optimiser_settings(optimiser: dict, batch_size: int, epochs: int = 1) -> dict:
    """Settings of an SGD at constant rate that sees every image as it is."""
    assert optimiser["name"] == "SGD" and not optimiser["nesterov"]
    return {
        "learning_rate": optimiser["lr"],
        "momentum": optimiser["momentum"],
        "weight_decay": optimiser["weight_decay"],
        "batch_size": batch_size,
        "epochs": epochs,
        "balanced_epochs": 0,
        "cosine_floor": 1.0,
        "mirrored_view": False,
    }


def all_seen(method: Rehearsal) -> Rehearsal:
    """The method with every class of its stream learned."""
    method.seen = torch.arange(len(method.scenario.class_names))
    return method


def fit_stored(method: Rehearsal, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Train on rows (n, ...), which hold one step's batch after the other. Returns the loss of every step."""
    settings: RehearsalSettings = method.settings
    losses, loss = [], method.loss

    def recorded(*arguments):
        losses.append(loss(*arguments))
        return losses[-1]

    method.loss = recorded
    method.fit(TrainingSet(labels, lambda rows, mirrored: images[rows]), settings.epochs, settings.learning_rate, task=0)
    method.loss = loss
    return torch.stack(losses).detach()


def load(parameter: torch.Tensor, stored: torch.Tensor) -> None:
    """Overwrite a parameter's initial value."""
    assert parameter.shape == stored.shape
    parameter.data.copy_(stored)
