"""CoCoOp: the equation, image by image and class by class; and what a stream makes of it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.text_prompts.cocoop import CoCoOp, CoCoOpSettings

QUICK = CoCoOpSettings(epochs=1, batch_size=4, learning_rate=0.02)


def build(stream, backbone, settings=QUICK, seed=0, **budget) -> CoCoOp:
    return CoCoOp(settings, backbone, replace(stream.scenario, **budget), Draws("test", "cocoop", seed))


def literal_logit(method, image, name) -> torch.Tensor:
    """One raw embedding (d,), one class name: a whole prompt, encoded alone."""
    backbone, f = method.backbone, image / image.norm()
    down, _, up = method.meta_net
    shift = up.weight @ torch.relu(down.weight @ f + down.bias) + up.bias
    tokens = backbone.tokenize([f"a photo of a {name}."])
    embeddings = backbone.embed_tokens(tokens).clone()
    for m in range(4):
        embeddings[0, 1 + m] = method.context[m] + shift
    w = backbone.encode_embedded(embeddings, tokens.argmax(dim=-1))[0]
    return backbone.logit_scale * f @ (w / w.norm())


@pytest.mark.parametrize("prompts_at_once", [1, 3, 2048])
def test_scores_are_those_of_whole_prompts(small_backbone, make_stream, prompts_at_once):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, prompts_at_once=prompts_at_once))
    method.learn(stream.tasks[0])
    features = stream.tasks[1].train.features()[:3]
    with torch.no_grad():
        expected = [[literal_logit(method, f, stream.scenario.class_names[c]) for c in (3, 0)] for f in features]
    torch.testing.assert_close(method.logits(features, [3, 0]), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_the_loss_of_a_batch_is_the_mean_over_its_images(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone)
    text, features = method.text_of(torch.arange(4)), stream.tasks[0].train.features()[:3]
    labels = torch.tensor([1, 0, 3])
    each = torch.stack([method.loss(text, features[k : k + 1], labels[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(method.loss(text, features, labels), each.mean())


def test_memory_saving_parts_do_not_change_what_is_learned(small_backbone, make_stream):
    stream = make_stream()
    found = []
    for prompts_at_once in (2048, 3):
        method = build(stream, small_backbone, replace(QUICK, prompts_at_once=prompts_at_once))
        method.learn(stream.tasks[0])
        found.append(method.context.detach())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    features = stream.tasks[0].train.features()
    text = small_backbone.classifier(stream.scenario.prompts_of([2, 1]))
    expected = small_backbone.logit_scale * F.normalize(features, dim=-1) @ text.T
    torch.testing.assert_close(build(stream, small_backbone).logits(features, [2, 1]), expected)


def test_context_and_meta_net_go_on_from_task_to_task(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone)
    for task in stream.tasks:
        before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
        method.learn(task)
        assert all(not torch.equal(weights, before[name]) for name, weights in method.named_parameters())
        assert all(float((weights.detach() - before[name]).abs().max()) < 1 for name, weights in method.named_parameters())


def test_a_drawn_context_has_its_own_length(small_backbone, make_stream):
    method = build(make_stream(), small_backbone, replace(QUICK, context_words=None, context_length=7))
    assert method.context.shape == (7, small_backbone.text_width)


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


@pytest.mark.parametrize("name", ["context_length", "reduction", "prompts_at_once"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(BenchError, match=name):
        CoCoOpSettings(**{name: 0})
