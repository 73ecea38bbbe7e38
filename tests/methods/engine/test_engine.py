import copy
import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.engine.engine import ENGINE
from methods.shared.batches import Batch
from tests.methods.engine.test_descriptions import described
from tests.methods.teaching import accuracy, teach

QUICK = {"epochs": 2, "batch_size": 4, "image_weight": 0.0}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "descriptions.json"
    path.write_text(json.dumps(described(("red", "green", "blue", "yellow", "dark gray", "white"))))
    return str(path)


def build(backbone, scenario, **settings):
    return ENGINE(ENGINE.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "engine", 0))


def pooled(task):
    return task.train.features(layer="pooled")


# -- scores -----------------------------------------------------------------------------------------------------


def test_before_the_first_task_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 3))
    method = build(small_backbone, stream.scenario)
    text = small_backbone.classifier(stream.scenario.prompts_of(range(5)))
    expected = F.normalize(stream.tasks[0].train.features(), dim=-1) @ text.T
    torch.testing.assert_close(method.logits(pooled(stream.tasks[0]), range(5)), expected, rtol=1e-4, atol=1e-5)


def adapted_cosines(method, backbone, x, classes):
    """By the formula, prompt by prompt."""
    images = F.normalize(method.image_units(x @ backbone.clip.visual.proj), dim=-1)
    columns = []
    for c in classes:
        texts = backbone.encode_text(method.scenario.prompts_of([c])[0])
        columns.append(images @ F.normalize(F.normalize(method.text_units(texts), dim=-1).mean(dim=0), dim=0))
    return torch.stack(columns, dim=1)


def test_scores_of_learned_classes_have_three_parts(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    options = {"discriminant_weight": 0.3, "rerank_weight": 0.4, "rerank_top": 4, "descriptions": file}
    method = teach(build(small_backbone, stream.scenario, **options), *stream.tasks)
    x, classes = pooled(stream.tasks[1]), [3, 0]
    cosines = adapted_cosines(method, small_backbone, x, range(4))
    units = F.normalize(method.discriminant.scores(F.normalize(x, dim=-1)), dim=-1).float()
    parts = {}
    for share in (0.0, 1.0):
        method.rerank_weight = share
        parts[share] = (method.logits(x, classes) - 0.3 * units[:, classes]) / 0.7
    torch.testing.assert_close(parts[0.0], cosines[:, classes], rtol=1e-3, atol=1e-4)
    again = parts[1.0]
    method.rerank_weight = 0.4
    expected = 0.3 * units[:, classes] + 0.7 * (0.4 * again + 0.6 * cosines[:, classes])
    torch.testing.assert_close(method.logits(x, classes), expected, rtol=1e-3, atol=1e-4)
    assert float(again.abs().max()) > 1e-3


def test_with_an_unlearned_class_all_are_scored_by_the_units_alone(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario, descriptions=file), stream.tasks[0])
    x = pooled(stream.tasks[0])
    expected = adapted_cosines(method, small_backbone, x, [1, 2])
    torch.testing.assert_close(method.logits(x, [1, 2]), expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(method.logits(x, [1]), expected[:, :1], atol=1e-3)


def test_without_a_file_there_is_nothing_of_descriptions(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    plain = teach(build(small_backbone, stream.scenario), *stream.tasks)
    none = teach(build(small_backbone, stream.scenario, text_weight=0.0, rerank_weight=0.0), *stream.tasks)
    x = pooled(stream.tasks[0])
    assert torch.equal(plain.logits(x, range(4)), none.logits(x, range(4)))


# -- training ---------------------------------------------------------------------------------------------------


def literal_units(method, tasks, path):
    """Units of all tasks, by a loop of its own on the same draws: lists of linear layers, image and text."""
    settings, draws, backbone, scenario = method.settings, Draws("test", "engine", 0), method.backbone, method.scenario
    project, sides, means = backbone.clip.visual.proj, ([], []), []
    for task in tasks:
        x, y = pooled(task) @ project, task.train.labels
        for side, units in zip(("image unit", "text unit"), sides):
            with draws.initialising(side, task.index):
                units.append(torch.nn.Linear(24, 24))
        optimiser = torch.optim.SGD(
            [*sides[0][-1].parameters(), *sides[1][-1].parameters()], lr=settings.lr, momentum=0.9, weight_decay=0.05
        )
        step = 0
        for epoch in range(settings.epochs):
            optimiser.param_groups[0]["lr"] = settings.lr * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
            for rows in draws.permutation(len(x), "batch order", task.index, epoch).split(settings.batch_size):
                images, labels = x[rows], y[rows].tolist()
                if means:
                    order = draws.permutation(len(means), "old classes", task.index, epoch).tolist()
                    noise = draws.normal((len(means), 24), "prototype noise", task.index, step)
                    old = torch.stack([means[c] for c in order]) + settings.prototype_noise * noise
                    images, labels = torch.cat([images, old]), labels + order
                texts = backbone.encode_text(scenario.prompts(labels))
                z = F.normalize(sum(unit(images) for unit in sides[0]), dim=-1)
                t = F.normalize(sum(unit(texts) for unit in sides[1]), dim=-1)
                target, scale = torch.arange(len(z)), math.log(backbone.logit_scale)
                loss = (F.cross_entropy(scale * z @ t.T, target) + F.cross_entropy(scale * t @ z.T, target)) / 2
                noise = draws.normal((len(rows), 3, 32, 32), "pixel noise", task.index, step)
                copies = (task.train.pixels(rows) + settings.pixel_noise * noise).clamp(0, 1)
                copies = F.normalize(backbone.encode_images(copies), dim=-1)
                loss = loss + settings.image_weight * F.cross_entropy(z[: len(rows)] @ copies.T, torch.arange(len(rows)))
                shares, sentences = draws.uniform((len(labels),), "descriptions", task.index, step), []
                for c, share in zip(labels, shares.tolist()):
                    name = scenario.class_names[c]
                    own = [text for texts in path[name].values() for text in texts]
                    sentences.append(f"{name} with {own[int(share * len(own))].lower()}")
                described = F.normalize(backbone.encode_text(sentences), dim=-1)
                loss = loss + settings.text_weight * F.cross_entropy(t @ described.T, target)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1
        means += [x[y == c].mean(dim=0) for c in task.classes]
        for unit in (sides[0][-1], sides[1][-1]):
            unit.requires_grad_(False)
    return sides


def test_units_are_trained_by_all_three_losses(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 1, 2))
    method = build(small_backbone, stream.scenario, image_weight=0.7, text_weight=1.3, descriptions=file, prototype_noise=0.1)
    teach(method, *stream.tasks)
    with open(file) as opened:
        images, texts = literal_units(method, stream.tasks, json.load(opened))
    for units, own in ((images, method.image_units), (texts, method.text_units)):
        torch.testing.assert_close(own.weights, torch.stack([unit.weight for unit in units]), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(own.offsets, torch.stack([unit.bias for unit in units]), rtol=1e-3, atol=1e-5)


def test_old_units_stay_unless_they_are_to_shrink(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    for shrinks in (False, True):
        method = teach(build(small_backbone, stream.scenario, frozen_units_decay=shrinks), stream.tasks[0])
        before = method.image_units.weights.clone()
        teach(method, stream.tasks[1])
        ratio = method.image_units.weights[0].norm() / before[0].norm()
        assert (0.9 < float(ratio) < 0.999) if shrinks else torch.equal(method.image_units.weights[:1], before)
        if shrinks:  # only shorter: no gradient has reached them
            torch.testing.assert_close(method.image_units.weights[0], ratio * before[0], rtol=1e-4, atol=1e-6)


def test_noise_is_on_normalised_pixels_as_released(small_backbone, make_stream):
    stream = make_stream()
    task, batch = stream.tasks[0], Batch(0, 0, torch.arange(3))
    pixels = task.train.pixels(batch.rows)
    released = build(small_backbone, stream.scenario, pixel_noise=0.0).noisy_pixels(task, batch)
    torch.testing.assert_close(released, pixels.clamp(0, 1))
    before = build(small_backbone, stream.scenario, pixel_noise=0.0, noise_on_normalised=False).noisy_pixels(task, batch)
    torch.testing.assert_close(before, pixels, rtol=1e-4, atol=1e-5)
    noisy = build(small_backbone, stream.scenario, noise_on_normalised=False).noisy_pixels(task, batch)
    shown = noisy * small_backbone.std + small_backbone.mean
    assert -1e-6 <= float(shown.min()) and float(shown.max()) <= 1 + 1e-6 and not torch.allclose(noisy, pixels, atol=0.1)


def test_descriptions_against_later_classes_can_be_left_out(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    method = build(small_backbone, stream.scenario, descriptions=file, compare_with_later=False)
    sentences = [f"red with red not green {k}" for k in range(2)]
    expected = small_backbone.encode_text(sentences)
    torch.testing.assert_close(method.described([0, 0], [0.1, 0.9], task=0), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(method.described([0], [0.9], task=1), expected[1:], atol=1e-4)


def test_the_logarithm_of_the_scale_is_used_as_released(small_backbone, make_stream):
    stream, weights = make_stream(), []
    for log in (True, False):
        weights.append(teach(build(small_backbone, stream.scenario, log_temperature=log), stream.tasks[0]).image_units.weights)
    assert not torch.allclose(*weights)


# -- as a method ------------------------------------------------------------------------------------------------


def test_it_learns_a_second_task_without_losing_the_first(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 3), per_class=12)
    method = teach(build(small_backbone, stream.scenario, epochs=10), *stream.tasks)
    assert all(accuracy(method, task, range(6)) > 0.9 for task in stream.tasks)


def test_the_units_alone_learn(small_backbone, make_stream):
    stream = make_stream(sizes=(3,), per_class=12)
    method = build(small_backbone, stream.scenario, epochs=20, discriminant_weight=0.0)
    before = accuracy(method, stream.tasks[0], range(3))
    assert accuracy(teach(method, *stream.tasks), stream.tasks[0], range(3)) > max(before, 0.9)


def test_tasks_of_any_size_and_a_class_of_one_image(small_backbone, make_stream, file):
    stream = make_stream(sizes=(1, 2, 1), per_class=1)
    method = build(small_backbone, stream.scenario, descriptions=file, image_weight=1.0)
    for task in stream.tasks:
        teach(method, task)
        assert torch.isfinite(method.logits(pooled(stream.joined()), range(task.classes[-1] + 1))).all()


def test_a_limit_on_training_images(small_backbone, make_stream, monkeypatch):
    stream = make_stream()  # 10 images a task, 3 steps an epoch
    method = build(small_backbone, dataclasses.replace(stream.scenario, images_per_task=13))
    steps, loss = [], method.loss
    monkeypatch.setattr(method, "loss", lambda *given: steps.append(1) or loss(*given))
    teach(method, stream.tasks[0])
    assert len(steps) == 4


def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario, descriptions=file), []
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario, descriptions=file)
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        x = pooled(stream.tasks[0])
        assert torch.equal(resumed.logits(x, range(5)), whole.logits(x, range(5)))


def test_a_score_depends_on_no_other_image(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario, descriptions=file), *stream.tasks)
    x = pooled(stream.joined())
    one_by_one = torch.cat([method.logits(row, range(4)) for row in x.split(1)])
    torch.testing.assert_close(method.logits(x, range(4)), one_by_one, rtol=1e-4, atol=1e-5)


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


def test_a_file_without_a_pair_is_refused_before_training_if_re_ranking_needs_it(small_backbone, make_stream, tmp_path):
    content, scenario = described(), make_stream(sizes=(2, 2)).scenario
    del content["blue"]["red"]
    path = tmp_path / "d.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match="'blue' against 'red'"):
        build(small_backbone, scenario, descriptions=str(path))
    build(small_backbone, scenario, descriptions=str(path), rerank_weight=0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch_size": 0}, {"rerank_top": 1}, {"rerank_draws": 0}, {"image_weight": -1.0},
        {"prototype_noise": float("nan")}, {"discriminant_weight": 1.1}, {"rerank_weight": -0.1},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        ENGINE.Settings(**wrong)


@pytest.mark.parametrize(
    "protocol, image, rerank, discriminant, noise",
    [
        ("imagenet-r-10x20", 2, 0.8, 0.8, 0.25), ("cifar100-10x10", 0.5, 0.5, 0.8, 0.25),
        ("cifar100-b50-5x10", 2, 0.8, 0.9, 0.25), ("cub200-10x20", 2, 0.8, 0.95, 0.3),
        ("cub200-b100-5x20", 2, 0.8, 0.95, 0.25), ("aircraft-10x10", 0, 0.2, 0.99, 0.25), ("food101-b50-5x10", 2, 0.8, 0.8, 0.25),
    ],
)  # fmt: skip
def test_authors_settings(protocol, image, rerank, discriminant, noise):
    s = ENGINE.settings_for(protocol)
    assert (s.image_weight, s.rerank_weight, s.discriminant_weight, s.prototype_noise) == (image, rerank, discriminant, noise)
    assert (s.epochs, s.lr, s.min_lr, s.momentum, s.weight_decay, s.batch_size) == (10, 0.05, 0, 0.9, 0.05, 64)
    assert (s.text_weight, s.rerank_top, s.rerank_draws, s.pixel_noise) == (2, 5, 3, 0.25)
    assert s.log_temperature and s.noise_on_normalised and s.compare_with_later and not s.frozen_units_decay
