"""An architecture small enough to be written to disk in every test: "tiny", and variants of it."""

import json
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP

from bench.clip import architectures

SETTINGS = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 2, "width": 48, "heads": 3},
}
VARIANTS = {
    "tiny": SETTINGS,
    "tiny-quickgelu": SETTINGS | {"quick_gelu": True},
    "tiny-64": SETTINGS | {"vision_cfg": SETTINGS["vision_cfg"] | {"image_size": 64}},
    "tiny-two-heads": SETTINGS | {"text_cfg": SETTINGS["text_cfg"] | {"heads": 2}},
    "tiny-resnet": SETTINGS | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}},
    "tiny-custom-text": SETTINGS | {"custom_text": True},
    "tiny-both-ways": SETTINGS | {"text_cfg": SETTINGS["text_cfg"] | {"no_causal_mask": True}},
}


@pytest.fixture
def tiny_architecture(tmp_path_factory, monkeypatch) -> str:
    """Makes "tiny" and its variants known to the harness; gives the name."""
    folder = tmp_path_factory.mktemp("architectures")
    for name, settings in VARIANTS.items():
        (folder / f"{name}.json").write_text(json.dumps(settings))
    monkeypatch.setattr(architectures, "FOLDERS", [*architectures.FOLDERS, Path(folder)])
    return "tiny"


def random_clip(name: str = "tiny", seed: int = 3) -> CLIP:
    """open_clip's own model of a variant, not the harness's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIP(**{key: value for key, value in VARIANTS[name].items() if key != "custom_text"})
    with torch.no_grad():
        for parameter in clip.parameters():  # biases and norms too: a lost or swapped one must show
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return clip.eval()


def same_numbers(found, clip: CLIP) -> None:
    """A loaded backbone encodes as the model does that its weights came from."""
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.encode_images(pixels), clip.encode_image(pixels), atol=1e-5, rtol=1e-5)
        texts = ["a photo of a cat.", "x"]
        torch.testing.assert_close(found.encode_text(texts), clip.encode_text(found.tokenize(texts)), atol=1e-5, rtol=1e-5)
