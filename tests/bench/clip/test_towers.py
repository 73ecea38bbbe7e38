"""The towers taken apart and put together again."""

import pytest
import torch
from open_clip.model import CLIP

from bench.clip.backbone import Backbone
from bench.clip.image_tower import blocks, image_tokens, pool_image, pooled_images, project_image
from bench.errors import BenchError
from tests.bench.clip.tiny_architecture import SETTINGS, random_clip


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["tiny", "tiny-quickgelu"])
def clip(request) -> CLIP:
    return random_clip(request.param)


def test_pooled_images_projected_are_the_embeddings(clip):
    pooled = pooled_images(clip.visual, pixels())
    assert pooled.shape == (4, 32)
    torch.testing.assert_close(project_image(clip.visual, pooled), clip.encode_image(pixels()))


def test_image_blocks_run_by_hand_equal_the_whole(clip):
    x = image_tokens(clip.visual, pixels())
    assert x.shape == (4, 17, 32)
    for block in blocks(clip.visual):
        x = block(x)
        assert x.shape == (4, 17, 32)
    pooled = pool_image(clip.visual, x)
    torch.testing.assert_close(pooled, pooled_images(clip.visual, pixels()))
    torch.testing.assert_close(project_image(clip.visual, pooled), clip.encode_image(pixels()))


def test_pooling_is_the_normalised_class_token(clip):
    x = torch.randn(4, 17, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pool_image(clip.visual, x), clip.visual.ln_post(x[:, 0]))


def test_text_blocks_run_by_hand_equal_the_whole(clip, small_backbone):
    tokens = small_backbone.tokenize(["a photo of a cat.", "x"])
    x = clip.token_embedding(tokens) + clip.positional_embedding
    for block in blocks(clip):
        x = block(x, attn_mask=clip.attn_mask)
    ends = clip.ln_final(x)[torch.arange(2), tokens.argmax(dim=-1)]
    torch.testing.assert_close(ends @ clip.text_projection, clip.encode_text(tokens))


def test_a_block_can_be_replaced(clip):
    whole = clip.encode_image(pixels())
    x = image_tokens(clip.visual, pixels())
    first, last = blocks(clip.visual)
    by_hand = project_image(clip.visual, pool_image(clip.visual, last(first(x).flip(-1))))
    assert not torch.allclose(by_hand, whole, atol=1e-3)


def test_gradients_flow_through_the_parts(clip):
    x = image_tokens(clip.visual, pixels(1)).detach().requires_grad_()
    project_image(clip.visual, pool_image(clip.visual, clip.visual.transformer(x))).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_tower_without_projection_gives_what_it_pools():
    clip = random_clip()
    clip.visual.proj = None
    pooled = pooled_images(clip.visual, pixels())
    assert torch.equal(project_image(clip.visual, pooled), pooled)
    torch.testing.assert_close(pooled, clip.encode_image(pixels()))


@pytest.mark.parametrize("way", ["whole", "pooled", "by hand", "a copy"])
def test_every_image_is_counted_once_whichever_way_it_goes(small_backbone, way):
    backbone = Backbone("test", "none", random_clip(), small_backbone.tokenizer, small_backbone.transform, "test", "cpu")
    visual = backbone.clip.visual
    if way == "whole":
        backbone.encode_images(pixels(3))
    elif way == "pooled":
        backbone.pool_images(pixels(3))
    elif way == "by hand":
        x = image_tokens(visual, pixels(3))
        for block in blocks(visual):
            x = block(x)
        pool_image(visual, x)
    else:
        backbone.trainable_copy().encode_image(pixels(3))
    assert backbone.image_passes == 3


@pytest.mark.parametrize("tower", ["residual network", "attentional pooling"])
def test_towers_of_another_kind_are_refused_with_a_hint(tower):
    if tower == "residual network":
        clip = random_clip("tiny-resnet")
    else:
        vision = SETTINGS["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 2}
        clip = CLIP(**{**SETTINGS, "vision_cfg": vision})
    with pytest.raises(BenchError, match="needs a vision transformer as image tower"):
        pooled_images(clip.visual, pixels())
