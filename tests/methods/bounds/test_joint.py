import math

import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.bounds.joint import Joint, masked_cross_entropy
from methods.fine_tuning.finetune import FineTune

QUICK = {"lr": 1e-3, "iterations": 3, "warmup": 1, "batch_size": 6}


def build(backbone, scenario, **settings):
    return Joint(Joint.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "joint", 0))


def test_masked_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3), 9.0]])  # among the first two: probabilities 1/4 and 3/4
    candidates = torch.tensor([[True, True, False]])
    loss = masked_cross_entropy(logits, torch.tensor([1]), candidates, smoothing=0.2)
    assert float(loss) == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))


def test_masked_cross_entropy_with_all_candidates_is_torch_s():
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2])
    loss = masked_cross_entropy(logits, labels, torch.ones(5, 4, dtype=torch.bool), smoothing=0.3)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels, label_smoothing=0.3))


def test_masked_classes_get_no_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    masked_cross_entropy(logits, torch.tensor([0]), torch.tensor([[True, True, False]]), smoothing=0.0).backward()
    assert logits.grad.tolist() == [[-0.5, 0.5, 0.0]]


def test_class_incremental_loss_has_all_classes_as_candidates(small_backbone, make_stream):
    stream = make_stream("class-incremental")
    joined, method = stream.joined(), build(small_backbone, stream.scenario)
    pixels, labels = joined.train.pixels(), joined.train.labels
    expected = F.cross_entropy(method.training_logits(pixels, range(4)), labels, label_smoothing=0.2)
    torch.testing.assert_close(method.loss(pixels, labels, joined), expected)


def test_task_incremental_loss_is_the_mean_of_the_tasks_own_losses(small_backbone, make_stream):
    stream = make_stream("task-incremental")  # two tasks with as many images each
    joined, method = stream.joined(), build(small_backbone, stream.scenario)
    alone = FineTune(FineTune.Settings(), small_backbone, stream.scenario, Draws("test", "finetune", 0))
    own = [alone.loss(task.train.pixels(), task.train.labels, task) for task in stream.tasks]
    loss = method.loss(joined.train.pixels(), joined.train.labels, joined)
    torch.testing.assert_close(loss, torch.stack(own).mean())


@pytest.mark.parametrize("kind", ["class-incremental", "task-incremental"])
def test_it_learns_the_whole_stream_in_one_call(small_backbone, make_stream, kind):
    stream = make_stream(kind, sizes=(2, 1, 2))
    joined = stream.joined()
    method = build(small_backbone, stream.scenario, iterations=30, batch_size=25)
    before = method.loss(joined.train.pixels(), joined.train.labels, joined)
    method.learn(joined)
    assert method.loss(joined.train.pixels(), joined.train.labels, joined) < before - 0.1


def test_it_learns_once_and_has_its_own_recipes():
    assert Joint.joint and not FineTune.joint
    assert Joint.settings_for("mini60-6x10").iterations == 240
    assert Joint.settings_for("mini-mtil-order1").iterations == 200
    assert Joint.settings_for("mini-cdcl").lr == 1e-3
    assert Joint.settings_for("cifar100-10x10").epochs == 5
