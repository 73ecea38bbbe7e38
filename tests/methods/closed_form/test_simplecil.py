import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.closed_form.simplecil import SimpleCIL


def build(backbone, scenario, **settings):
    return SimpleCIL(SimpleCIL.Settings(**settings), backbone, scenario, Draws("test", "simplecil", 0))


@pytest.mark.parametrize("feature", ["pooled", "projected"])
@pytest.mark.parametrize("unit", [False, True])
def test_logits_are_cosines_with_the_class_means(small_backbone, make_stream, feature, unit):
    stream = make_stream(sizes=(1, 2))
    method = build(small_backbone, stream.scenario, feature=feature, normalise_before_mean=unit, scale=7.0)
    for task in stream.tasks:
        method.learn(task)
    joined = stream.joined().train
    x = joined.features(layer=feature)
    for c in range(3):
        own = x[joined.labels == c]
        mean = (F.normalize(own, dim=-1) if unit else own).mean(dim=0)
        expected = torch.stack([7.0 * row @ mean / row.norm() / mean.norm() for row in x])
        torch.testing.assert_close(method.logits(x, [c])[:, 0], expected)


def test_order_and_grouping_of_classes_do_not_matter(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    in_tasks, at_once = build(small_backbone, stream.scenario), build(small_backbone, stream.scenario)
    for task in stream.tasks:
        in_tasks.learn(task)
    at_once.learn(stream.joined())
    torch.testing.assert_close(in_tasks.prototypes, at_once.prototypes)


@pytest.mark.parametrize(("feature", "inputs"), [("pooled", "pooled"), ("projected", "features")])
def test_it_is_scored_on_the_features_that_it_learns_from(small_backbone, make_stream, feature, inputs):
    assert build(small_backbone, make_stream().scenario, feature=feature).inputs == inputs


def test_learning_reads_cached_features_only(small_backbone, make_stream):
    stream = make_stream()
    stream.tasks[0].train.features(layer="pooled")
    passes = small_backbone.image_passes
    build(small_backbone, stream.scenario).learn(stream.tasks[0])
    assert small_backbone.image_passes == passes


def test_classes_that_it_has_not_learned_are_refused_by_name(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    x = stream.tasks[0].train.features(layer="pooled")
    with pytest.raises(ValueError, match="SimpleCIL scores only classes that it has learned; not red"):
        method.logits(x, [0])
    method.learn(stream.tasks[0])
    assert method.logits(x, [1, 0]).shape == (len(x), 2)
    with pytest.raises(ValueError, match="not yellow"):
        method.logits(x, [0, 3])


def test_resumed_it_goes_on_with_the_same_prototypes(small_backbone, make_stream):
    stream = make_stream()
    method, resumed = build(small_backbone, stream.scenario), build(small_backbone, stream.scenario)
    method.learn(stream.tasks[0])
    resumed.load_state_dict({name: value.clone() for name, value in method.state_dict().items()})
    for each in (method, resumed):
        each.learn(stream.tasks[1])
    x = stream.joined().train.features(layer="pooled")
    assert torch.equal(resumed.logits(x, range(4)), method.logits(x, range(4)))
