import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.rapf import RAPF, fused, neighbours
from methods.shared.class_names import underscored
from tests.methods.teaching import accuracy, teach

QUICK = {
    "epochs": 3, "milestones": (2,), "batch_size": 4, "lr": 0.01, "samples_per_class": 3, "samples_per_pair": 2, "threshold": 2.0,
}  # fmt: skip


def build(backbone, scenario, seed=0, **settings):
    return RAPF(RAPF.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "rapf", seed))


# -- scores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, "a good photo of a {}."])
def test_before_the_first_task_it_is_zero_shot_clip(small_backbone, make_stream, template):
    stream = make_stream(sizes=(2, 3))
    method = build(small_backbone, stream.scenario, template=template)
    x, text = stream.tasks[0].train.features(), small_backbone.classifier(stream.scenario.prompts_of(range(5), template))
    expected = small_backbone.logit_scale * F.normalize(x, dim=-1) @ text.T
    torch.testing.assert_close(method.logits(x, range(5)), expected)


def test_scores_are_scaled_cosines_of_the_mapped_feature_for_seen_and_unseen_classes(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    x = stream.tasks[0].train.features()
    text = small_backbone.classifier(stream.scenario.prompts_of([3, 0], "a good photo of a {}."))
    mapped = torch.stack([method.adapter.detach() @ row for row in x])
    expected = small_backbone.logit_scale * F.cosine_similarity(mapped.unsqueeze(1), text.unsqueeze(0), dim=-1)
    torch.testing.assert_close(method.logits(x, [3, 0]), expected, rtol=1e-4, atol=1e-4)


def test_the_first_task_starts_from_a_random_map(small_backbone, make_stream):
    scenario = make_stream().scenario
    starts = [build(small_backbone, scenario, seed).random_adapter() for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    assert 0.9 * 24**-0.5 < float(starts[0].abs().max()) <= 24**-0.5
    stream = make_stream()
    method = build(small_backbone, stream.scenario, lr=0.0)
    teach(method, stream.tasks[0])
    assert torch.equal(method.adapter, starts[0])


def test_names_of_several_words_are_written_as_the_data_sets_files_write_them(small_backbone, make_stream):
    scenario = make_stream(sizes=(3, 3)).scenario
    assert underscored(scenario).class_names[4] == "dark_gray" and underscored(underscored(scenario)) == underscored(scenario)
    plain, written = (build(small_backbone, scenario, keep_underscores=keep).text for keep in (False, True))
    changed = (plain != written).any(dim=1)
    assert changed.tolist() == [name == "dark gray" for name in scenario.class_names]


# -- training ---------------------------------------------------------------------------------------------------


def test_a_later_task_is_adam_on_images_drawn_features_and_the_hinge(small_backbone, make_stream):
    """Against a loop of its own, on torch's optimiser and scheduler, with the same draws."""
    stream = make_stream(sizes=(3, 2))
    method = teach(build(small_backbone, stream.scenario, hinge_weight=0.5, mix_bias=1.0), stream.tasks[0])
    weights = torch.nn.Parameter(method.adapter.detach().clone())
    gaussians, text, scale = method.gaussians, method.text, small_backbone.logit_scale
    means, factors = gaussians.means.clone(), gaussians.factors.clone()
    task, draws = stream.tasks[1], Draws("test", "rapf", 0)
    x, labels = task.train.features(), task.train.labels
    optimiser = torch.optim.Adam([weights], lr=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=[2], gamma=0.1)
    pairs = [(old, new) for old in (0, 1, 2) for new in (3, 4)]  # within a threshold of 2 everything is near
    step = 0
    for epoch in range(3):
        turns = draws.permutation(3, "old classes", 1, epoch).tolist() * 4
        for place, rows in enumerate(draws.permutation(10, "batch order", 1, epoch).split(4)):
            noise, own = draws.normal((2, 3, 24), "replay", 1, step), turns[2 * place : 2 * place + 2]
            drawn = torch.cat([means[c] + z @ factors[c].T for c, z in zip(own, noise)])
            targets = torch.tensor(labels[rows].tolist() + [c for c in own for _ in range(3)])
            mapped = F.normalize(torch.cat([x[rows], drawn]) @ weights.T, dim=-1)
            loss = F.cross_entropy(scale * mapped @ text[:5].T, targets)
            gaps = []
            for (old, new), z in zip(pairs, draws.normal((6, 2, 24), "pairs", 1, step)):
                mapped = F.normalize((means[old] + z @ factors[old].T) @ weights.T, dim=-1)
                gaps.append((mapped @ text[new] - mapped @ text[old] + 0.1).clamp_min(0))
            optimiser.zero_grad()
            (loss + 0.5 * torch.cat(gaps).mean()).backward()
            optimiser.step()
            step += 1
        scheduler.step()
    teach(method, task)
    torch.testing.assert_close(method.adapter.detach(), weights.detach(), rtol=1e-3, atol=1e-4)


def test_neighbours_are_pairs_of_old_and_new_below_the_threshold_in_order():
    angles = torch.tensor([0.0, 1.0, 2.0, 0.1, 1.5])
    text = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = neighbours(text, n_old=3, threshold=0.6).tolist()
    assert found == [[0, 3], [1, 4], [2, 4]]
    exactly = float(torch.dist(text[0], text[3]))
    assert neighbours(text, 3, exactly).tolist() == []  # strictly closer
    assert neighbours(text, 5, 0.6).shape == neighbours(text, 0, 0.6).shape == (0, 2)


def test_old_classes_come_in_turn_and_repeatedly_where_there_are_too_few(small_backbone, make_stream):
    method = build(small_backbone, make_stream().scenario, old_classes_per_batch=2)
    order = Draws("test", "rapf", 0).permutation(5, "old classes", 1, 0).tolist()
    turns = [method.old_classes(5, 1, 0, place).tolist() for place in range(3)]
    assert turns == [order[0:2], order[2:4], [order[4], order[0]]]
    assert method.old_classes(1, 1, 0, 3).tolist() == [0, 0]


def test_without_neighbours_there_is_no_hinge_and_no_draw_for_it(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, threshold=0.0)
    monkeypatch.setattr(method, "features_of_pairs", lambda *_: pytest.fail("drawn for no pair"))
    hinges, losses = [], method.losses
    monkeypatch.setattr(method, "losses", lambda *given: hinges.append(losses(*given)[1]) or losses(*given))
    teach(method, *stream.tasks)
    assert len(hinges) == 18 and not torch.stack(hinges).any()


def test_a_limit_on_training_images_cuts_the_steps(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    steps = {}
    for limit in (None, 8):
        method = build(small_backbone, dataclasses.replace(stream.scenario, images_per_task=limit))
        seen, losses = [], method.losses
        monkeypatch.setattr(method, "losses", lambda *given: seen.append(1) or losses(*given))
        teach(method, stream.tasks[0])
        steps[limit] = len(seen)
    assert steps == {None: 9, 8: 2}


# -- fusion -----------------------------------------------------------------------------------------------------


def test_fusion_mixes_along_the_old_singular_directions():
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    u, sigma, vh = torch.linalg.svd(old)
    before, after = torch.diag(sigma) @ vh, u.T @ new
    share = ((after - before).abs() / (after - before).abs().max() + 0.3).clamp(max=1)
    assert 0 < int((share == 1).sum()) < 36
    expected = u @ (share * after + (1 - share) * before)
    torch.testing.assert_close(fused(old, new, 0.3), expected)
    turned = u * torch.tensor([1, -1, 1, -1, -1, 1.0]).double()  # singular vectors with other signs are as good
    before, after = turned.T @ old, turned.T @ new
    torch.testing.assert_close(turned @ (share * after + (1 - share) * before), expected)


def test_fusion_ends_between_old_and_new_and_can_be_switched_off():
    old, new = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fused(old, new, 1.0), new)
    assert torch.equal(fused(old, old, 0.5), old)
    distances = [float((fused(old, new, bias) - new).norm()) for bias in (0.0, 0.5, 0.9)]
    assert float((old - new).norm()) > distances[0] > distances[1] > distances[2] > 0


def test_only_later_tasks_are_fused(small_backbone, make_stream):
    stream = make_stream()
    first = [teach(build(small_backbone, stream.scenario, mix_bias=bias), stream.tasks[0]).adapter for bias in (0.2, 1.0)]
    assert torch.equal(*first)
    both = [teach(build(small_backbone, stream.scenario, mix_bias=bias), *stream.tasks).adapter for bias in (0.2, 1.0)]
    assert not torch.allclose(*both)


# -- as a method ------------------------------------------------------------------------------------------------


def test_it_learns_a_second_task_without_losing_the_first(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 3), per_class=12)
    method = teach(build(small_backbone, stream.scenario, epochs=30, milestones=(20,), samples_per_class=20), *stream.tasks)
    assert all(accuracy(method, task, range(6)) > 0.85 for task in stream.tasks)


def test_tasks_of_one_class_and_a_class_of_one_image(small_backbone, make_stream):
    stream = make_stream(sizes=(1, 2, 1), per_class=1)
    method = teach(build(small_backbone, stream.scenario, shrinkage=True), *stream.tasks)
    assert len(method.gaussians) == 4
    assert torch.isfinite(method.logits(stream.joined().train.features(), range(4))).all()


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
        assert torch.equal(resumed.adapter, whole.adapter)


def test_a_run_that_diverges_is_named(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, lr=float("inf")), stream.tasks[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"epochs": 0}, {"old_classes_per_batch": 0}, {"samples_per_class": 0}, {"samples_per_pair": 0},
        {"covariance_ridge": 0.0}, {"mix_bias": 1.5}, {"template": "no place"}, {"template": "{} {}"}, {"template": "{} {x}"},
        {"template": "{} }"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        RAPF.Settings(**wrong)


def test_authors_settings():
    def facts(protocol):
        s = RAPF.settings_for(protocol)
        return (
            s.batch_size, s.old_classes_per_batch, s.samples_per_class, s.samples_per_pair, s.mix_bias, s.threshold, s.shrinkage,
        )  # fmt: skip

    assert facts("cifar100-10x10") == facts("cifar100-b50-5x10") == (100, 2, 20, 40, 0.6, 0.55, False)
    assert facts("cifar100-b50-10x5") == (50, 4, 20, 40, 0.6, 0.55, False)
    assert facts("imagenet100-10x10") == facts("imagenet100-b50-10x5") == (128, 2, 10, 20, 0.5, 0.65, False)
    assert facts("imagenet100-5x20") == (128, 2, 5, 10, 0.5, 0.65, False)
    assert facts("imagenet-r-10x20") == facts("imagenet-r-b100-5x20") == (64, 5, 10, 20, 0.7, 0.65, True)
    assert facts("imagenet-r-20x10") == (60, 5, 20, 40, 0.7, 0.6, True)
    assert facts("imagenet-r-5x40") == (64, 5, 5, 10, 0.7, 0.6, True)
    assert facts("imagenet-r-b100-10x10") == (64, 5, 20, 40, 0.7, 0.65, True)
    assert facts("cub200-10x20") == (32, 10, 10, 20, 0.8, 0.65, True)
