"""OpenAI's own CLIP, where its weights are at hand: the numbers that others have published for it.

    BENCH_CLIP_VITB32=ViT-B-32.pt BENCH_CLIP_RN50=RN50.pt python -m pytest tests/bench/clip/test_golden_clip.py

Each variable names what --pretrained would: OpenAI's archive, an open_clip file or a folder. Without it, the weights of
the tag `openai` are taken if an earlier run has downloaded them; nothing is downloaded here.
"""

import os
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from bench.clip import backbone as backbones

FOLDER = Path(__file__).parent / "golden-clip"
TOLERANCES = {  # (device, precision) -> largest error of a feature, of a probability, of a sum over a feature's components
    ("cpu", "float32"): (1e-4, 1e-4, 1e-3),
    ("cuda", "float32"): (1e-3, 1e-3, 1e-2),
    ("cuda", "float16"): (2e-2, 5e-3, 2e-1),
    ("cuda", "bfloat16"): (1.6e-1, 4e-2, 1.6),  # its mantissa is eight times as coarse as float16's
}


def weights_of(architecture: str, variable: str) -> str:
    """What --pretrained should name; skips the test if there is nothing."""
    if os.environ.get(variable):
        return os.environ[variable]
    from huggingface_hub import try_to_load_from_cache

    repository = open_clip.get_pretrained_cfg(architecture, "openai")["hf_hub"].strip("/")
    for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return found
    archive = Path(open_clip.get_pretrained_url(architecture, "openai")).name
    if (Path.home() / ".cache" / "clip" / archive).is_file():
        return str(Path.home() / ".cache" / "clip" / archive)
    pytest.skip(f"OpenAI's weights of {architecture} are not on this machine: name their file or folder in {variable}")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / "golden.npz", allow_pickle=False))


@pytest.fixture(params=[pytest.param(key, marks=[pytest.mark.cuda] * (key[0] == "cuda"), id="-".join(key)) for key in TOLERANCES])
def where(request) -> tuple[str, str]:
    """Device and precision."""
    if request.param[0] == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def load(architecture: str, variable: str, where: tuple[str, str]) -> backbones.Backbone:
    """The -quickgelu name serves files that do not say which activation they need."""
    return backbones.load(f"{architecture}-quickgelu", weights_of(architecture, variable), *where)


def test_image_and_text_features_and_probabilities_of_vit_b_32(golden, where):
    clip = load("ViT-B-32", "BENCH_CLIP_VITB32", where)
    features, probability, _ = TOLERANCES[where]
    with Image.open(FOLDER / "CLIP.png") as picture:
        pixels = clip.preprocess([np.array(picture.convert("RGB"))])
    images, texts = clip.encode_images(pixels), clip.encode_text(list(golden["texts"]))
    np.testing.assert_allclose(images.cpu(), golden["image_features"], atol=features, rtol=0)
    np.testing.assert_allclose(texts.cpu(), golden["text_features"], atol=features, rtol=0)
    cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    found = (clip.logit_scale * cosines).softmax(dim=-1)
    np.testing.assert_allclose(found.cpu(), golden["probs"], atol=probability, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "variable", "key"),
    [("ViT-B-32", "BENCH_CLIP_VITB32", "vitb32"), ("RN50", "BENCH_CLIP_RN50", "rn50")],
)
def test_text_features_of_a_second_source(golden, where, architecture, variable, key):
    clip = load(architecture, variable, where)
    features, _, total = TOLERANCES[where]
    found = clip.encode_text(list(golden["vitb32_man_woman_texts"])).cpu()
    np.testing.assert_allclose(found[0, :5], golden[f"{key}_man_first5"], atol=features, rtol=0)
    np.testing.assert_allclose(found.sum(dim=1), golden[f"{key}_man_woman_sums"], atol=total, rtol=0)


def test_the_stored_numbers_belong_together(golden):
    """Needs no weights: logits and probabilities follow from the stored features, and are those of OpenAI's read-me."""
    image = golden["image_features"] / np.linalg.norm(golden["image_features"], axis=1, keepdims=True)
    texts = golden["text_features"] / np.linalg.norm(golden["text_features"], axis=1, keepdims=True)
    logits = 100 * image @ texts.T
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
    weights = np.exp(logits - logits.max())
    np.testing.assert_allclose(weights / weights.sum(), golden["probs"], atol=1e-6)
    np.testing.assert_allclose(golden["probs"][0], [0.9927937, 0.00421068, 0.00299572], atol=1e-6)
