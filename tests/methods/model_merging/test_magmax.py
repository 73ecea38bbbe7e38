import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.model_merging import magmax
from methods.model_merging.magmax import MagMax
from methods.zero_shot import ZeroShot

QUICK = {"lr": 1e-3, "epochs": 2, "warmup": 2, "batch_size": 4, "crop_scale": 1.0}
EVERY = [0, 1, 2, 3]


def build(backbone, scenario, seed=0, **settings):
    return MagMax(MagMax.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "magmax", seed))


def taught(backbone, stream, tasks=None, **settings):
    method = build(backbone, stream.scenario, **settings)
    for task in stream.tasks[:tasks]:
        method.learn(task)
    return method


def recorded_steps(monkeypatch, note):
    """Call `note` with the optimiser before each of its steps."""
    step = torch.optim.AdamW.step

    def recorded(optimiser, *rest):
        note(optimiser)
        return step(optimiser, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)


# -- what is evaluated and what is trained ----------------------------------------------------------------------


def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    pixels = stream.tasks[0].train.pixels()
    zero_shot = ZeroShot(None, small_backbone, stream.scenario, Draws("test", "zero-shot", 0))
    expected = zero_shot.logits(small_backbone.encode_images(pixels), [3, 0])
    torch.testing.assert_close(build(small_backbone, stream.scenario).logits(pixels, [3, 0]), expected)


def test_training_goes_on_from_the_unmerged_weights(small_backbone, make_stream, monkeypatch):
    """The merged ones are evaluated in between, which moves nothing."""
    stream, starts, trained = make_stream(), [], []
    method = build(small_backbone, stream.scenario)
    fit = method.fit

    def watched(task):
        starts.append(method.layout.read(method.tower))
        fit(task)
        trained.append(method.layout.read(method.tower))

    monkeypatch.setattr(method, "fit", watched)
    for task in stream.tasks:
        method.learn(task)
        method.logits(task.train.pixels(), EVERY)
        assert torch.equal(method.layout.read(method.tower), trained[-1])
    merged = method.layout.parts(trained[0] - method.initial())
    assert torch.equal(starts[0], method.initial()) and torch.equal(starts[1], trained[0])
    assert any(bool(part.any()) for part in merged.values())


def test_what_is_evaluated_is_half_of_the_largest_changes_on_top_of_the_initial_weights(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    initial, changes = method.initial(), []
    tower = small_backbone.trainable_copy().visual
    pixels = stream.tasks[0].train.pixels()
    for n, task in enumerate(stream.tasks, start=1):
        method.learn(task)
        changes.append(method.layout.read(method.tower) - initial)
        stacked = torch.stack(changes)
        largest = stacked.gather(0, stacked.abs().argmax(dim=0, keepdim=True))[0]
        method.layout.write(tower, initial + 0.5 * largest)
        images = F.normalize(tower(pixels), dim=-1)
        text = small_backbone.classifier(stream.scenario.prompts_of(EVERY))
        expected = small_backbone.logit_scale * images @ text.T
        torch.testing.assert_close(method.logits(pixels, EVERY), expected, rtol=1e-4, atol=1e-3)
        assert not torch.allclose(method.training_logits(pixels, EVERY), expected, rtol=1e-2), n


def test_from_the_initial_weights_no_task_sees_another(small_backbone, make_stream):
    stream = make_stream()
    both = taught(small_backbone, stream, start="initial")
    alone = build(small_backbone, stream.scenario, start="initial")
    alone.learn(stream.tasks[1])
    assert torch.equal(both.layout.read(both.tower), alone.layout.read(alone.tower))
    assert not torch.equal(both.merge.merged(), alone.merge.merged())


def test_kept_are_the_weights_in_training_and_the_merge_and_the_rest_follows(small_backbone, make_stream):
    stream = make_stream()
    method = taught(small_backbone, stream)
    state = method.state_dict()
    numbers = sum(value.numel() for name, value in state.items() if name != "class_vectors")
    assert numbers == 2 * method.layout.size
    again = build(small_backbone, stream.scenario)
    again.load_state_dict(state)
    pixels = stream.tasks[0].train.pixels()
    assert torch.equal(again.logits(pixels, EVERY), method.logits(pixels, EVERY))


@pytest.mark.parametrize(("merge", "scale"), [("largest", 0.5), ("mean", 1.0), ("random", 1.0), ("ties", 0.55)])
def test_every_merge_has_its_own_share_and_goes_on_after_a_resume(merge, scale, small_backbone, make_stream):
    stream = make_stream()
    method = taught(small_backbone, stream, merge=merge, ties_count_text=False)
    expected = method.layout.parts(method.initial() + scale * method.merge.merged())
    assert all(torch.equal(own, expected[name]) for name, own in method.merged_weights.items())
    half = taught(small_backbone, stream, tasks=1, merge=merge, ties_count_text=False)
    resumed = build(small_backbone, stream.scenario, merge=merge, ties_count_text=False)
    resumed.load_state_dict(half.state_dict())
    resumed.learn(stream.tasks[1])
    assert torch.equal(resumed.merge.merged(), method.merge.merged())
    given = taught(small_backbone, stream, tasks=1, merge=merge, scale=0.25)
    by_hand = given.layout.parts(given.initial() + 0.25 * given.merge.merged())
    assert torch.equal(given.merged_weights["proj"], by_hand["proj"])


def test_ties_counts_the_frozen_text_tower_as_released(small_backbone, make_stream):
    """Of this CLIP far more than four fifths are text, so that nothing is dropped."""
    stream = make_stream()
    kept = [
        int((taught(small_backbone, stream, tasks=1, merge="ties", ties_count_text=count).merge.merged() != 0).sum())
        for count in (True, False)
    ]
    size = build(small_backbone, stream.scenario).layout.size
    assert kept[1] == pytest.approx(0.2 * size, abs=2) and kept[0] > 0.9 * size


# -- training ---------------------------------------------------------------------------------------------------


def test_a_task_is_adamw_with_decay_and_a_cut_gradient_over_its_own_classes(small_backbone, make_stream):
    """Against a loop of its own, on torch's optimiser, with the same order of images."""
    stream = make_stream(sizes=(2, 3))
    settings = {"weight_decay": 0.1, "max_norm": 0.5, "warmup": 3}
    method = taught(small_backbone, stream, tasks=1, **settings)
    tower = small_backbone.trainable_copy().visual
    method.layout.write(tower, method.layout.read(method.tower))
    optimiser = torch.optim.AdamW(tower.parameters(), lr=1e-3, weight_decay=0.1)
    rates = [1 / 3, 2 / 3, 1.0]  # then a cosine over 5 of the 8 updates that 2 epochs of 15 images make
    rates += [0.5 * (1 + math.cos(math.pi * k / 5)) for k in range(5)]
    text = small_backbone.classifier(stream.scenario.prompts_of([2, 3, 4]))
    task, update = stream.tasks[1], 0
    for epoch in range(2):
        for rows in Draws("test", "magmax", 0).permutation(15, "batch order", 1, epoch).split(4):
            scores = small_backbone.logit_scale * F.normalize(tower(task.train.pixels(rows)), dim=-1) @ text.T
            loss = F.cross_entropy(scores, task.train.labels[rows] - 2)
            optimiser.zero_grad()
            loss.backward()
            length = torch.stack([own.grad.norm() for own in tower.parameters()]).norm()
            for own in tower.parameters():
                own.grad *= min(1.0, 0.5 / (float(length) + 1e-6))
            optimiser.param_groups[0]["lr"] = 1e-3 * rates[update]
            optimiser.step()
            update += 1
    method.learn(task)
    assert update == 8
    torch.testing.assert_close(
        method.layout.read(method.tower), method.layout.read(tower), rtol=0, atol=1e-4
    )  # rates of 1e-3: a wrong update would be ten times as far


def test_a_warm_up_longer_than_the_task_only_rises(small_backbone, make_stream, monkeypatch):
    """As published: 500 updates, whatever the length of the task."""
    assert MagMax.Settings().warmup == 500
    rates = []
    recorded_steps(monkeypatch, lambda optimiser: rates.append(optimiser.param_groups[0]["lr"]))
    taught(small_backbone, make_stream(), tasks=1, warmup=500, lr=1e-3)
    assert rates == pytest.approx([1e-3 * (k + 1) / 500 for k in range(6)])


def test_every_task_has_a_new_optimiser(small_backbone, make_stream, monkeypatch):
    seen = []
    recorded_steps(monkeypatch, lambda optimiser: seen.append((id(optimiser), len(optimiser.state))))
    taught(small_backbone, make_stream())
    assert [count for _, count in seen].count(0) == 2 and len(seen) == 12


def test_epochs_may_differ_by_task_and_a_limit_on_images_cuts_them(small_backbone, make_stream, monkeypatch):
    stream, steps = make_stream(), []
    recorded_steps(monkeypatch, lambda optimiser: steps.append(1))
    lengths = []
    for settings, limit in (({}, None), ({"epochs_of_task": (("task 0", 3),)}, None), ({}, 8)):
        steps.clear()
        method = build(small_backbone, dataclasses.replace(stream.scenario, images_per_task=limit), **settings)
        method.learn(stream.tasks[0])
        lengths.append(len(steps))
    assert lengths == [6, 9, 2]


def test_a_task_of_one_class_is_learned(small_backbone, make_stream):
    stream = make_stream(sizes=(1, 2))
    method = taught(small_backbone, stream)
    assert bool(torch.isfinite(method.logits(stream.tasks[0].train.pixels(), [0, 1, 2])).all())


def test_it_learns_its_tasks(small_backbone, make_stream):
    stream = make_stream(sizes=(3,), per_class=8)
    task = stream.tasks[0]
    accuracies = []
    for method in (build(small_backbone, stream.scenario), taught(small_backbone, stream, epochs=15, lr=3e-3)):
        scores = method.logits(task.train.pixels(), [0, 1, 2])
        accuracies.append(float((scores.argmax(dim=1) == task.train.labels).float().mean()))
    assert accuracies[1] > max(0.9, accuracies[0] + 0.1)


def test_a_loss_that_is_no_number_stops_the_run(small_backbone, make_stream, monkeypatch):
    monkeypatch.setattr(magmax.F, "cross_entropy", lambda logits, *_, **__: logits.sum() * float("nan"))
    with pytest.raises(RunFailure, match="task 0, update 0"):
        taught(small_backbone, make_stream(), tasks=1)


# -- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"epochs": 0}, {"epochs_of_task": (("task 0", 0),)}, {"warmup": -1}, {"max_norm": -1.0},
        {"scale": -0.5}, {"ties_share": 0.0}, {"ties_share": 1.5}, {"crop_scale": 0.0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(wrong):
    with pytest.raises(BenchError) as caught:
        MagMax.Settings(**wrong)
    assert "\n" not in str(caught.value)


def test_recipes_are_the_authors():
    cifar, cub, cars, mtil = (MagMax.settings_for(name) for name in ("cifar100-10x10", "cub200-10x20", "cars196", "mtil-order1"))
    assert (cifar.epochs, cifar.lr, cifar.batch_size, cifar.weight_decay) == (10, 1e-5, 128, 0.1)
    assert cub.epochs == cars.epochs == 30
    assert dict(mtil.epochs_of_task) == {"stanford-cars": 35, "mnist": 5, "eurosat": 12, "sun397": 14, "dtd": 75}
