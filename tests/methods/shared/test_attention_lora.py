import pytest
import torch
import torch.nn.functional as F

from bench.clip.image_tower import blocks
from bench.clip.text_tower import encode_tokens
from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.shared.attention_lora import AttentionLoRA, ChangedTowers, projections

KEYS, VALUES = slice(32, 64), slice(64, 96)  # of the fixture's towers, which are 32 wide


@pytest.fixture
def towers(small_backbone):
    return ChangedTowers(small_backbone.clip)


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def drawn(towers, rank=3, zero=False) -> AttentionLoRA:
    lora = AttentionLoRA(blocks(towers.clip), rank)
    lora.start(lora.kaiming_bound, Draws("test", "lora", 0), "start")
    if not zero:
        generator = torch.Generator().manual_seed(1)
        for up in (lora.k_B, lora.v_B):
            up.data = 0.1 * torch.randn(up.shape, generator=generator)
    return lora


def test_a_start_is_uniform_and_changes_nothing(towers, small_backbone):
    lora = drawn(towers, zero=True)
    assert not lora.changes(1.0, 1.0).any() and lora.changes(1.0, 1.0).shape == (2, 64, 32)
    for down in (lora.k_A, lora.v_A):
        assert 0.9 * 32**-0.5 < float(down.detach().abs().max()) <= 32**-0.5 and abs(float(down.detach().mean())) < 0.03
    assert not torch.equal(lora.k_A, lora.v_A)
    reference = torch.nn.init.xavier_uniform_(torch.empty(3, 32))
    assert 0.8 * lora.xavier_bound < float(reference.abs().max()) <= lora.xavier_bound
    tokens = small_backbone.tokenize(["a photo of a cat.", "two"])
    towers.change(blocks(towers.clip), lora.changes(1.0, 1.0))
    torch.testing.assert_close(encode_tokens(towers.clip, tokens), encode_tokens(small_backbone.clip, tokens))


def test_keys_and_values_get_the_scaled_products_and_queries_nothing(towers, small_backbone):
    lora = drawn(towers)
    key_scale, value_scale = torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0])
    towers.change(blocks(towers.clip), lora.changes(key_scale, value_scale))
    for i, (ours, theirs) in enumerate(zip(blocks(towers.clip), blocks(small_backbone.clip))):
        changed, frozen = projections(ours), projections(theirs)
        assert torch.equal(changed[:32], frozen[:32])
        torch.testing.assert_close(changed[KEYS], frozen[KEYS] + key_scale[i] * lora.k_B[i] @ lora.k_A[i])
        torch.testing.assert_close(changed[VALUES], frozen[VALUES] + value_scale[i] * lora.v_B[i] @ lora.v_A[i])


def test_a_change_replaces_the_one_before(towers):
    lora = drawn(towers)
    towers.change(blocks(towers.clip), lora.changes(1.0, 1.0))
    once = projections(blocks(towers.clip)[0])
    towers.change(blocks(towers.clip), lora.changes(1.0, 1.0))
    assert torch.equal(projections(blocks(towers.clip)[0]), once)


@pytest.mark.parametrize("image", [True, False])
def test_gradients_are_those_of_low_rank_branches(image, towers, small_backbone, pixels):
    """Against changed copies of the weights; at the start no gradient reaches A."""
    tower = towers.clip.visual if image else towers.clip
    tokens = small_backbone.tokenize(["a photo of a cat.", "two"])

    def output(clip):
        return (clip.encode_image(pixels) if image else encode_tokens(clip, tokens)).square().sum()

    for zero in (True, False):
        lora = drawn(towers, zero=zero)
        towers.change(blocks(tower), lora.changes(0.5, 0.5))
        output(towers.clip).backward()
        clip = small_backbone.trainable_copy()
        own = blocks(clip.visual if image else clip)
        with torch.no_grad():
            for i, block in enumerate(own):
                block.attn.in_proj_weight[KEYS] += 0.5 * lora.k_B[i] @ lora.k_A[i]
                block.attn.in_proj_weight[VALUES] += 0.5 * lora.v_B[i] @ lora.v_A[i]
        output(clip).backward()
        for i, block in enumerate(own):
            of_keys = block.attn.in_proj_weight.grad[KEYS]
            torch.testing.assert_close(lora.k_B.grad[i], 0.5 * of_keys @ lora.k_A[i].T, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(lora.k_A.grad[i], 0.5 * lora.k_B[i].T @ of_keys, rtol=1e-3, atol=1e-4)
        assert bool(lora.v_A.grad.any()) != zero


def test_a_tower_first_used_for_scoring_can_be_trained_afterwards(towers, pixels):
    """As after a resume: what scoring without gradients leaves must not stand in a later backward pass."""
    lora = drawn(towers, zero=True)
    with torch.inference_mode():
        towers.change(blocks(towers.clip.visual), lora.changes(1.0, 1.0))
        towers.clip.encode_image(pixels)
    towers.change(blocks(towers.clip.visual), lora.changes(1.0, 1.0))
    towers.clip.encode_image(pixels).sum().backward()
    assert lora.k_B.grad.any()


def test_the_backbone_keeps_its_weights_and_they_are_not_copied(towers, small_backbone, pixels):
    before = {name: value.clone() for name, value in small_backbone.clip.state_dict().items()}
    features, passes = small_backbone.encode_images(pixels), small_backbone.image_passes
    lora = drawn(towers)
    towers.change(blocks(towers.clip.visual), lora.changes(1.0, 1.0))
    assert not torch.allclose(towers.clip.encode_image(pixels), features)
    assert small_backbone.image_passes == passes + len(pixels)  # counted like its own
    assert torch.equal(small_backbone.encode_images(pixels), features)
    assert all(torch.equal(value, before[name]) for name, value in small_backbone.clip.state_dict().items())
    shared = {id(weights) for weights in small_backbone.clip.parameters()}
    assert {id(weights) for weights in towers.clip.parameters()} < shared


def test_impossible_ranks_and_other_towers_are_refused(towers):
    with pytest.raises(BenchError, match="rank=0"):
        AttentionLoRA(blocks(towers.clip), 0)
    with pytest.raises(BenchError, match="CLIP's own transformers"):
        projections(torch.nn.Linear(2, 2))


def test_numbers_do_not_depend_on_who_else_is_changed(small_backbone, pixels):
    """Two methods of one process each have a CLIP of their own."""
    first, second = ChangedTowers(small_backbone.clip), ChangedTowers(small_backbone.clip)
    lora = drawn(first)
    first.change(blocks(first.clip.visual), lora.changes(1.0, 1.0))
    torch.testing.assert_close(second.clip.encode_image(pixels), small_backbone.encode_images(pixels))
    assert F.mse_loss(first.clip.encode_image(pixels), second.clip.encode_image(pixels)) > 0
