"""Mixed precision: what is rounded and what is not, and that CPU and GPU agree."""

import numpy as np
import pytest
import torch

from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone, encode_tokens
from bench.clip.image_tower import blocks, image_tokens, pool_image, project_image
from bench.clip.precision import resolve_precision
from bench.errors import BenchError
from bench.images.sources import ImageSource
from bench.streams.features import FeatureStore
from tests.bench.clip.tiny_architecture import random_clip

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
TEXTS = ["a photo of a cat.", "the quick brown fox", "x"]

# The tolerances that the README states: the largest difference of a feature, as a part of the largest feature.
FLOAT32_TOLERANCE = 1e-4
BFLOAT16_TOLERANCE = 2e-2


def backbone_of(clip, like: Backbone, precision: str = "float32", device: str = "cpu") -> Backbone:
    return Backbone("test", "none", clip, like.tokenizer, like.transform, f"test-{precision}", device, precision)


def both(like: Backbone, precision: str, device: str = "cpu", variant: str = "tiny") -> tuple[Backbone, Backbone]:
    """The same weights in float32 on the CPU, and as asked for."""
    return backbone_of(random_clip(variant), like), backbone_of(random_clip(variant), like, precision, device)


def pixels() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert found.dtype == torch.float32
    return float((found.cpu() - wanted).abs().max() / wanted.abs().max())


# -- which precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "device", "hardware_bfloat16", "chosen"),
    [
        ("auto", "cpu", True, "float32"),
        ("auto", "cuda", True, "bfloat16"),
        ("auto", "cuda:1", False, "float16"),
        ("float32", "cuda", True, "float32"),
        ("float16", "cuda", True, "float16"),
        ("bfloat16", "cpu", False, "bfloat16"),
    ],
)
def test_auto_is_float32_on_the_cpu_and_half_on_a_gpu(monkeypatch, asked, device, hardware_bfloat16, chosen):
    def supported(including_emulation: bool = True) -> bool:
        return hardware_bfloat16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_precision(asked, device) == chosen


@pytest.mark.parametrize(("asked", "message"), [("float16", "for CUDA devices"), ("half", "choose one of auto, float32")])
def test_a_precision_that_cannot_be_had_is_refused(asked, message):
    with pytest.raises(BenchError, match=message):
        backbones.load("mini", None, "cpu", asked)


def test_the_precision_reaches_the_backbone_its_facts_and_the_key_of_its_features():
    plain, mixed = backbones.load("mini", None, "cpu"), backbones.load("mini", None, "cpu", "bfloat16")
    assert (plain.precision, mixed.precision) == ("float32", "bfloat16")
    assert (plain.arithmetic, mixed.arithmetic) == ("cpu-float32-gelu", "cpu-bfloat16-gelu")
    assert mixed.facts["precision"] == "bfloat16"


# -- mixed precision, tried on the CPU --------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["tiny", "tiny-quickgelu", "tiny-resnet"])
def test_mixed_features_are_float32_and_near_those_of_float32(small_backbone, variant):
    plain, mixed = both(small_backbone, "bfloat16", variant=variant)
    images = difference(mixed.encode_images(pixels()), plain.encode_images(pixels()))
    texts = difference(mixed.encode_text(TEXTS), plain.encode_text(TEXTS))
    assert 0 < images < BFLOAT16_TOLERANCE and 0 < texts < BFLOAT16_TOLERANCE


def test_only_the_blocks_are_rounded(small_backbone):
    plain, mixed = both(small_backbone, "bfloat16")
    seen = {}

    def note(name):
        def remember(module, inputs, output) -> None:
            seen.setdefault(name, (inputs[0].dtype, output.dtype))

        return remember

    visual = mixed.clip.visual
    for name, module in (("first", visual.conv1), ("mlp", blocks(visual)[0].mlp.c_fc), ("norm", visual.ln_post)):
        module.register_forward_hook(note(name))
    for block in blocks(visual):
        block.register_forward_hook(note("block"))
    mixed.encode_images(pixels())
    assert seen["mlp"][1] == torch.bfloat16
    assert seen["first"] == seen["norm"] == (torch.float32, torch.float32)
    assert seen["block"][0] == torch.float32
    assert torch.equal(image_tokens(visual, pixels()), image_tokens(plain.clip.visual, pixels()))
    assert not torch.is_autocast_enabled("cpu")


def test_blocks_run_one_by_one_are_mixed_too(small_backbone):
    _, mixed = both(small_backbone, "bfloat16")
    visual = mixed.clip.visual
    with torch.no_grad():
        x = image_tokens(visual, pixels())
        for block in blocks(visual):
            x = block(x)
        by_hand = project_image(visual, pool_image(visual, x))
    assert torch.equal(by_hand, mixed.encode_images(pixels()))


def test_a_trainable_copy_is_mixed_and_keeps_float32_weights_and_gradients(small_backbone):
    plain, mixed = both(small_backbone, "bfloat16")
    gradients = []
    for backbone in (plain, mixed):
        clip = backbone.trainable_copy()
        images = clip.encode_image(pixels())
        texts = encode_tokens(clip, backbone.tokenize(TEXTS))
        (images @ texts.T).square().mean().backward()
        weights = clip.visual.transformer.resblocks[0].mlp.c_fc.weight
        assert weights.dtype == weights.grad.dtype == torch.float32
        gradients.append(torch.cat([p.grad.flatten() for p in clip.parameters() if p.grad is not None]))
    assert not torch.equal(*gradients)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


def test_gradients_reach_learned_prompts_through_mixed_blocks(small_backbone):
    found = []
    for backbone in both(small_backbone, "bfloat16"):
        tokens = backbone.tokenize(TEXTS)
        embeddings = backbone.embed_tokens(tokens).clone().requires_grad_()
        backbone.encode_embedded(embeddings, tokens.argmax(dim=-1)).square().sum().backward()
        found.append(embeddings.grad.flatten())
    assert found[1].dtype == torch.float32 and not torch.equal(*found)
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999


def test_float16_mixes_only_where_no_gradient_flows(small_backbone):
    plain, half = both(small_backbone, "float16")  # a GPU's setting; the CPU can carry it out
    embedded = plain.embed_tokens(plain.tokenize(TEXTS)), plain.tokenize(TEXTS).argmax(dim=-1)
    assert torch.equal(half.encode_embedded(*embedded), plain.encode_embedded(*embedded))
    with torch.no_grad():
        assert not torch.equal(half.encode_embedded(*embedded), plain.encode_embedded(*embedded))


def test_a_block_that_fails_leaves_nothing_switched(small_backbone):
    _, mixed = both(small_backbone, "bfloat16")
    with pytest.raises(RuntimeError):
        blocks(mixed.clip.visual)[0](torch.zeros(1, 2, 7))
    assert not torch.is_autocast_enabled("cpu")
    assert difference(mixed.encode_images(pixels()), random_clip().encode_image(pixels()).detach()) < BFLOAT16_TOLERANCE


def test_the_feature_store_keeps_precisions_apart(small_backbone, tmp_path):
    source = ImageSource.from_arrays(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8), np.arange(3))
    found = []
    for precision in ("float32", "bfloat16"):
        backbone = backbone_of(random_clip(), small_backbone, precision)
        backbone.digest = "the same weights"
        found.append(np.array(FeatureStore(backbone, tmp_path).features(source)))
    assert found[0].dtype == found[1].dtype == np.float32 and not np.array_equal(*found)


# -- on a GPU ---------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", FLOAT32_TOLERANCE), ("auto", BFLOAT16_TOLERANCE)])
def test_features_of_cpu_and_cuda_agree(precision, tolerance):
    cpu, cuda = backbones.load("mini", None, "cpu"), backbones.load("mini", None, "cuda", precision)
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    wanted = cpu.encode_images(cpu.preprocess(images)), cpu.pool_images(cpu.preprocess(images)), cpu.encode_text(TEXTS)
    found = cuda.encode_images(cuda.preprocess(images)), cuda.pool_images(cuda.preprocess(images)), cuda.encode_text(TEXTS)
    for one, other in zip(found, wanted):
        assert one.is_cuda and difference(one, other) < tolerance


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize(("precision", "cosine"), [("float32", 0.99999), ("auto", 0.999)])
def test_gradients_of_cpu_and_cuda_agree(small_backbone, precision, cosine):
    found = []
    for backbone in both(small_backbone, resolve_precision(precision, "cuda"), "cuda"):
        tokens = backbone.tokenize(TEXTS)
        embeddings = backbone.embed_tokens(tokens).clone().requires_grad_()
        backbone.encode_embedded(embeddings, tokens.argmax(dim=-1)).square().sum().backward()
        found.append(embeddings.grad.flatten().cpu())
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > cosine


@pytest.mark.cuda
@needs_cuda
def test_a_run_on_cuda_scores_as_one_on_the_cpu(bench, tmp_path):
    """Zero-shot accuracy of a small run: a borderline image may change sides, not more."""
    import csv

    accuracies = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        found = bench(
            "run", "--protocol", "mini60-6x10", "--methods", "zero-shot,coop", "--device", device, "--limit-train", "4",
            "--limit-test", "4", "--out", out,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        rows = [row for path in out.rglob("records.csv") for row in csv.DictReader(path.open())]
        accuracies[device] = np.mean([float(row["value"]) for row in rows if row["method"] == "zero-shot"])
    assert abs(accuracies["cpu"] - accuracies["cuda"]) < 0.01
