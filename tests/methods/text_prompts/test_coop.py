"""CoOp: what is learned, what is kept, what stays as it was."""

from dataclasses import replace

import pytest
import torch

from bench.system.randomness import Draws
from methods.shared.memory import exemplars_per_class
from methods.text_prompts.coop import CoOp, CoOpSettings

QUICK = CoOpSettings(context_length=2, epochs=2, batch_size=4, learning_rate=0.1)


def build(stream, backbone, settings=QUICK, **budget) -> CoOp:
    return CoOp(settings, backbone, replace(stream.scenario, **budget), Draws("test", "coop", 0))


def test_before_learning_it_is_zero_shot(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone)
    assert torch.equal(method.class_vectors, small_backbone.classifier(stream.scenario.prompts_of(range(4))))


def test_a_class_specific_context_leaves_unseen_classes_and_their_context_alone(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, class_specific=True))
    context, vectors = method.context.detach().clone(), method.class_vectors.clone()
    method.learn(stream.tasks[0])
    assert torch.equal(method.context[2:], context[2:]) and torch.equal(method.class_vectors[2:], vectors[2:])
    assert not torch.equal(method.context[:2], context[:2]) and not torch.equal(method.class_vectors[:2], vectors[:2])


@pytest.mark.parametrize(("label_space", "moves"), [("seen", True), ("present", False)])
def test_without_exemplars_only_the_seen_label_space_moves_earlier_classes(small_backbone, make_stream, label_space, moves):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, class_specific=True, label_space=label_space))
    method.learn(stream.tasks[0])
    before = method.context[:2].detach().clone()
    method.learn(stream.tasks[1])
    assert torch.equal(method.context[:2], before) != moves


def test_a_shared_context_serves_unseen_classes_too(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone)
    vectors = method.class_vectors.clone()
    method.learn(stream.tasks[0])
    assert not torch.equal(method.class_vectors[2:], vectors[2:])


def test_the_memory_keeps_the_first_images_and_shrinks_with_a_fixed_total(small_backbone, make_stream):
    stream = make_stream(per_class=5)
    method = build(stream, small_backbone, exemplars_total=8)
    method.learn(stream.tasks[0])
    assert method.memory.labels.tolist() == [0] * 4 + [1] * 4
    method.learn(stream.tasks[1])
    assert method.memory.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(method.memory.images[:2, 0], stream.tasks[0].train.features()[:2])
    assert torch.equal(method.memory.images[:2, 1], stream.tasks[0].train.features("mirrored")[:2])
    assert method.exemplar_bytes() == 8 * 2 * small_backbone.embedding_width * 4


def test_no_budget_means_no_exemplar(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone)
    method.learn(stream.tasks[0])
    assert len(method.memory.labels) == 0
    assert exemplars_per_class(stream.scenario, 10) == 0
