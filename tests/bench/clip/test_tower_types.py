"""What the typed view of open_clip's models says stands there does stand there, in the miniature CLIP and in others."""

import pytest
import torch

from bench.clip.tower_types import (
    Attention,
    Block,
    ClipModel,
    ImageTower,
    Transformer,
    VisionTransformer,
    clip_model,
    vision_transformer,
)
from bench.errors import BenchError
from tests.bench.clip.tiny_architecture import random_clip


@pytest.fixture(params=["mini", "tiny", "tiny-quickgelu"])
def clip(request, small_backbone) -> torch.nn.Module:
    return small_backbone.clip if request.param == "mini" else random_clip(request.param)


def absent(module: torch.nn.Module, view: type) -> list[str]:
    """Attributes that the view names and the module has not."""
    return [name for name in view.__annotations__ if not hasattr(module, name)]


def test_every_part_that_is_named_is_there(clip):
    assert clip_model(clip) is clip and absent(clip, ClipModel) == []
    visual = vision_transformer(clip.visual)
    assert visual is clip.visual and absent(visual, ImageTower) == [] and absent(visual, VisionTransformer) == []
    for tower in (visual, clip):
        assert absent(tower.transformer, Transformer) == []
        assert isinstance(tower.transformer.resblocks, torch.nn.ModuleList) and len(tower.transformer.resblocks) > 0
        for block in tower.transformer.resblocks:
            assert absent(block, Block) == [] and absent(block.attn, Attention) == []


def test_the_parts_are_of_the_kind_that_is_said(clip):
    block = clip.visual.transformer.resblocks[0]
    norms = (clip.ln_final, clip.visual.ln_post, block.ln_1, block.ln_2)
    assert all(isinstance(norm, torch.nn.LayerNorm) for norm in norms)
    weights = (clip.positional_embedding, clip.logit_scale, clip.visual.proj, clip.visual.class_embedding)
    assert all(isinstance(weight, torch.nn.Parameter) for weight in (*weights, clip.visual.positional_embedding))
    assert isinstance(clip.attn_mask, torch.Tensor) and isinstance(clip.token_embedding, torch.nn.Embedding)
    assert isinstance(clip.text_projection, torch.nn.Parameter | torch.nn.Linear)
    assert block.attn.in_proj_weight.shape == (3 * clip.visual.transformer.width, clip.visual.transformer.width)
    assert isinstance(block.attn.out_proj, torch.nn.Linear) and isinstance(block.mlp, torch.nn.Sequential)


def test_a_missing_part_is_noticed():
    clip = random_clip()
    del clip.visual.class_embedding
    assert absent(clip.visual, VisionTransformer) == ["class_embedding"]


def test_seeing_a_model_changes_neither_its_weights_nor_their_names():
    clip = random_clip()
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    after = clip_model(clip).state_dict()
    assert list(before) == list(after) and all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_an_image_tower_of_another_kind_is_refused_with_a_hint():
    clip = clip_model(random_clip("tiny-resnet"))  # a CLIP all the same
    with pytest.raises(BenchError, match="needs a vision transformer as image tower"):
        vision_transformer(clip.visual)


def test_what_is_no_clip_is_refused():
    with pytest.raises(TypeError, match="not a CLIP in open_clip's layout: Linear has no transformer"):
        clip_model(torch.nn.Linear(2, 2))
