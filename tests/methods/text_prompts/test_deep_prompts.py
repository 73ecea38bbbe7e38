"""MaPLe's prompts against a literal transcription: hooks that exchange tokens inside CLIP's own forward passes."""

import contextlib

import pytest
import torch

from bench.clip.image_tower import blocks
from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.shared.prompts import context_from_words
from methods.text_prompts.deep_prompts import DeepPrompts

NAMES = ["red", "dark gray", "blue"]
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(backbone, **options) -> DeepPrompts:
    deep = DeepPrompts(backbone, Draws("test", "maple", 0), **{"depth": 2, **options})
    with torch.no_grad():  # far enough from nothing to be seen in the result
        deep.deeper.mul_(30)
    return deep


@contextlib.contextmanager
def before(modules, changes):
    """Runs modules with their first input changed."""
    handles = [m.register_forward_pre_hook(lambda _, args, f=f: (f(args[0]), *args[1:])) for m, f in zip(modules, changes)]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("length", [1, 2])
def test_text_features_are_clip_s_own_with_exchanged_tokens(small_backbone, depth, length):
    deep = build(small_backbone, depth=depth, length=length)
    prompts = deep.prompts(NAMES)
    assert torch.equal(prompts.tokens, small_backbone.tokenize([f"a photo of a {name}." for name in NAMES]))

    def exchange(prompt):
        def change(x):
            x = x.clone()
            x[:, 1 : 1 + length] = prompt
            return x

        return change

    with torch.no_grad(), before(blocks(small_backbone.clip)[1:], [exchange(prompt) for prompt in deep.deeper]):
        clip, x = small_backbone.clip, exchange(deep.context)(small_backbone.embed_tokens(prompts.tokens))
        n = x.shape[1]
        x = clip.transformer(x + clip.positional_embedding[:n], attn_mask=clip.attn_mask[:n, :n])
        expected = clip.ln_final(x)[torch.arange(len(x)), prompts.end] @ clip.text_projection
    torch.testing.assert_close(deep.text_features(prompts), expected)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("length", [1, 3])
def test_image_features_are_clip_s_own_with_appended_tokens(small_backbone, depth, length):
    deep = build(small_backbone, depth=depth, length=length)
    visual = small_backbone.clip.visual

    def append(x):
        return torch.cat([x, deep.projection(deep.context).expand(len(x), -1, -1)], dim=1)

    def exchange(prompt):
        def change(x):
            x = x.clone()
            x[:, -length:] = prompt
            return x

        return change

    deeper = [linear(prompt) for linear, prompt in zip(deep.deeper_projections, deep.deeper)]
    modules, changes = [visual.ln_pre, *blocks(visual)[1:]], [append, *map(exchange, deeper)]
    with torch.no_grad(), before(modules, changes):
        expected = small_backbone.encode_images(PIXELS)
    torch.testing.assert_close(deep.image_features(PIXELS), expected)
    assert not torch.allclose(expected, small_backbone.encode_images(PIXELS))


def test_the_input_prompt_starts_as_the_first_words(small_backbone):
    words = context_from_words(small_backbone, "a photo of a")
    assert torch.equal(build(small_backbone, length=3).context, words[:3])


@pytest.mark.parametrize(("length", "words"), [(5, "a photo of a"), (2, None)])
def test_without_enough_words_it_starts_from_a_draw_and_placeholders_hold_the_place(small_backbone, length, words):
    deep = build(small_backbone, length=length, words=words)
    assert deep.context.shape == (length, small_backbone.text_width)
    assert 0.01 < float(deep.context.detach().std()) < 0.03
    texts = [" ".join(["X"] * length) + f" {name}." for name in NAMES]
    assert torch.equal(deep.prompts(NAMES).tokens, small_backbone.tokenize(texts))


def test_deeper_projections_start_as_copies_of_each_other(tiny):
    deep = DeepPrompts(tiny.backbone, Draws("test", "maple", 0), depth=3)
    first, second = deep.deeper_projections
    assert torch.equal(first.weight, second.weight) and first.weight is not second.weight
    assert not torch.equal(first.weight, deep.projection.weight)
    again = DeepPrompts(tiny.backbone, Draws("test", "maple", 0), depth=3)
    assert all(torch.equal(a, b) for a, b in zip(deep.parameters(), again.parameters()))


def test_only_the_input_prompt_can_be_left_trainable(small_backbone):
    deep = build(small_backbone, only_shallow=True)
    assert [name for name, weights in deep.named_parameters() if weights.requires_grad] == ["context"]


@pytest.mark.parametrize("options", [{"depth": 0}, {"depth": 3}, {"length": 0}])
def test_impossible_sizes_are_refused(small_backbone, options):
    with pytest.raises(BenchError, match="prompt (depth|length)"):
        build(small_backbone, **options)
