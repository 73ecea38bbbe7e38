"""The text tower computed only where it is read, against the whole tower."""

import pytest
import torch
from open_clip.model import CLIP

from bench.clip import text_tower
from bench.clip.text_tower import encode_embedded, encode_tokens, has_plain_blocks, prompt_length
from methods.shared.prompts import ContextPrompts, context_from_words
from tests.bench.clip.tiny_architecture import random_clip

TEXTS = ["a photo of a cat.", "x", "a photo of a very long name with many words.", "a photo of a dog.", "one two"]


@pytest.fixture(params=["tiny", "tiny-quickgelu"])
def clip(request) -> CLIP:
    return random_clip(request.param).double()


def whole_tower(clip: CLIP, embeddings: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Every block on every token, as open_clip does it."""
    length = embeddings.shape[1]
    x = clip.transformer(embeddings + clip.positional_embedding[:length], attn_mask=clip.attn_mask[:length, :length].double())
    return clip.ln_final(x)[torch.arange(len(x)), end] @ clip.text_projection


def test_prompts_of_every_length_equal_open_clips_own_encoding(clip, small_backbone):
    tokens = small_backbone.tokenize(TEXTS)
    torch.testing.assert_close(encode_tokens(clip, tokens), clip.encode_text(tokens), rtol=1e-10, atol=1e-12)


def test_a_prompt_does_not_depend_on_its_neighbours(clip, small_backbone):
    tokens = small_backbone.tokenize(TEXTS)
    alone = torch.cat([encode_tokens(clip, row[None]) for row in tokens])
    torch.testing.assert_close(encode_tokens(clip, tokens), alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shared", [1, 3, 5, 60])
def test_shared_tokens_get_the_gradients_of_all_prompts(clip, small_backbone, shared):
    tokens = small_backbone.tokenize(TEXTS)
    start = clip.token_embedding(tokens[:1, : min(shared, 10)]).detach()
    weights = torch.randn(len(TEXTS), 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for encode in (whole_tower, lambda *given: encode_embedded(*given, shared=min(shared, 10))):
        own = clip.token_embedding(tokens[:, start.shape[1] : prompt_length(tokens)]).detach().requires_grad_()
        first = start.clone().requires_grad_()
        clip.zero_grad()
        end = tokens.argmax(dim=-1).clamp_min(start.shape[1])
        features = encode(clip, torch.cat([first.expand(len(TEXTS), -1, -1), own], dim=1), end)
        (features * weights).sum().backward()
        weight = clip.transformer.resblocks[0].attn.in_proj_weight.grad.clone()
        found.append((features.detach(), first.grad, own.grad, weight))
    for whole, part in zip(*found):
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-11)


def test_chunks_with_recomputation_give_the_same_features_and_gradients(clip, small_backbone, monkeypatch):
    tokens = small_backbone.tokenize(TEXTS)
    weights = torch.randn(len(TEXTS), 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calls = []
    original = text_tower._only_what_is_read
    monkeypatch.setattr(text_tower, "_only_what_is_read", lambda clip, x, *rest: calls.append(len(x)) or original(clip, x, *rest))
    found = []
    for kept in (text_tower.KEPT_BYTES, 20 * 8 * 2 * clip.transformer.width * 16):
        monkeypatch.setattr(text_tower, "KEPT_BYTES", kept)
        clip.zero_grad()
        features = encode_tokens(clip, tokens)
        (features * weights).sum().backward()
        found.append((features.detach(), *(block.attn.in_proj_weight.grad.clone() for block in clip.transformer.resblocks)))
    once, *chunked = calls
    half = len(chunked) // 2
    assert once == len(TEXTS) and half > 1 and sum(chunked[:half]) == sum(chunked[half:]) == len(TEXTS)
    for whole, part in zip(*found):
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-11)


def test_without_gradients_nothing_is_cut(clip, small_backbone, monkeypatch):
    monkeypatch.setattr(text_tower, "KEPT_BYTES", 1)
    monkeypatch.setattr(text_tower, "checkpoint", None)
    with torch.no_grad():
        assert encode_tokens(clip, small_backbone.tokenize(TEXTS)).shape == (len(TEXTS), 24)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_learned_contexts_equal_the_whole_tower(small_backbone, position, class_specific):
    names = ["cat", "very long name", "dog", "aquarium fish"]
    prompts = ContextPrompts(small_backbone, names, 4, position)
    context = context_from_words(small_backbone, "some words to start")
    context = torch.stack([context + k for k in range(len(names))]) if class_specific else context
    each = context if class_specific else context.expand(len(names), -1, -1)
    x = torch.cat([prompts.embeddings[:, :1], each, prompts.embeddings[:, 5:]], dim=1)
    x = x.gather(1, prompts.slots.unsqueeze(-1).expand_as(x))
    length = x.shape[1]
    clip = small_backbone.clip
    y = clip.transformer(x + clip.positional_embedding[:length], attn_mask=clip.attn_mask[:length, :length])
    expected = clip.ln_final(y)[torch.arange(len(names)), prompts.end] @ clip.text_projection
    torch.testing.assert_close(prompts.features(context), expected, rtol=1e-4, atol=1e-5)


def test_towers_of_other_blocks_run_whole(small_backbone):
    class OtherBlock(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def get_weight_dtype(self):
            return self.block.get_weight_dtype()

        def forward(self, x, attn_mask=None):
            return 2 * self.block(x, attn_mask=attn_mask)

    clip = random_clip("tiny")
    assert has_plain_blocks(clip)
    clip.transformer.resblocks[0] = OtherBlock(clip.transformer.resblocks[0])
    assert not has_plain_blocks(clip)
    tokens = small_backbone.tokenize(TEXTS)
    torch.testing.assert_close(encode_tokens(clip, tokens), clip.encode_text(tokens), rtol=1e-4, atol=1e-5)
