"""A small file of embeddings, sound but for what a test changes."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

NAMES = ("apple", "pear", "plum", "fig")
WIDTH, IMAGES = 6, 3


def tensors(text: bool = True) -> dict[str, np.ndarray]:
    """Four classes of three training and three test images."""
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(NAMES)), IMAGES)
    centres = 3 * draws.normal(size=(len(NAMES), WIDTH))
    images = {split: (centres[labels] + draws.normal(size=(len(labels), WIDTH))).astype("float32") for split in ("train", "test")}
    found = {f"{split}/features": features for split, features in images.items()}
    found |= {f"{split}/labels": labels.copy() for split in images}
    return found | ({"text/features": np.stack([centres, centres + 0.1], axis=1).astype("float32")} if text else {})


def metadata(**changes: str | None) -> dict[str, str]:
    said: dict[str, str | None] = {
        "class_names": json.dumps(NAMES),
        "templates": json.dumps(["a photo of a {}.", "a {} on a plate."]),
        "backbone": "ViT-B-32",
        "weights": "openai",
        "logit_scale": "100.0",
        **changes,
    }
    return {name: text for name, text in said.items() if text is not None}


def write(path: Path, content: dict[str, np.ndarray] | None = None, said: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors() if content is None else content, path, metadata() if said is None else said)
    return path
