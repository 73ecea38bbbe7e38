import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.closed_form.ranpac import RanPAC

ADAPTED = {"first_session_adaptation": "adapter", "adapter_epochs": 2, "adapter_batch": 4, "adapter_width": 8}


def build(backbone, scenario, seed=0, **settings):
    settings = {"projection": 50, **settings}
    return RanPAC(RanPAC.Settings(**settings), backbone, scenario, Draws("test", "ranpac", seed))


def learned(method, stream):
    for task in stream.tasks:
        method.learn(task)
    return method


# -- phase 2 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature", ["pooled", "projected"])
@pytest.mark.parametrize("projection", [50, 0])
def test_weights_are_one_ridge_regression_over_all_tasks_with_the_last_lambda(small_backbone, make_stream, feature, projection):
    stream = make_stream(sizes=(2, 1, 2))
    method = build(small_backbone, stream.scenario, feature=feature, projection=projection)
    seen = []
    for task in stream.tasks:
        method.learn(task)
        seen.append((task.train.features(layer=feature), task.train.labels))
        x, labels = torch.cat([x for x, _ in seen]), torch.cat([y for _, y in seen])
        h = (x @ method.projection).relu() if projection else x
        h, y = h.double().numpy(), np.eye(task.classes[-1] + 1)[labels.numpy()]
        weights = np.linalg.solve(h.T @ h + method.ridge * np.eye(h.shape[1]), h.T @ y)
        found = method.logits(x, range(task.classes[-1] + 1))
        np.testing.assert_allclose(found.numpy(), h @ weights, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(method.logits(x, [task.classes[0]])[:, 0], found[:, task.classes[0]])


def test_lambda_is_the_one_with_the_least_error_on_the_last_fifth_of_the_shuffled_task(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 2), per_class=6)
    method = learned(build(small_backbone, stream.scenario), stream)
    task = stream.tasks[-1]
    order = Draws("test", "ranpac", 0).permutation(12, "held-out order", 1)
    h = (task.train.features(layer="pooled")[order] @ method.projection).relu().double().numpy()
    y = np.eye(5)[task.train.labels[order].numpy()]
    errors = []
    for ridge in method.settings.ridges:
        weights = np.linalg.solve(h[:9].T @ h[:9] + ridge * np.eye(50), h[:9].T @ y[:9])
        errors.append(((h[9:] @ weights - y[9:]) ** 2).mean())
    assert method.ridge == method.settings.ridges[int(np.argmin(errors))]
    assert 1e-8 < method.ridge < 1e8  # not an end of the list by default


def test_a_task_of_one_image_takes_the_middle_candidate(small_backbone, make_stream):
    stream = make_stream(sizes=(1, 1), per_class=1)
    method = learned(build(small_backbone, stream.scenario, ridges=(1e-3, 1e-1, 1e5)), stream)
    assert method.ridge == 1e-1
    x = stream.joined().train.features(layer="pooled")
    assert torch.equal(method.logits(x, [0, 1]).argmax(dim=-1), torch.tensor([0, 1]))


def test_the_first_of_equal_candidates_wins(small_backbone, make_stream, monkeypatch):
    from methods.closed_form import ranpac

    monkeypatch.setattr(ranpac, "held_out_errors", lambda *arguments: torch.tensor([3.0, 1.0, 1.0]))
    method = build(small_backbone, make_stream().scenario, ridges=(5.0, 6.0, 7.0))
    assert method.choose_ridge(torch.ones(10, 32), torch.zeros(10, dtype=torch.long)) == 6.0


def test_seeds_and_standard_normal_projection(small_backbone, make_stream):
    scenario = make_stream().scenario
    first, again, other = (build(small_backbone, scenario, seed, projection=3000).projection for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.mean()) == pytest.approx(0, abs=0.02) and float(first.std()) == pytest.approx(1, abs=0.02)


def test_learning_reads_cached_features_only(small_backbone, make_stream):
    stream = make_stream()
    stream.tasks[0].train.features(layer="pooled")
    passes = small_backbone.image_passes
    build(small_backbone, stream.scenario).learn(stream.tasks[0])
    assert small_backbone.image_passes == passes


@pytest.mark.parametrize("settings", [{}, {"projection": 0}, ADAPTED])
def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream, settings):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario, **settings), []
    for task in stream.tasks:
        whole.learn(task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    batch = stream.joined().train.inputs(whole.inputs, torch.arange(25))
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario, **settings)
        resumed.load_state_dict(state)
        for task in stream.tasks[done:]:
            resumed.learn(task)
        assert torch.equal(resumed.logits(batch, range(5)), whole.logits(batch, range(5)))


def test_classes_that_it_has_not_learned_are_refused(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    x = stream.tasks[0].train.features(layer="pooled")
    with pytest.raises(ValueError, match="not red"):
        method.logits(x, [0])
    method.learn(stream.tasks[0])
    with pytest.raises(ValueError, match="not blue, yellow"):
        method.logits(x, [0, 2, 3])


# -- phase 1 ----------------------------------------------------------------------------------------------------


def test_untrained_adapters_leave_the_tower_as_it_is(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, **ADAPTED)
    pixels = stream.tasks[0].train.pixels()
    torch.testing.assert_close(method.adapted_features(pixels).detach(), small_backbone.pool_images(pixels))
    projected = build(small_backbone, stream.scenario, feature="projected", **ADAPTED)
    torch.testing.assert_close(projected.adapted_features(pixels).detach(), small_backbone.encode_images(pixels))


def test_adapters_add_a_scaled_bottleneck_of_the_stream_after_attention(small_backbone, make_stream):
    method = build(small_backbone, make_stream().scenario, adapter_scale=0.3, **ADAPTED)
    for up in method.adapters.up:
        torch.nn.init.normal_(up.weight, generator=torch.Generator().manual_seed(0))
    pixels = make_stream().tasks[0].train.pixels()
    visual = small_backbone.clip.visual
    x = visual._embeds(pixels)
    for block, down, up in zip(visual.transformer.resblocks, method.adapters.down, method.adapters.up):
        after_attention = x + block.attn(*[block.ln_1(x)] * 3, need_weights=False)[0]
        x = after_attention + block.mlp(block.ln_2(after_attention))
        x = x + 0.3 * (F.relu(after_attention @ down.weight.T + down.bias) @ up.weight.T + up.bias)
    torch.testing.assert_close(method.adapted_features(pixels), visual.ln_post(x[:, 0]))


def test_phase_1_is_sgd_on_adapters_and_a_cosine_head_with_a_cosine_by_epoch(small_backbone, make_stream):
    """Against torch's own optimiser and scheduler."""
    task = make_stream().tasks[0]
    settings = {**ADAPTED, "adapter_epochs": 3, "adapter_lr": 0.5, "crop_scale": 1.0, "mirrored_view": False}
    method = build(small_backbone, make_stream().scenario, **settings)
    adapters = copy.deepcopy(method.adapters)
    with Draws("test", "ranpac", 0).initialising("cosine head"):
        head = torch.nn.Parameter(torch.empty(2, 32).uniform_(-(32**-0.5), 32**-0.5))
    sigma = torch.nn.Parameter(torch.tensor(1.0))
    optimiser = torch.optim.SGD([*adapters.parameters(), head, sigma], lr=0.5, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=3)
    for epoch in range(3):
        for rows in Draws("test", "ranpac", 0).permutation(10, "adapter order", 0, epoch).split(4):
            features = adapters.pooled(small_backbone.clip.visual, task.train.pixels(rows))
            cosines = torch.stack([F.cosine_similarity(features, head[c : c + 1]) for c in (0, 1)], dim=1)
            optimiser.zero_grad()
            F.cross_entropy(sigma * cosines, task.train.labels[rows]).backward()
            optimiser.step()
        scheduler.step()
    method.train_adapters(task)
    untrained = build(small_backbone, make_stream().scenario, **settings).adapters
    for name, weights in method.adapters.state_dict().items():
        torch.testing.assert_close(weights, adapters.state_dict()[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(weights, untrained.state_dict()[name])


def test_adapters_are_trained_on_the_first_task_only(small_backbone, make_stream):
    stream = make_stream()
    before = {name: weights.clone() for name, weights in small_backbone.clip.state_dict().items()}
    method = build(small_backbone, stream.scenario, **ADAPTED)
    assert method.inputs == "pixels"
    untrained = {name: weights.clone() for name, weights in method.adapters.state_dict().items()}
    method.learn(stream.tasks[0])
    trained = {name: weights.clone() for name, weights in method.adapters.state_dict().items()}
    assert not any(torch.equal(untrained[name], weights) for name, weights in trained.items())
    method.learn(stream.tasks[1])
    assert all(torch.equal(trained[name], weights) for name, weights in method.adapters.state_dict().items())
    assert all(torch.equal(before[name], weights) for name, weights in small_backbone.clip.state_dict().items())


def test_phase_2_after_adaptation_uses_the_adapted_features(small_backbone, make_stream):
    stream = make_stream()
    method = learned(build(small_backbone, stream.scenario, **ADAPTED), stream)
    pixels = stream.joined().train.pixels()
    h = (method.adapted_features(pixels) @ method.projection).relu().double().detach()
    y = F.one_hot(stream.joined().train.labels).double()
    weights = torch.linalg.solve(h.T @ h + method.ridge * torch.eye(50, dtype=h.dtype), h.T @ y)
    torch.testing.assert_close(method.logits(pixels, range(4)), h @ weights, rtol=1e-4, atol=1e-5)


def test_phase_1_respects_the_budget_of_training_images(small_backbone, make_stream):
    stream = make_stream()
    scenario = dataclasses.replace(stream.scenario, images_per_task=8)
    method = build(small_backbone, scenario, **{**ADAPTED, "adapter_epochs": 5})
    stream.tasks[0].train.features(layer="pooled")
    passes = small_backbone.image_passes
    method.train_adapters(stream.tasks[0])
    assert small_backbone.image_passes - passes == 8


def test_phase_1_that_diverges_stops_the_run(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        build(small_backbone, stream.scenario, **{**ADAPTED, "adapter_lr": 1e30}).learn(stream.tasks[0])


@pytest.mark.parametrize(
    "wrong", [{"ridges": ()}, {"ridges": (0.0, 1.0)}, {"fit_fraction": 1.0}, {"projection": -1}, {"crop_scale": 1.5}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        RanPAC.Settings(**wrong)


def test_authors_settings():
    settings = RanPAC.Settings()
    assert (settings.projection, settings.fit_fraction, len(settings.ridges)) == (10000, 0.8, 17)
    assert settings.ridges[0] == pytest.approx(1e-8) and settings.ridges[-1] == pytest.approx(1e8)
    assert RanPAC.settings_for("cddb-5x2").projection == 5000
