import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from bench.errors import RunFailure
from bench.system.randomness import Draws
from methods.bounds.joint import Joint
from methods.fine_tuning.finetune import FineTune
from methods.shared.pixels import random_crops
from methods.zero_shot import ZeroShot

QUICK = {"lr": 1e-3, "iterations": 3, "warmup": 1, "batch_size": 4}


def build(backbone, scenario, method=FineTune, seed=0, **settings):
    return method(method.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "finetune", seed))


class CountingFineTune(FineTune):
    """Notes the rows' labels, the loss and the learning of every update."""

    def prepare(self):
        super().prepare()
        self.losses, self.label_batches, self.updates = [], [], []

    def loss(self, pixels, labels, task):
        loss = super().loss(pixels, labels, task)
        self.losses.append(loss.item())
        self.label_batches.append(labels)
        return loss

    def after_update(self, update, task):
        self.updates.append(update)


class CountingJoint(CountingFineTune, Joint):
    """The upper bound, counted."""


def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    pixels = stream.tasks[0].train.pixels()
    zero_shot = ZeroShot(None, small_backbone, stream.scenario, Draws("test", "zero-shot", 0))
    expected = zero_shot.logits(small_backbone.encode_images(pixels), [3, 0])
    torch.testing.assert_close(build(small_backbone, stream.scenario).logits(pixels, [3, 0]), expected)


def test_iterations_n_make_n_plus_one_updates(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, CountingFineTune)
    method.learn(stream.tasks[0])
    assert method.updates == [0, 1, 2, 3]


def test_an_epoch_of_three_batches_makes_four_updates(small_backbone, make_stream):
    stream = make_stream()  # 10 images a task: batches of 4, 4, 2, then the next epoch's first
    method = build(small_backbone, stream.scenario, CountingFineTune, epochs=1)
    method.learn(stream.tasks[0])
    assert [len(labels) for labels in method.label_batches] == [4, 4, 2, 4]


@pytest.mark.parametrize(("method", "updates"), [(CountingFineTune, 2), (CountingJoint, 4)])
def test_a_compute_budget_cuts_the_updates(method, updates, small_backbone, make_stream):
    stream = make_stream()  # two tasks
    budgeted = replace(stream.scenario, images_per_task=7)
    learner = build(small_backbone, budgeted, method, iterations=9)
    learner.learn(stream.joined() if method.joint else stream.tasks[0])
    assert len(learner.updates) == updates == math.ceil(7 * (2 if method.joint else 1) / QUICK["batch_size"])


def test_the_released_evaluation_crops_test_images(small_backbone, make_stream):
    stream = make_stream()
    pixels, classes = stream.tasks[0].train.pixels(), [0, 1]
    plain, faithful = (
        build(small_backbone, stream.scenario, faithful_eval_crop=on, crop_scale=0.5) for on in (False, True)
    )
    assert plain.test_batches is None and faithful.test_batches.size == QUICK["batch_size"]
    cropped = random_crops(pixels, 0.5, faithful.draws, "test crop")
    assert not torch.allclose(faithful.logits(pixels, classes), plain.logits(pixels, classes))
    torch.testing.assert_close(faithful.logits(pixels, classes), plain.logits(cropped, classes))


def test_every_epoch_sees_every_image_once_in_a_new_order(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    batches = list(islice(method.batches_of_rows(10, "batch order", 0), 6))
    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(10))
    assert first.tolist() != second.tolist()


def test_batch_order_depends_on_seed_and_task_but_not_on_torch_s_global_state(small_backbone, make_stream):
    stream = make_stream()
    orders = []
    for seed, task in ((0, 0), (0, 0), (1, 0), (0, 1)):
        torch.rand(1)
        method = build(small_backbone, stream.scenario, seed=seed)
        orders.append(torch.cat(list(islice(method.batches_of_rows(10, "batch order", task), 3))).tolist())
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_loss_is_smoothed_cross_entropy_over_the_task_s_own_classes(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 3))
    task = stream.tasks[1]
    method = build(small_backbone, stream.scenario, label_smoothing=0.2)
    rows = torch.tensor([0, 7, 12])
    pixels, labels = task.train.pixels(rows), task.train.labels[rows]
    vectors = F.normalize(small_backbone.encode_text(stream.scenario.prompts(task.classes)), dim=-1)
    cosines = F.normalize(small_backbone.encode_images(pixels), dim=-1) @ vectors.T
    log_p = (small_backbone.logit_scale * cosines).log_softmax(dim=-1)
    target = torch.full((3, 3), 0.2 / 3)
    target[range(3), labels - 2] += 0.8
    expected = -(target * log_p).sum(dim=-1).mean()
    torch.testing.assert_close(method.loss(pixels, labels, task).detach(), expected.clone())


def test_training_lowers_the_loss_and_leaves_the_backbone_alone(small_backbone, make_stream):
    stream = make_stream()
    before = {name: weights.clone() for name, weights in small_backbone.clip.state_dict().items()}
    method = build(small_backbone, stream.scenario, CountingFineTune, iterations=15, batch_size=10)
    method.learn(stream.tasks[0])
    assert method.losses[-1] < method.losses[0] - 0.1
    assert all(torch.equal(before[name], weights) for name, weights in small_backbone.clip.state_dict().items())
    assert torch.equal(method.clip.logit_scale, before["logit_scale"])


def test_class_vectors_of_all_classes_come_from_the_trained_text_tower(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    before = method.class_vectors.clone()
    method.learn(stream.tasks[0])
    assert not torch.allclose(method.class_vectors[3], before[3])  # class 3 belongs to the next task
    texts = [template.format("yellow") for template in stream.scenario.templates[3]]
    features = F.normalize(small_backbone.encode_text(texts, method.clip), dim=-1)
    torch.testing.assert_close(method.class_vectors[3], F.normalize(features.mean(dim=0), dim=-1).clone())


def test_a_fresh_object_with_the_stored_state_gives_the_same_logits_and_learns_the_same(small_backbone, make_stream):
    stream = make_stream()
    pixels = stream.tasks[0].train.pixels()
    method = build(small_backbone, stream.scenario)
    method.learn(stream.tasks[0])
    stored = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    resumed = build(small_backbone, stream.scenario)
    resumed.load_state_dict(stored)
    assert torch.equal(resumed.logits(pixels, [0, 1, 2, 3]), method.logits(pixels, [0, 1, 2, 3]))
    for continued in (method, resumed):
        continued.learn(stream.tasks[1])
    assert torch.equal(resumed.logits(pixels, [0, 1, 2, 3]), method.logits(pixels, [0, 1, 2, 3]))


@pytest.mark.parametrize(("mode", "moves"), [("whole", {True, False}), ("image", {True}), ("text", {False})])
def test_train_mode_moves_only_its_towers(small_backbone, make_stream, mode, moves):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, train_mode=mode)
    method.learn(stream.tasks[0])
    old = small_backbone.clip.state_dict()
    moved = {name for name, weights in method.clip.state_dict().items() if not torch.equal(weights, old[name])}
    assert {name.startswith("visual.") for name in moved} == moves


def test_image_mode_computes_the_same_loss_with_prompts_encoded_once(small_backbone, make_stream):
    stream = make_stream()
    task = stream.tasks[0]
    pixels, labels = task.train.pixels(), task.train.labels
    whole, image = (build(small_backbone, stream.scenario, train_mode=mode) for mode in ("whole", "image"))
    torch.testing.assert_close(image.loss(pixels, labels, task), whole.loss(pixels, labels, task))


def test_a_task_with_its_own_learning_rate_gets_it(small_backbone, make_stream):
    stream = make_stream()
    moved = {}
    for rates in ((), (("task 0", 0.0),), (("task 1", 0.0),)):
        method = build(small_backbone, stream.scenario, lr_of_task=rates)
        method.learn(stream.tasks[0])
        moved[rates] = not torch.equal(method.clip.visual.proj, small_backbone.clip.visual.proj)
    assert list(moved.values()) == [True, False, True]


def test_a_loss_that_is_not_finite_stops_the_run(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    method.clip.visual.proj.data.fill_(torch.nan)
    with pytest.raises(RunFailure, match="task 0, update 0: the loss is not finite"):
        method.learn(stream.tasks[0])


def test_a_run_that_breaks_between_two_checks_is_noticed_at_its_last_update(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="task 0, update 3"):
        build(small_backbone, stream.scenario, lr=1e30).learn(stream.tasks[0])


def test_recipes_of_the_published_protocols():
    mtil = FineTune.settings_for("mtil-order1")
    assert (mtil.lr, mtil.iterations, mtil.warmup, mtil.label_smoothing) == (1e-5, 1000, 100, 0.2)
    assert dict(mtil.lr_of_task) == {"aircraft": 5e-5, "mnist": 5e-5}
    cifar = FineTune.settings_for("cifar100-10x10")
    assert (cifar.lr, cifar.epochs, cifar.warmup, cifar.batch_size) == (7.1e-6, 1, 30, 64)
    mini = FineTune.settings_for("mini-cdcl")
    assert (mini.lr, mini.iterations, mini.warmup, mini.batch_size, mini.lr_of_task) == (1e-3, 40, 10, 64, ())
