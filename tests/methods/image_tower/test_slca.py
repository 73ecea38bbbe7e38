import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bench.clip.image_tower import pooled_images
from bench.errors import BenchError, RunFailure
from bench.streams.stream import Split
from bench.system.randomness import Draws
from methods.image_tower import slca
from methods.image_tower.slca import SLCA
from tests.methods.teaching import teach

QUICK = {
    "epochs": 2, "milestones": (1,), "batch_size": 4, "alignment_epochs": 2, "samples_per_class": 6, "crop_scale": 1.0,
    "mirrored_view": False,
}  # fmt: skip


def build(backbone, scenario, seed=0, **settings):
    return SLCA(SLCA.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "slca", seed))


def weights_of(module):
    return {name: weights.detach().clone() for name, weights in module.named_parameters()}


# -- stage 1 ----------------------------------------------------------------------------------------------------


def test_stage_1_is_sgd_at_two_rates_on_the_newest_head(small_backbone, make_stream):
    """Against torch's own optimiser and scheduler, on an own copy of tower and head."""
    stream = make_stream(sizes=(2, 3))
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    task = stream.tasks[1]
    method.grow(task)
    tower, head = small_backbone.trainable_copy().visual, torch.nn.Linear(32, 3)
    tower.load_state_dict(method.tower.state_dict())
    head.load_state_dict(method.heads[1].state_dict())
    older = weights_of(method.heads[0])
    trained = [weights for name, weights in tower.named_parameters() if name != "proj"]
    optimiser = torch.optim.SGD(
        [{"params": trained, "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-2}], momentum=0.9, weight_decay=5e-4
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=[1], gamma=0.1)
    for epoch in range(2):
        for rows in Draws("test", "slca", 0).permutation(15, "batch order", 1, epoch).split(4):
            loss = F.cross_entropy(head(pooled_images(tower, task.train.pixels(rows))), task.train.labels[rows] - 2)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        scheduler.step()
    method.fine_tune(task)
    for name, weights in weights_of(tower).items():
        torch.testing.assert_close(dict(method.tower.named_parameters())[name].detach(), weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.heads[1].weight, head.weight, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(older[name], weights) for name, weights in weights_of(method.heads[0]).items())


def test_a_limit_on_training_images_cuts_stage_1(small_backbone, make_stream):
    stream = make_stream()
    passes = {}
    for limit in (None, 8):
        scenario = dataclasses.replace(stream.scenario, images_per_task=limit)
        method = build(small_backbone, scenario, epochs=3)
        method.grow(stream.tasks[0])
        before = small_backbone.image_passes
        method.fine_tune(stream.tasks[0])
        passes[limit] = small_backbone.image_passes - before
    assert passes == {None: 30, 8: 8}


def test_half_of_the_images_are_mirrored_in_every_epoch(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    task = stream.tasks[0]
    method = build(small_backbone, stream.scenario, mirrored_view=True, epochs=2, batch_size=5)
    method.grow(task)
    shown = []
    original = slca.pooled_images

    def watched(tower, pixels):
        shown.append(pixels)
        return original(tower, pixels)

    monkeypatch.setattr(slca, "pooled_images", watched)
    method.fine_tune(task)
    plain = task.train.pixels()
    flips = []
    for epoch in range(2):
        images = torch.cat(shown[2 * epoch : 2 * epoch + 2])
        order = Draws("test", "slca", 0).permutation(10, "batch order", 0, epoch)
        flips.append([torch.equal(image, plain[row].flip(-1)) for image, row in zip(images, order)])
        assert all(flip or torch.equal(image, plain[row]) for flip, image, row in zip(flips[-1], images, order))
        assert sum(flips[-1]) == 5
    assert flips[0] != flips[1]


def test_training_images_are_cropped_and_the_statistics_are_of_whole_ones(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    task = stream.tasks[0]
    shown = []
    original = slca.pooled_images

    def watched(tower, pixels):
        shown.append(pixels)
        return original(tower, pixels)

    monkeypatch.setattr(slca, "pooled_images", watched)
    teach(build(small_backbone, stream.scenario, crop_scale=0.3, epochs=1, batch_size=10), task)
    plain = task.train.pixels()
    order = Draws("test", "slca", 0).permutation(10, "batch order", 0, 0)
    assert all(not torch.allclose(image, plain[row], atol=1e-3) for image, row in zip(shown[0], order))
    assert torch.equal(shown[1], plain)


def test_new_heads_start_small_and_without_bias_and_differ_by_task_and_seed(small_backbone, make_stream):
    stream = make_stream()
    heads = {}
    for seed in (0, 1):
        method = build(small_backbone, stream.scenario, seed)
        for task in stream.tasks:
            method.grow(task)
            heads[seed, task.index] = method.heads[-1].weight.detach().clone()
            assert not method.heads[-1].bias.any()
    assert len({tuple(weight.flatten().tolist()) for weight in heads.values()}) == 4
    assert all(0 < float(weight.abs().max()) < 0.1 for weight in heads.values())


# -- class statistics -------------------------------------------------------------------------------------------


def test_statistics_are_mean_and_covariance_of_the_trained_tower_s_features(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2), per_class=7)
    method = teach(build(small_backbone, stream.scenario, covariance_ridge=0.01), stream.tasks[0])
    noted = method.gaussians.means.clone(), method.gaussians.factors.clone()
    with torch.no_grad():
        features = pooled_images(method.tower, stream.tasks[0].train.pixels())
    for c in (0, 1):
        own = features[stream.tasks[0].train.labels == c]
        centred = own - own.mean(dim=0)
        torch.testing.assert_close(method.gaussians.means[c], own.mean(dim=0))
        covariance = centred.T @ centred / 6 + 0.01 * torch.eye(32)
        torch.testing.assert_close(method.gaussians.factors[c] @ method.gaussians.factors[c].T, covariance, rtol=1e-4, atol=1e-5)
    teach(method, stream.tasks[1])
    assert torch.equal(method.gaussians.means[:2], noted[0]) and torch.equal(method.gaussians.factors[:2], noted[1])


def test_drawn_features_have_the_shrunken_mean_and_the_covariance_of_their_class(small_backbone, make_stream):
    stream = make_stream(sizes=(1, 2, 1))
    method = build(small_backbone, stream.scenario, samples_per_class=4000)
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 32, 32, generator=generator)
    method.gaussians.means = 10 * torch.randn(3, 32, generator=generator)
    method.gaussians.factors = torch.linalg.cholesky(root @ root.transpose(1, 2) + torch.eye(32))
    drawn = method.draw_features(1, 0)
    assert drawn.shape == (3, 4000, 32)
    for c, factor in zip(range(3), (0.9 + 0.1 * 1 / 2, 1.0, 1.0)):  # class 0 is of task 0, the others of task 1 of 0 .. 1
        covariance = method.gaussians.factors[c] @ method.gaussians.factors[c].T
        error = (drawn[c].mean(dim=0) - factor * method.gaussians.means[c]) / covariance.diagonal().sqrt()
        assert float(error.abs().max()) < 5 / 4000**0.5
        assert float((torch.cov(drawn[c].T) - covariance).norm() / covariance.norm()) < 0.15
    assert not torch.equal(drawn, method.draw_features(1, 1)) and not torch.equal(drawn, method.draw_features(2, 0))


# -- stage 2 ----------------------------------------------------------------------------------------------------


def test_alignment_loss_divides_by_the_mean_norm_of_the_tasks(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 3))
    method = build(small_backbone, stream.scenario, logit_norm=0.2)
    for task in stream.tasks:
        method.grow(task)
    logits, labels = torch.tensor([[3.0, 4.0, 1.0, 2.0, 2.0], [0.5, 0, 0, 0, -1.0]]), torch.tensor([1, 4])
    norms = torch.tensor([[(5 + 3) / 2], [(0.5 + 1) / 2]])
    expected = F.cross_entropy(logits / norms / 0.2, labels)
    torch.testing.assert_close(method.alignment_loss(logits, labels), expected)
    method.settings = dataclasses.replace(method.settings, logit_norm=0.0)
    torch.testing.assert_close(method.alignment_loss(logits, labels), F.cross_entropy(logits, labels))


def test_alignment_is_sgd_on_all_heads_with_a_cosine_by_epoch(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1))
    method = teach(build(small_backbone, stream.scenario, alignment_epochs=3), *stream.tasks)
    weight = torch.cat([head.weight.detach() for head in method.heads])
    bias = torch.cat([head.bias.detach() for head in method.heads])
    linear = torch.nn.Linear(32, 3)
    linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
    optimiser = torch.optim.SGD(linear.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=3)
    labels = torch.arange(3).repeat_interleave(6)
    for epoch in range(3):
        features = method.draw_features(1, epoch).reshape(18, 32)
        for rows in Draws("test", "slca", 0).permutation(18, "alignment order", 1, epoch).split(6):
            z = linear(features[rows])
            norm = (z[:, :2].norm(dim=1) + z[:, 2:].norm(dim=1) + 2e-7) / 2
            optimiser.zero_grad()
            F.cross_entropy(z / norm.unsqueeze(1) / 0.1, labels[rows]).backward()
            optimiser.step()
        scheduler.step()
    torch.testing.assert_close(method.aligned_weight, linear.weight.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.aligned_bias, linear.bias.detach(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(method.aligned_weight, weight)
    pixels = stream.tasks[0].train.pixels()
    expected = pooled_images(method.tower, pixels) @ method.aligned_weight.T + method.aligned_bias
    torch.testing.assert_close(method.logits(pixels, [2, 0]), expected[:, [2, 0]].detach())


def test_alignment_starts_with_the_second_task_and_leaves_the_heads_of_stage_1_alone(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    assert torch.equal(method.aligned_weight, method.heads[0].weight)
    first = weights_of(method.heads[0])
    teach(method, stream.tasks[1])
    assert all(torch.equal(first[name], weights) for name, weights in weights_of(method.heads[0]).items())
    assert not torch.allclose(method.aligned_weight[:2], method.heads[0].weight)


# -- as a method ------------------------------------------------------------------------------------------------


def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario), []
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    pixels = stream.joined().train.pixels()
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario)
        for task in stream.tasks[:done]:
            resumed.grow(task)
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        assert torch.equal(resumed.logits(pixels, range(5)), whole.logits(pixels, range(5)))


def test_the_shared_backbone_stays_as_it_is(small_backbone, make_stream):
    stream = make_stream()
    before = weights_of(small_backbone.clip)
    method = teach(build(small_backbone, stream.scenario), *stream.tasks)
    assert all(torch.equal(before[name], weights) for name, weights in weights_of(small_backbone.clip).items())
    assert not torch.equal(method.tower.class_embedding, small_backbone.clip.visual.class_embedding)


def test_classes_that_it_has_not_learned_are_refused(small_backbone, make_stream):
    stream = make_stream()
    method, pixels = build(small_backbone, stream.scenario), stream.tasks[0].train.pixels()
    with pytest.raises(ValueError, match="not red"):
        method.logits(pixels, [0])
    teach(method, stream.tasks[0])
    with pytest.raises(ValueError, match="not blue"):
        method.logits(pixels, [0, 2])


def test_a_class_without_images_and_a_run_that_diverges_are_named(small_backbone, make_stream):
    stream = make_stream()
    task = stream.tasks[0]
    ((source, rows),) = task.train.pieces
    red = task.train.labels == 0
    only_red = dataclasses.replace(task, train=Split([(source, rows[red.numpy()])], task.train.labels[red], task.train.store))
    with pytest.raises(BenchError, match="'green' has no training image"):
        teach(build(small_backbone, stream.scenario), only_red)
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, lr=1e30), task)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"samples_per_class": 0}, {"covariance_ridge": 0.0}, {"logit_norm": -1.0}, {"crop_scale": 0.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        SLCA.Settings(**wrong)


def test_authors_settings():
    cifar, imagenet_r, cars = (SLCA.settings_for(name) for name in ("cifar100-10x10", "imagenet-r-10x20", "cars196-b16-9x20"))
    assert cifar.crop_scale == 0.08 and cifar.mirrored_view
    assert (cifar.epochs, cifar.milestones, cifar.alignment_epochs, cifar.logit_norm) == (20, (18,), 5, 0.1)
    assert (imagenet_r.epochs, imagenet_r.milestones, imagenet_r.logit_norm) == (50, (40,), 0.1)
    assert (cars.epochs, cars.logit_norm) == (50, 0.05)
