"""The shared continual training loop: which images, which classes, which rates, and exemplars that survive."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.shared.rehearsal import Rehearsal, RehearsalSettings


@dataclass(frozen=True)
class ScaleSettings(RehearsalSettings):
    epochs: int = 2
    batch_size: int = 4


class OnFeatures(Rehearsal):
    """Trains one factor per embedding dimension, and notes what every step gets."""

    Settings = ScaleSettings

    def prepare(self):
        super().prepare()
        self.factors = torch.nn.Parameter(torch.ones(self.backbone.embedding_width))
        self.steps = []

    def text_of(self, classes):
        return classes.tolist()

    def loss(self, text, images, columns, phase, task, step):
        self.steps.append((phase, task, step, text, images, [text[k] for k in columns.tolist()]))
        return F.cross_entropy(super().logits(self.features(images) * self.factors, text), columns)

    def features(self, images):
        return images


class OnPixels(OnFeatures):
    inputs = "pixels"

    def features(self, images):
        return self.backbone.encode_images(images)


def build(stream, backbone, method=OnFeatures, seed=0, budget=None, **settings):
    scenario = replace(stream.scenario, **(budget or {}))
    return method(ScaleSettings(**settings), backbone, scenario, Draws("test", "rehearsal", seed))


def learn_all(method, stream):
    for task in stream.tasks:
        method.learn(task)
    return method


def labels_of_epochs(method, task, epochs=2):
    """The labels of one task's main phase, one list for each epoch."""
    found = [label for phase, t, _, _, _, labels in method.steps if t == task and not phase for label in labels]
    n = len(found) // epochs
    return [found[k * n : (k + 1) * n] for k in range(epochs)]


@pytest.mark.parametrize("kind", [OnFeatures, OnPixels])
def test_an_epoch_goes_through_the_task_and_all_exemplars_once_in_a_new_order(small_backbone, make_stream, kind):
    stream = make_stream()
    method = learn_all(build(stream, small_backbone, kind, budget={"exemplars_per_class": 2}), stream)
    first, second = labels_of_epochs(method, 1)
    assert sorted(first) == sorted(second) == [0, 0, 1, 1] + [2] * 5 + [3] * 5
    assert first != second


@pytest.mark.parametrize("kind", [OnFeatures, OnPixels])
def test_images_come_with_their_own_labels(small_backbone, make_stream, kind):
    stream = make_stream()
    method = learn_all(build(stream, small_backbone, kind, budget={"exemplars_per_class": 2}, mirrored_view=False), stream)
    images = torch.cat([task.train.inputs(method.inputs, torch.arange(len(task.train))) for task in stream.tasks]).flatten(1)
    labels = torch.cat([task.train.labels for task in stream.tasks])
    for _, _, _, _, batch, batch_labels in method.steps:
        nearest = torch.cdist(batch.flatten(1), images).argmin(dim=1)
        assert torch.equal(images[nearest], batch.flatten(1))
        assert labels[nearest].tolist() == batch_labels


def test_exemplar_pixels_are_kept_exactly(tiny):
    """Also where an image was resized: what the network saw, bit by bit, from a quarter of the memory."""
    stream = tiny.stream(tiny.class_names, [4, 4], tiny.labels, ["a photo of a {}."])
    method = build(stream, tiny.backbone, OnPixels, budget={"exemplars_per_class": 3}, epochs=0)
    method.learn(stream.tasks[0])
    train = stream.tasks[0].train
    rows = torch.cat([torch.nonzero(train.labels == c).flatten()[:3] for c in range(4)])
    assert torch.equal(method.exemplars().images(torch.arange(12), torch.zeros(12, dtype=torch.bool)), train.pixels(rows))
    assert method.exemplar_bytes() == 12 * 3 * 224 * 224


@pytest.mark.parametrize("kind", [OnFeatures, OnPixels])
def test_half_of_the_images_are_mirrored_each_epoch(small_backbone, make_stream, kind):
    stream = make_stream()
    method = build(stream, small_backbone, kind, mirrored_view=True, batch_size=10, epochs=4)
    method.learn(stream.tasks[0])
    train = stream.tasks[0].train
    views = [getattr(train, method.inputs)(view=view).flatten(1) for view in ("plain", "mirrored")]
    chosen = []
    for _, _, _, _, batch, _ in method.steps:
        distances = torch.stack([torch.cdist(batch.flatten(1), view).min(dim=1).values for view in views])
        assert (distances.min(dim=0).values == 0).all()
        chosen.append(int(distances.argmin(dim=0).sum()))
    assert chosen == [5, 5, 5, 5]


@pytest.mark.parametrize(("label_space", "exemplars", "competing"), [
    ("seen", None, [0, 1, 2, 3]), ("present", None, [2, 3]), ("present", 1, [0, 1, 2, 3]),
])  # fmt: skip
def test_the_label_space_is_all_seen_classes_or_those_with_an_image(
    small_backbone, make_stream, label_space, exemplars, competing
):
    stream = make_stream()
    method = build(stream, small_backbone, budget={"exemplars_per_class": exemplars}, label_space=label_space)
    learn_all(method, stream)
    assert method.steps[-1][3] == competing


def test_balanced_epochs_follow_on_the_exemplars_alone_from_the_second_task_on(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, budget={"exemplars_per_class": 2}, balanced_epochs=3)
    rates = []
    fit = method.fit
    method.fit = lambda *a, **k: rates.append(fit(*a, **k)) or rates[-1]
    learn_all(method, stream)
    balanced = [step for step in method.steps if step[0]]
    assert {task for _, task, *_ in balanced} == {1}
    labels = [label for *_, step_labels in balanced for label in step_labels]
    assert sorted(labels) == sorted([0, 0, 1, 1, 2, 2, 3, 3] * 3)
    assert [r[0] for r in rates] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_without_exemplars_there_is_nothing_to_balance(small_backbone, make_stream):
    stream = make_stream()
    method = learn_all(build(stream, small_backbone, balanced_epochs=3), stream)
    assert all(not phase for phase, *_ in method.steps)
    assert method.exemplar_bytes() == 0


def test_both_phases_share_the_compute_budget(small_backbone, make_stream):
    stream = make_stream()
    budget = {"exemplars_per_class": 2, "images_per_task": 16}
    method = learn_all(build(stream, small_backbone, budget=budget, balanced_epochs=3), stream)
    for task in range(2):
        assert len([step for step in method.steps if step[1] == task]) <= 16 / 4 + 1  # each phase rounds up to a batch


def test_the_memory_shrinks_with_a_fixed_total(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, OnPixels, budget={"exemplars_total": 8})
    method.learn(stream.tasks[0])
    assert method.memory.labels.bincount().tolist() == [4, 4]
    method.learn(stream.tasks[1])
    assert method.memory.labels.bincount().tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("kind", [OnFeatures, OnPixels])
def test_resumed_after_a_task_it_ends_with_the_same_weights(small_backbone, make_stream, kind):
    stream = make_stream()
    options = {"budget": {"exemplars_per_class": 2}, "balanced_epochs": 1}
    whole = build(stream, small_backbone, kind, **options)
    whole.learn(stream.tasks[0])
    resumed = build(stream, small_backbone, kind, **options)
    resumed.load_state_dict({name: value.clone() for name, value in whole.state_dict().items()})
    for method in (whole, resumed):
        method.learn(stream.tasks[1])
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    other = learn_all(build(stream, small_backbone, kind, seed=1, **options), stream)
    assert not torch.equal(other.factors, whole.factors)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_the_rate_falls_along_a_cosine_that_starts_anew_with_each_task(small_backbone, make_stream, optimiser):
    stream = make_stream()
    method = build(stream, small_backbone, optimiser=optimiser, learning_rate=0.5)
    rates, fit = [], method.fit
    method.fit = lambda *a, **k: rates.append(fit(*a, **k)) or rates[-1]
    learn_all(method, stream)
    assert [r[0] for r in rates] == [0.5, 0.5]
    assert all(r == sorted(r, reverse=True) and len(r) == 6 for r in rates)


def test_a_loss_that_is_not_finite_stops_the_run(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, learning_rate=1e30)
    with torch.no_grad():
        method.factors.fill_(float("nan"))
    with pytest.raises(RunFailure, match="OnFeatures, task 0: the loss is not finite"):
        method.learn(stream.tasks[0])


@pytest.mark.parametrize("setting", ["batch_size=0", "epochs=-1", "learning_rate=-1", "balanced_rate=-1"])
def test_settings_out_of_range_are_refused(setting):
    name, value = setting.split("=")
    with pytest.raises(BenchError, match=name):
        RehearsalSettings(**{name: int(value)})
