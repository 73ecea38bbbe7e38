"""CLIP-Adapter: the formula, and what happens at a task's boundary."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.text_prompts.clip_adapter import CLIPAdapter, CLIPAdapterSettings

QUICK = CLIPAdapterSettings(epochs=2, batch_size=4, learning_rate=0.05)


def build(stream, backbone, settings=QUICK, seed=0, **budget) -> CLIPAdapter:
    return CLIPAdapter(settings, backbone, replace(stream.scenario, **budget), Draws("test", "clip-adapter", seed))


def test_scores_are_cosines_of_the_mixed_embedding(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, ratio=0.3, reduction=6))
    assert method.down.shape == (4, 24) and method.up.shape == (24, 4)
    method.learn(stream.tasks[0])
    vectors = small_backbone.classifier(stream.scenario.prompts_of(range(4)))
    for f in stream.tasks[1].train.features()[:3]:
        a = torch.clamp(method.up @ torch.clamp(method.down @ f, min=0), min=0)
        mixed = 0.3 * a + 0.7 * f
        expected = [small_backbone.logit_scale * float(mixed @ vectors[c] / mixed.norm() / vectors[c].norm()) for c in (3, 0)]
        assert method.logits(f[None], [3, 0])[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    features = stream.tasks[0].train.features()
    text = small_backbone.classifier(stream.scenario.prompts_of([2, 1]))
    expected = small_backbone.logit_scale * F.normalize(features, dim=-1) @ text.T
    torch.testing.assert_close(build(stream, small_backbone).logits(features, [2, 1]), expected)


@pytest.mark.parametrize("reinit", [True, False])
def test_a_task_starts_from_a_new_adapter_or_from_the_last_one(small_backbone, make_stream, reinit):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, reinit_each_task=reinit, epochs=0))
    method.learn(stream.tasks[0])
    first = method.down.detach().clone()
    method.learn(stream.tasks[1])
    assert torch.equal(method.down, first) != reinit
    assert torch.equal(method.down, method.new_adapter(1 if reinit else 0)[0])


def test_the_class_vectors_stay(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, exemplars_per_class=2)
    for task in stream.tasks:
        method.learn(task)
    assert torch.equal(method.class_vectors, small_backbone.classifier(stream.scenario.prompts_of(range(4))))


def test_learning_lowers_the_loss(small_backbone, make_stream):
    stream = make_stream(sizes=(4,), per_class=8)
    method = build(stream, small_backbone, replace(QUICK, epochs=20, optimiser="adamw", learning_rate=0.01))
    features, labels = stream.tasks[0].train.features(), stream.tasks[0].train.labels
    before = float(F.cross_entropy(method.logits(features, range(4)), labels))
    method.learn(stream.tasks[0])
    assert float(F.cross_entropy(method.logits(features, range(4)), labels)) < 0.7 * before


def test_learning_and_scoring_use_cached_features_only(small_backbone, make_stream):
    stream = make_stream()
    for task in stream.tasks:
        for view in ("plain", "mirrored"):
            task.train.features(view)
    passes = small_backbone.image_passes
    method = build(stream, small_backbone, exemplars_per_class=1)
    for task in stream.tasks:
        method.learn(task)
        method.logits(task.train.features(), range(4))
    assert small_backbone.image_passes == passes


@pytest.mark.parametrize("options", [{"reduction": 0}, {"ratio": 1.1}, {"ratio": -0.1}, {"batch_size": 0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(BenchError, match=next(iter(options))):
        CLIPAdapterSettings(**options)
