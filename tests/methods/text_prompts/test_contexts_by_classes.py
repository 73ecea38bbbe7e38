"""Every (context, class) pair against whole prompts encoded one by one."""

import pytest
import torch

from methods.shared.prompts import ContextPrompts
from methods.text_prompts.contexts_by_classes import encode_contexts_by_classes

NAMES = ["red", "dark gray", "a very light blue", "b"]


def contexts(backbone, b: int, length: int) -> torch.Tensor:
    drawn = torch.randn(b, length, backbone.text_width, generator=torch.Generator().manual_seed(1))
    return (0.3 * drawn).requires_grad_()


def one_by_one(prompts: ContextPrompts, contexts: torch.Tensor) -> torch.Tensor:
    rows = [[prompts.features(context, slice(c, c + 1))[0] for c in range(len(prompts.tokens))] for context in contexts]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("backbone", ["small", "tiny"])
@pytest.mark.parametrize("pairs_at_once", [1000, 8, 3, 1])
def test_features_and_gradients_are_those_of_whole_prompts(small_backbone, tiny, backbone, pairs_at_once):
    backbone = {"small": small_backbone, "tiny": tiny.backbone}[backbone]
    given = contexts(backbone, 3, 4)
    prompts = ContextPrompts(backbone, NAMES, 4)
    expected = one_by_one(prompts, given)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (wanted,) = torch.autograd.grad((expected * weights).sum(), given)

    found = encode_contexts_by_classes(prompts, given, pairs_at_once)
    (gradient,) = torch.autograd.grad((found * weights).sum(), given)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-4)


def test_one_class_one_token_and_no_gradient(small_backbone):
    given = contexts(small_backbone, 2, 1).detach()
    prompts = ContextPrompts(small_backbone, ["red"], 1)
    with torch.inference_mode():
        found = encode_contexts_by_classes(prompts, given, 1)
    torch.testing.assert_close(found, one_by_one(prompts, given), rtol=1e-4, atol=1e-5)


def test_a_name_before_the_context_is_refused(small_backbone):
    prompts = ContextPrompts(small_backbone, NAMES, 2, "front")
    with pytest.raises(ValueError, match="in front of the name"):
        encode_contexts_by_classes(prompts, contexts(small_backbone, 1, 2))


def test_it_computes_in_the_precision_of_whole_blocks(small_backbone, monkeypatch):
    given = contexts(small_backbone, 2, 2).detach()
    prompts = ContextPrompts(small_backbone, NAMES, 2)
    exact = encode_contexts_by_classes(prompts, given)
    for block in small_backbone.clip.transformer.resblocks:
        monkeypatch.setattr(block, "computes_in", ("cpu", torch.bfloat16), raising=False)
    rounded = encode_contexts_by_classes(prompts, given)
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).abs().max() / exact.abs().max()) < 0.05
