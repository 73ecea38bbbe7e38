"""Continual-CLIP: zero-shot CLIP with its authors' prompts."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.continual_clip import ContinualCLIP, ContinualCLIPSettings
from methods.zero_shot import ZeroShot

NAMES = ("red", "dark gray", "blue", "yellow")


def build(stream, backbone, **settings) -> ContinualCLIP:
    scenario = replace(stream.scenario, class_names=NAMES)
    return ContinualCLIP(ContinualCLIPSettings(**settings), backbone, scenario, Draws("test", "continual-clip", 0))


def test_without_a_template_it_is_zero_shot(small_backbone, make_stream):
    stream = make_stream()
    scenario = replace(stream.scenario, class_names=NAMES)
    zero_shot = ZeroShot(None, small_backbone, scenario, Draws("test", "zero-shot", 0))
    assert torch.equal(build(stream, small_backbone).class_vectors, zero_shot.class_vectors)


@pytest.mark.parametrize(("keep", "name"), [(False, "dark gray"), (True, "dark_gray")])
def test_a_template_replaces_those_of_the_protocol(small_backbone, make_stream, keep, name):
    method = build(make_stream(), small_backbone, template="a bad photo of a {}.", keep_underscores=keep)
    expected = F.normalize(small_backbone.encode_text([f"a bad photo of a {name}."]), dim=-1)
    torch.testing.assert_close(method.class_vectors[1:2], expected)


@pytest.mark.parametrize(("protocol", "template"), [
    ("cifar100-10x10", "a bad photo of a {}."),
    ("tinyimagenet-100-20x5", "a bad photo of a {}."),
    ("imagenet100-10x10", "a good photo of a {}."),
    ("mini60-6x10", None),
])  # fmt: skip
def test_recipes_are_the_released_prompts(protocol, template):
    assert ContinualCLIP.settings_for(protocol).template == template
    assert ContinualCLIP.settings_for(protocol).keep_underscores == protocol.startswith("cifar100")


def test_a_template_needs_a_place_for_the_name():
    with pytest.raises(BenchError, match="put {} where"):
        ContinualCLIPSettings(template="a photo")
