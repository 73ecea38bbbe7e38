"""How large the towers of a CLIP are, by its architecture's settings alone: no torch, no weights.

Exact for a ViT with CLIP's own text tower, but for scales and biases of its norms; of other image towers nothing is said.

>>> vit = tower_sizes("ViT-B-16")
>>> round(vit.parameters / 1e6), vit.width, vit.pooled, vit.image_tokens  # 149.6 million by open_clip
(150, 512, 768, 197)
>>> tower_sizes("RN50") is None
True
"""

from dataclasses import dataclass
from typing import Any

from bench.clip.architectures import settings_of

MINI: dict[str, Any] = {  # of the CLIP that ships with the package
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 3},
}
ROWS_KEPT = 20  # activations of a token's width that a block keeps for the backward pass, about


@dataclass(frozen=True)
class TowerSizes:
    """Numbers, not bytes. width: of an embedding; pooled: of an image before the projection."""

    image_parameters: int
    text_parameters: int
    width: int
    pooled: int
    text_width: int
    image_tokens: int
    image_size: int
    image_layers: int
    text_layers: int

    @property
    def parameters(self) -> int:
        return self.image_parameters + self.text_parameters

    @property
    def kept_of_an_image(self) -> int:
        """Activations that the backward pass of the image tower needs."""
        return self.image_tokens * self.pooled * self.image_layers * ROWS_KEPT

    def kept_of_a_prompt(self, tokens: int) -> int:
        """The same of a text of so many tokens."""
        return tokens * self.text_width * self.text_layers * ROWS_KEPT


def embedding_width(backbone: str) -> int:
    """Numbers in one embedding."""
    return int((MINI if backbone == "mini" else settings_of(backbone))["embed_dim"])


def tower_sizes(backbone: str) -> TowerSizes | None:
    """Of an architecture; None where its image tower is no ViT."""
    settings = MINI if backbone == "mini" else settings_of(backbone)
    image, text = settings["vision_cfg"], settings["text_cfg"]
    if not isinstance(image.get("layers"), int) or "patch_size" not in image or "timm_model_name" in image:
        return None
    d, w, t = int(settings["embed_dim"]), int(image["width"]), int(text["width"])
    size, patch = int(image["image_size"]), int(image["patch_size"])
    tokens = (size // patch) ** 2 + 1
    of_image = 3 * patch * patch * w + tokens * w + _blocks(w, image["layers"], image.get("mlp_ratio", 4.0)) + w * d
    of_text = text.get("vocab_size", 49408) * t + text.get("context_length", 77) * t + _blocks(t, text["layers"], 4.0) + t * d
    return TowerSizes(int(of_image), int(of_text), d, w, t, tokens, size, int(image["layers"]), int(text["layers"]))


def _blocks(width: int, layers: int, ratio: float) -> float:
    """Attention has four matrices of width x width, the two of the perceptron hold 2 x ratio of them; biases and norms."""
    return layers * ((4 + 2 * ratio) * width * width + (9 + ratio) * width)
