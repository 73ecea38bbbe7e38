"""The stand-in device finds a device error, a loss that is read in every step and a parameter that is copied in every step."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from bench import Method, setting
from methods.shared.batches import training_batches
from methods.shared.descent import Descent
from tests.stand_in_device import steps, trials
from tests.stand_in_device.device import stand_in_device
from tests.stand_in_device.limits import beyond_limits


@dataclass(frozen=True)
class Batches:
    batch_size: int = setting(2, "images of a step")


class Sound(Method):
    """One matrix on the features of images."""

    Settings = Batches

    def prepare(self):
        width = self.backbone.embedding_width
        self.weight = torch.nn.Parameter(torch.eye(width))
        self.register_buffer("texts", self.backbone.classifier(self.scenario.prompts_of(range(len(self.scenario.class_names)))))
        self.host_weight, self.losses = torch.eye(width), []

    def learn(self, task):
        features, labels = task.train.features(), task.train.labels.to(self.device)
        descent = Descent(self, torch.optim.SGD([self.weight], lr=0.1), at_end=task.name)
        batches = training_batches(
            self.draws, images=len(labels), batch_size=self.settings.batch_size, epochs=1, budget=None, purpose=[task.index]
        )
        for batch in batches:
            rows = batch.rows.to(self.device)
            loss = F.cross_entropy(self.score(features[rows]), self.labels(labels, rows))
            descent.step(loss, 0.1)
            self.after_step(loss)
        descent.finish()

    def score(self, features):
        return 100 * F.normalize(features @ self.weight, dim=-1) @ self.texts.T

    def labels(self, labels, rows):
        return labels[rows]

    def after_step(self, loss):
        pass

    def logits(self, batch, classes):
        return self.score(batch)[:, list(classes)]


class LabelsOfTheHost(Sound):
    def labels(self, labels, rows):
        return labels.cpu()[rows.cpu()]


class ReadsTheLoss(Sound):
    def after_step(self, loss):
        self.losses.append(loss.item())


class CopiesAParameter(Sound):
    def after_step(self, loss):
        self.host_weight = self.weight.detach().cpu()


class CountsByValues(Sound):
    def after_step(self, loss):
        self.losses.append(self.weight[self.weight > 0])


class UploadsParameters(Sound):
    def after_step(self, loss):
        self.losses = [self.host_weight.to(self.device) for _ in range(4)]


def complaints(method: type[Method], cache) -> str:
    with stand_in_device(), steps.watched() as phases:
        trials.learned(method, cache, "standin")
    assert sum(len(phase.steps) for phase in phases) == 8  # of two tasks
    return " | ".join(beyond_limits("planted", phases))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_a_sound_method_has_no_complaint_and_the_scores_of_the_cpu(cache):
    assert complaints(Sound, cache) == ""
    with stand_in_device():
        ours = trials.learned(Sound, cache, "standin")
    torch.testing.assert_close(ours, trials.learned(Sound, cache, "cpu"), rtol=1e-4, atol=1e-3)


def test_a_device_error_is_found(cache):
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        complaints(LabelsOfTheHost, cache)


@pytest.mark.parametrize(
    "method, words",
    [
        (ReadsTheLoss, "1 waits in a step, at most 0 may be: read of"),
        (CopiesAParameter, "1 waits in a step, at most 0 may be: read of 65536 bytes"),
        (CountsByValues, "1 waits in a step, at most 0 may be: shape of"),
        (UploadsParameters, "5 uploads in a step, at most 2 may be"),
    ],
)
def test_what_makes_every_step_wait_is_found(method, words, cache):
    found = complaints(method, cache)
    assert words in found
    assert "tests/stand_in_device/test_planted_errors.py:" in found  # where it is caused
