"""Learned prompts at their own length against 77 tokens: a text tower as large as ViT-B/16's, 100 class names, 4 context tokens.

pytest tests/benchmarks/test_prompt_length.py -m "slow or not slow"
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.clip import backbone as backbones
from bench.clip.text_tower import read_text
from bench.system import registry
from methods.shared.prompts import ContextPrompts
from tests.benchmarks.side_by_side import fastest_of

CONTEXT = 4
AT_LEAST, LARGEST_DIFFERENCE = 4, 1e-5


def whole_tower(prompts: ContextPrompts, context: torch.Tensor) -> torch.Tensor:
    """The features of all prompts, every block computed on all 77 tokens, as CoOp's code does."""
    clip = prompts.backbone.clip
    embeddings = clip.token_embedding(prompts.tokens)  # (n, 77, w)
    start, rest = embeddings[:, :1], embeddings[:, 1 + len(context) :]
    x = torch.cat([start, context.expand(len(embeddings), -1, -1), rest], dim=1)
    x = clip.transformer(x + clip.positional_embedding, attn_mask=clip.attn_mask)
    return read_text(clip, x[torch.arange(len(x)), prompts.end])


def measured(backbone: backbones.Backbone, names: tuple[str, ...], rounds: dict[str, int]) -> dict[str, float]:
    """Seconds of a forward and a backward pass "at 77 tokens" and "at their own length", the ratio, and the largest differences
    of unit features and of the context's gradient, the latter relative to its largest entry."""
    prompts = ContextPrompts(backbone, names, CONTEXT)
    generator = torch.Generator().manual_seed(0)
    start = 0.02 * torch.randn(CONTEXT, backbone.text_width, generator=generator)
    weights = torch.randn(len(names), backbone.embedding_width, generator=generator).to(backbone.device)
    results = {}

    def step(name: str, encode) -> None:
        context = start.clone().to(backbone.device).requires_grad_()
        features = torch.nn.functional.normalize(encode(context), dim=-1)
        (features * weights).sum().backward()
        results[name] = features.detach(), context.grad

    ways = {"at 77 tokens": lambda context: whole_tower(prompts, context), "at their own length": prompts.features}
    step("warm", prompts.features)
    found = fastest_of({name: lambda name=name, way=way: step(name, way) for name, way in ways.items()}, rounds, backbone.device)
    (whole, whole_gradient), (own, own_gradient) = (results[name] for name in ways)
    assert float(whole_gradient.abs().max()) > 0 and whole_gradient is not own_gradient
    return found | {
        "ratio": found["at 77 tokens"] / found["at their own length"],
        "difference of features": float((whole - own).abs().max()),
        "difference of gradients": float((whole_gradient - own_gradient).abs().max() / whole_gradient.abs().max()),
    }


def check(found: dict[str, float]) -> None:
    check_results(found)
    assert found["ratio"] >= AT_LEAST


def check_results(found: dict[str, float]) -> None:
    assert found["difference of features"] < LARGEST_DIFFERENCE
    assert found["difference of gradients"] < LARGEST_DIFFERENCE


def multiplications(encode, context: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        encode(context)
    return counter.get_total_flops()


def test_same_results_and_a_fraction_of_the_arithmetic():
    """Counted, not timed: among the other tests, on a crowded machine, the ratio of times says nothing."""
    backbone, names = backbones.load("mini", None, "cpu"), registry.load("dataset", "mini60").info.class_names
    check_results(measured(backbone, names, {"at 77 tokens": 1, "at their own length": 1}))
    prompts, context = ContextPrompts(backbone, names, CONTEXT), torch.zeros(CONTEXT, backbone.text_width)
    at_77_tokens = multiplications(lambda context: whole_tower(prompts, context), context)
    assert at_77_tokens >= AT_LEAST * multiplications(prompts.features, context) > 0


@pytest.mark.slow
def test_on_the_mini_clip():
    """Narrow layers, where little is gained by smaller products: still several times faster."""
    names = registry.load("dataset", "mini60").info.class_names
    check(measured(backbones.load("mini", None, "cpu"), names, {"at 77 tokens": 2, "at their own length": 3}))


@pytest.mark.slow
def test_a_text_tower_as_large_as_that_of_vit_b_16():
    """Random weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        names = registry.load("dataset", "cifar100").info.class_names
        found = measured(large_backbone("cpu"), names, {"at 77 tokens": 1, "at their own length": 3})
        print({name: round(value, 8) for name, value in found.items()})
        check(found)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    names = registry.load("dataset", "cifar100").info.class_names
    check(measured(large_backbone("cuda"), names, {"at 77 tokens": 3, "at their own length": 3}))


def large_backbone(device: str) -> backbones.Backbone:
    return backbones.load("ViT-B-16", "none", device, "float32")
