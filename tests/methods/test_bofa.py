import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods import bofa
from methods.bofa import BOFA, mixing_accuracies, quiet_directions, second_moment
from tests.methods.teaching import accuracy, teach

QUICK = {"epochs": 3, "low_rank_epochs": 2, "batch_size": 4, "rank": 5}


def build(backbone, scenario, **settings):
    return BOFA(BOFA.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "bofa", 0))


def pooled(task):
    return task.train.features(layer="pooled")


# -- scores -----------------------------------------------------------------------------------------------------


def test_before_the_first_task_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 3))
    method = build(small_backbone, stream.scenario)
    text = small_backbone.classifier(stream.scenario.prompts_of(range(5)))
    expected = F.normalize(stream.tasks[0].train.features(), dim=-1) @ text.T
    torch.testing.assert_close(method.logits(pooled(stream.tasks[0]), range(5)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("swapped", [True, False])
def test_scores_mix_the_discriminant_with_cosines_to_hybrid_prototypes(small_backbone, make_stream, swapped):
    stream = make_stream(sizes=(2, 2))
    options = {"discriminant_weight": 0.3, "mixing_weight": 0.35, "swapped_mixing": swapped}
    method = teach(build(small_backbone, stream.scenario, **options), *stream.tasks)
    x, classes, projection = pooled(stream.tasks[1]), [3, 0], small_backbone.clip.visual.proj
    average = (method.bridges / 2).T
    texts = [small_backbone.classifier(stream.scenario.prompts_of([c]))[0] for c in classes]
    found = method.logits(x, classes)
    of_discriminant = method.discriminant.scores(F.normalize(x, dim=-1))
    for column, (c, text) in enumerate(zip(classes, texts)):
        task = stream.tasks[c // 2]
        prototype = F.normalize(pooled(task)[task.train.labels == c].mean(dim=0) @ projection, dim=0)
        mixed = 0.35 * prototype + 0.65 * text if swapped else 0.65 * prototype + 0.35 * text
        expected = 0.3 * of_discriminant[:, c] + 0.7 * (F.normalize(x @ average, dim=1) @ mixed)
        torch.testing.assert_close(found[:, column], expected, rtol=1e-4, atol=1e-4)


def test_with_an_unlearned_class_all_are_scored_by_their_texts_alone(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    x, text = pooled(stream.tasks[0]), small_backbone.classifier(stream.scenario.prompts_of([1, 2]))
    expected = F.normalize(x @ method.bridges.T, dim=-1) @ text.T
    torch.testing.assert_close(method.logits(x, [1, 2]), expected)
    assert not torch.allclose(method.logits(x, [1]).float(), expected[:, :1], atol=1e-2)  # learned classes only


# -- training ---------------------------------------------------------------------------------------------------


def literal_task(method, task, start, moments, released_rates):
    """Both stages of a task, on torch's optimiser with the same draws: W after stage 1, and what enters the average."""
    settings, draws, first = method.settings, Draws("test", "bofa", 0), task.index == 0
    x, labels, initial = pooled(task), task.train.labels, method.initial
    images, n = F.normalize(method.means @ initial.T, dim=-1), len(method.means)
    scale = math.log(method.backbone.logit_scale)
    mixed = (method.mixing * images + (1 - method.mixing) * method.texts[:n]).float()
    period = settings.epochs if released_rates else settings.epochs + settings.low_rank_epochs

    def steps(weights, whole, epochs, peak, decay, order, offset):
        optimiser = torch.optim.SGD([weights], lr=1.0, momentum=settings.momentum, weight_decay=decay)
        for epoch in range(epochs):
            optimiser.param_groups[0]["lr"] = peak * (1 + math.cos(math.pi * (epoch + offset) / period)) / 2
            for rows in draws.permutation(len(x), order, task.index, epoch).split(settings.batch_size):
                cosines = F.normalize(x[rows] @ whole(weights).T, dim=1) @ mixed.T
                optimiser.zero_grad()
                F.cross_entropy(scale * cosines, labels[rows]).backward()
                optimiser.step()
        return weights.detach()

    weights = torch.nn.Parameter(start.clone())
    length = settings.epochs + (settings.low_rank_epochs if first else 0)
    trained = steps(weights, lambda w: w, length, settings.lr, settings.weight_decay, "batch order", 0)
    if first:
        return trained, trained
    basis = torch.linalg.eigh(torch.stack(moments).mean(dim=0))[1][:, : settings.rank].float()
    factor = torch.nn.Parameter((trained - initial) @ basis)
    options = (settings.low_rank_lr, settings.low_rank_weight_decay, "low-rank order", settings.epochs)
    factor = steps(factor, lambda b: initial + b @ basis.T, settings.low_rank_epochs, *options)
    return trained, initial + factor @ basis.T


@pytest.mark.parametrize("released_rates", [True, False])
def test_training_is_two_stages_and_an_average(small_backbone, make_stream, released_rates):
    """Against a loop of its own. Each task has as many images as features have dimensions: no direction is unused."""
    stream = make_stream(sizes=(3, 2, 1), per_class=20)
    options = {"vanishing_rate": released_rates, "mixing_weight": 0.4, "low_rank_lr": 0.5}
    method = build(small_backbone, stream.scenario, **options)
    start, moments, summed = method.initial, [], torch.zeros_like(method.initial)
    for task in stream.tasks:
        teach(method, task)
        start, trained = literal_task(method, task, start, moments, released_rates)
        x = pooled(task).double()
        moments.append(x.T @ x / (len(x) - 1) + 1e-4 * torch.eye(x.shape[1]))
        summed = summed + trained
        torch.testing.assert_close(method.bridge.detach(), start, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(method.average, summed / len(moments), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(method.moments, sum(moments))


def test_as_released_the_rate_is_zero_when_stage_two_begins(small_backbone, make_stream, monkeypatch):
    rates, step = [], torch.optim.SGD.step

    def recorded(optimiser, *rest):
        rates.append(optimiser.param_groups[0]["lr"])
        step(optimiser, *rest)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    stream = make_stream()
    for released, ends in ((True, (0.0, 0.0109)), (False, (0.0337, 0.0085))):
        method = build(small_backbone, stream.scenario, epochs=15, batch_size=10, vanishing_rate=released)
        for task, peak in ((stream.tasks[0], 0.05), (stream.tasks[1], 1e-3)):
            rates.clear()
            teach(method, task)
            assert len(rates) == 17 and rates[0] == 0.05
            assert rates[15:] == pytest.approx([peak * end for end in ends], rel=0.01, abs=1e-9)


def test_a_later_change_does_not_reach_features_of_the_past(small_backbone, make_stream):
    """Twelve images leave directions unused, and a rank that needs no others."""
    stream = make_stream(sizes=(3, 2), per_class=4)
    method = teach(build(small_backbone, stream.scenario, rank=20), stream.tasks[0])
    first = method.bridges.clone()
    teach(method, stream.tasks[1])
    change = method.bridges - first - method.initial
    old, new = pooled(stream.tasks[0]), pooled(stream.tasks[1])
    assert float((old @ change.T).norm()) < 1e-4 * float((old @ (method.bridge.detach() - method.initial).T).norm())
    assert float((new @ change.T).norm()) > 1e-3


# -- directions -------------------------------------------------------------------------------------------------


def test_all_unused_directions_are_taken_whichever_basis_of_them_is_found():
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moment = second_moment(x, 1e-4)
    basis = quiet_directions(moment, rank=2, ridge=1e-4)
    assert basis.shape == (8, 5) and float((x @ basis).abs().max()) < 1e-8
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    turned = quiet_directions(turn @ moment @ turn.T, rank=2, ridge=1e-4)
    torch.testing.assert_close(turn.T @ turned @ turned.T @ turn, basis @ basis.T)


def test_otherwise_the_directions_of_least_energy_are_taken():
    assert quiet_directions(torch.diag(torch.tensor([3.0, 1.0, 2.0, 4.0]).double()), 2, 1e-4).abs().tolist() == [
        [0, 0], [1, 0], [0, 1], [0, 0],
    ]  # fmt: skip
    assert quiet_directions(torch.eye(3, dtype=torch.float64), 64, 1e-4).shape == (3, 3)


def test_a_second_moment_is_not_centred_and_one_image_has_one():
    x = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0]])
    torch.testing.assert_close(second_moment(x, 0.5), torch.tensor([[14.0, 18.0], [18.0, 24.5]]).double())
    torch.testing.assert_close(second_moment(x[:1], 0.5), torch.tensor([[9.5, 12.0], [12.0, 16.5]]).double())


# -- the mixing weight ------------------------------------------------------------------------------------------


def test_the_search_weighs_the_texts_and_takes_the_first_of_equals():
    eye = torch.eye(3)
    features, labels = eye[:2], torch.tensor([0, 1])
    images, texts = eye[[0, 1]], eye[[1, 0]]  # texts are the wrong way round: the images win up to one half
    accuracies = mixing_accuracies(features, labels, images, texts)
    assert accuracies.shape == (21,)
    assert accuracies[:10].tolist() == [1.0] * 10 and accuracies[11:].tolist() == [0.0] * 10
    assert int(mixing_accuracies(features, labels, texts, images).argmax()) == 11  # the first above one half


def test_it_is_searched_for_until_it_is_not_zero(small_backbone, make_stream, monkeypatch):
    found = iter([0, 7])
    searches = []

    def search(*arguments):
        searches.append(arguments)
        return F.one_hot(torch.tensor(next(found)), 21)

    monkeypatch.setattr(bofa, "mixing_accuracies", search)
    stream = make_stream(sizes=(2, 1, 1))
    method = build(small_backbone, stream.scenario)
    weights = [float(teach(method, task).mixing) for task in stream.tasks]
    assert weights == [0.0, pytest.approx(0.35), pytest.approx(0.35)]
    assert [len(images) for _, _, images, _ in searches] == [2, 3]  # among all classes seen
    given = teach(build(small_backbone, stream.scenario, mixing_weight=0.2), *stream.tasks)
    assert float(given.mixing) == 0.2 and len(searches) == 2


def test_the_logarithm_of_the_scale_is_used_as_released(small_backbone, make_stream):
    stream = make_stream()
    examples = bofa.Examples(pooled(stream.tasks[0]), stream.tasks[0].train.labels, torch.eye(24)[:2])
    rows, losses = torch.arange(10), {}
    for scale, log in ((math.log(small_backbone.logit_scale), True), (small_backbone.logit_scale, False)):
        method = build(small_backbone, stream.scenario, log_temperature=log)
        cosines = F.normalize(examples.pooled @ method.initial.T, dim=1)[:, :2]
        losses[log] = method.loss(method.initial, examples, rows)
        torch.testing.assert_close(losses[log], F.cross_entropy(scale * cosines, examples.labels))
    assert not torch.allclose(losses[True], losses[False])


# -- as a method ------------------------------------------------------------------------------------------------


def test_it_learns_a_second_task_without_losing_the_first(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 3), per_class=12)
    method = teach(build(small_backbone, stream.scenario, epochs=15), *stream.tasks)
    assert all(accuracy(method, task, range(6)) > 0.9 for task in stream.tasks)


@pytest.mark.parametrize("discriminant_weight", [0.0, 1.0])
def test_both_parts_of_a_score_learn(small_backbone, make_stream, discriminant_weight):
    stream = make_stream(sizes=(3,), per_class=12)
    method = build(small_backbone, stream.scenario, epochs=30, discriminant_weight=discriminant_weight, lr=0.5)
    before = accuracy(method, stream.tasks[0], range(3))
    assert accuracy(teach(method, *stream.tasks), stream.tasks[0], range(3)) > max(before, 0.9)


def test_tasks_of_any_size_and_a_class_of_one_image(small_backbone, make_stream):
    stream = make_stream(sizes=(1, 2, 1), per_class=1)
    method = teach(build(small_backbone, stream.scenario), *stream.tasks)
    assert torch.isfinite(method.logits(pooled(stream.joined()), range(4))).all()


def test_a_limit_on_training_images_is_shared_by_the_stages(small_backbone, make_stream, monkeypatch):
    stream = make_stream()  # 10 images a task, 3 steps an epoch
    method = build(small_backbone, dataclasses.replace(stream.scenario, images_per_task=20))
    steps, loss = [], method.loss
    monkeypatch.setattr(method, "loss", lambda *given: steps.append(given[0].shape) or loss(*given))
    teach(method, stream.tasks[0])
    assert len(steps) == 5
    teach(method, stream.tasks[1])
    assert len(steps) == 5 + 3 + 2  # 12 images, then 8
    alone = teach(build(small_backbone, stream.scenario, low_rank_epochs=0), *stream.tasks)
    assert torch.isfinite(alone.average).all()


def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario), []
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario)
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        assert torch.equal(resumed.average, whole.average)
        x = pooled(stream.tasks[0])
        assert torch.equal(resumed.logits(x, range(5)), whole.logits(x, range(5)))


def test_the_backbones_projection_stays_as_it_was(small_backbone, make_stream):
    before = small_backbone.clip.visual.proj.clone()
    stream = make_stream()
    teach(build(small_backbone, stream.scenario), *stream.tasks)
    assert torch.equal(small_backbone.clip.visual.proj, before)


def test_a_run_that_diverges_is_named(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, lr=float("inf")), stream.tasks[0])


def test_a_tower_without_a_projection_is_refused(small_backbone, make_stream):
    without = copy.copy(small_backbone)
    without.clip = copy.deepcopy(small_backbone.clip)
    without.clip.visual.proj = None
    with pytest.raises(BenchError, match="projection"):
        build(without, make_stream().scenario)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"low_rank_epochs": -1}, {"batch_size": 0}, {"rank": 0}, {"moment_ridge": 0.0},
        {"discriminant_weight": 1.1}, {"mixing_weight": -0.1},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        BOFA.Settings(**wrong)


def test_authors_settings():
    for protocol in ("cifar100-10x10", "imagenet-r-10x20", "cub200-10x20"):
        s = BOFA.settings_for(protocol)
        assert (s.epochs, s.low_rank_epochs, s.lr, s.weight_decay, s.batch_size) == (15, 2, 0.05, 0.05, 128)
        assert (s.min_lr, s.rank, s.discriminant_weight, s.momentum) == (0.0, 64, 0.1, 0.9)
        assert (s.low_rank_lr, s.low_rank_weight_decay, s.mixing_weight) == (1e-3, 1e-3, 0.0)
        assert s.swapped_mixing and s.vanishing_rate and s.log_temperature
