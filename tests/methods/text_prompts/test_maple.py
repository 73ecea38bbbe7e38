"""MaPLe in a stream: what it learns, keeps and scores."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.text_prompts.maple import MaPLe, MaPLeSettings

QUICK = MaPLeSettings(prompt_depth=2, epochs=1, batch_size=4, learning_rate=0.05)


def build(stream, backbone, settings=QUICK, **budget) -> MaPLe:
    return MaPLe(settings, backbone, replace(stream.scenario, **budget), Draws("test", "maple", 0))


def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    pixels = stream.tasks[0].train.pixels()
    unit = F.normalize(small_backbone.encode_images(pixels), dim=-1)
    expected = small_backbone.logit_scale * unit @ small_backbone.classifier(stream.scenario.prompts_of([3, 0])).T
    torch.testing.assert_close(build(stream, small_backbone).logits(pixels, [3, 0]), expected)


@pytest.mark.parametrize("kind", ["class-incremental", "task-incremental"])
def test_afterwards_all_classes_are_scored_with_the_learned_prompts(small_backbone, make_stream, kind):
    stream = make_stream(kind)
    method = build(stream, small_backbone)
    method.learn(stream.tasks[0])
    pixels = stream.tasks[0].train.pixels()
    with torch.no_grad():
        images = F.normalize(method.deep.image_features(pixels), dim=-1)
        texts = F.normalize(method.deep.text_features(method.deep.prompts(["yellow", "red"])), dim=-1)
    expected = small_backbone.logit_scale * images @ texts.T
    torch.testing.assert_close(method.logits(pixels, [3, 0]), expected, rtol=1e-4, atol=1e-4)


def test_every_prompt_and_projection_moves_unless_only_the_input_prompt_is_trained(small_backbone, make_stream):
    stream = make_stream()
    for settings, moved in ((QUICK, None), (replace(QUICK, train_only_shallow=True), {"deep.context"})):
        method = build(stream, small_backbone, settings)
        before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
        method.learn(stream.tasks[0])
        changed = {name for name, weights in method.named_parameters() if not torch.equal(weights, before[name])}
        assert changed == (moved or set(before))


def test_it_learns_the_task(small_backbone, make_stream):
    stream = make_stream(sizes=(4,), per_class=8)
    method = build(stream, small_backbone, replace(QUICK, epochs=8, optimiser="adamw", learning_rate=5e-3, mirrored_view=False))
    train = stream.tasks[0].train
    pixels, labels = train.pixels(), train.labels

    def loss():
        return float(F.cross_entropy(method.logits(pixels, range(4)), labels))

    before = loss()
    method.learn(stream.tasks[0])
    assert loss() < 0.5 * before


def test_underscores_become_spaces(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, class_names=("red", "dark_gray", "blue", "yellow"))
    tokens = method.text_of(torch.tensor([1])).tokens
    assert torch.equal(tokens, small_backbone.tokenize(["a photo of a dark gray."]))


def test_exemplars_are_images_and_count_as_bytes(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, exemplars_per_class=2)
    for task in stream.tasks:
        method.learn(task)
    assert method.exemplar_bytes() == 8 * 32 * 32 * 3
