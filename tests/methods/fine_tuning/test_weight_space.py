"""Averages along the path, merges and the weight constraint, against their formulas."""

import copy

import pytest
import torch

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.fine_tuning.finetune import FineTune
from methods.fine_tuning.weight_methods import WeightConstraint, WeightEnsemble, WiSEFT
from methods.fine_tuning.weight_space import PathAverage, merge, squared_distance, weights_of

QUICK = {"lr": 1e-3, "iterations": 4, "warmup": 1, "batch_size": 4}


def line(value: float) -> torch.nn.Module:
    model = torch.nn.Linear(1, 1)
    for weights in model.parameters():
        torch.nn.init.constant_(weights, value)
    return model


def path_mean(values, every, pull=1.0):
    """The average after the model has gone through these values, one per update, starting from the first."""
    model = line(values[0])
    average = PathAverage(model, every, pull)
    for update, value in enumerate(values[1:]):
        for weights in model.parameters():
            torch.nn.init.constant_(weights, value)
        average.after_update(update, model)
    return average.mean["weight"].item()


def test_snapshots_of_the_path_count_equally():
    assert path_mean([0.0, 1.0, 9.0, 2.0, 9.0, 3.0], every=2) == pytest.approx((0 + 1 + 2 + 3) / 4)


def test_a_pull_draws_every_average_to_the_start():
    first = 0.5 * (1.0 + 3.0) / 2 + 0.5 * 1.0
    second = 0.5 * (2 * first + 5.0) / 3 + 0.5 * 1.0
    assert path_mean([1.0, 3.0, 5.0], every=1, pull=0.5) == pytest.approx(second)


def test_merge_takes_alpha_of_the_model():
    model = line(1.0)
    merge(model, weights_of(line(5.0)), alpha=0.75)
    assert model.weight.item() == pytest.approx(2.0)


def test_distance_is_a_plain_sum_over_all_trained_weights():
    model = torch.nn.Linear(3, 2)
    start = weights_of(model)
    with torch.no_grad():
        model.weight += 2.0
    model.bias.requires_grad_(False)
    assert squared_distance(model, start).item() == pytest.approx(6 * 4.0)


def learned(method_class, backbone, stream, **settings):
    method = method_class(method_class.Settings(**{**QUICK, **settings}), backbone, stream.scenario, Draws("test", "same", 0))
    for task in stream.tasks:
        method.learn(task)
    return method


def test_wise_ft_is_fine_tuning_merged_with_the_task_s_start(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    plain = weights_of(learned(FineTune, small_backbone, stream).clip)
    merged = weights_of(learned(WiSEFT, small_backbone, stream, merge_alpha=0.8).clip)
    start = weights_of(small_backbone.clip)
    for name in plain:
        torch.testing.assert_close(merged[name], 0.8 * plain[name] + 0.2 * start[name])


def test_the_merge_with_zero_shot_differs_from_the_second_task_on(small_backbone, make_stream):
    stream = make_stream()
    first, second = (
        learned(WiSEFT, small_backbone, stream, merge_with=other).clip.visual.proj for other in ("task-start", "zero-shot")
    )
    assert not torch.allclose(first, second)


def test_the_ensemble_ends_at_the_mean_and_trains_without_it(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))

    class Watched(FineTune):
        def after_update(self, update, task):
            super().after_update(update, task)
            self.__dict__.setdefault("path", []).append(self.clip.visual.proj.detach().clone())

    plain = learned(Watched, small_backbone, stream)
    ensemble = learned(WeightEnsemble, small_backbone, stream, average_every=2)
    snapshots = [small_backbone.clip.visual.proj, plain.path[0], plain.path[2], plain.path[4]]
    torch.testing.assert_close(ensemble.clip.visual.proj.detach(), torch.stack([s.detach() for s in snapshots]).mean(dim=0))


def test_the_constraint_keeps_the_weights_closer(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    start = weights_of(small_backbone.clip)
    far, near = (
        squared_distance(learned(method, small_backbone, stream, iterations=30, **settings).clip, start).item()
        for method, settings in ((FineTune, {}), (WeightConstraint, {"l2_weight": 100.0}))
    )
    assert near < far / 2


def test_average_and_merge_exclude_each_other():
    with pytest.raises(BenchError, match="exclude"):
        WiSEFT.Settings(average_every=10)


def test_a_batch_in_parts_gives_the_same_update(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    whole = copy.deepcopy(learned(FineTune, small_backbone, stream).clip.visual.proj)
    parts = learned(FineTune, small_backbone, stream, accumulate=2).clip.visual.proj
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-5)


def test_checkpointing_gives_the_same_update(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    whole = learned(FineTune, small_backbone, stream).clip.visual.proj
    again = learned(FineTune, small_backbone, stream, gradient_checkpointing=True).clip.visual.proj
    torch.testing.assert_close(again, whole, rtol=1e-3, atol=1e-5)
