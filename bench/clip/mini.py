"""The miniature CLIP that ships with the package: open_clip's own model, 1.5 million parameters, 32-pixel images.

One departure from a plain vision transformer: `visual.conv1`, the patch embedding, is a stem of three convolutions.
All other state-dict names are open_clip's. The weights file holds half-precision tensors and only those rows of the
token embedding that pretraining saw; `untrained_rows` fills in the others by a fixed rule.
"""

from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from bench.clip.tower_sizes import MINI
from bench.errors import one_line

WEIGHTS = Path(__file__).parent / "weights" / "mini-clip.safetensors"
CONFIG: dict = MINI
IMAGE_SIZE: int = CONFIG["vision_cfg"]["image_size"]
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's, for pixels in [0, 1]
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
_TABLE = "token_embedding.weight"
_ROWS, _IDS = "token_embedding.trained_rows", "token_embedding.trained_ids"


def stem(width: int) -> nn.Sequential:
    """The patch embedding: (batch, 3, 32, 32) -> (batch, width, 4, 4)."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),  # (batch, 24, 16, 16)
        nn.GroupNorm(8, 24),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, stride=2, padding=1, bias=False),  # (batch, 48, 8, 8)
        nn.GroupNorm(8, 48),
        nn.ReLU(),
        nn.Conv2d(48, width, 3, stride=2, padding=1, bias=False),  # (batch, width, 4, 4)
    )


def build(vocab_size: int = CONFIG["text_cfg"]["vocab_size"]) -> CLIP:
    """The model with random weights; pretraining asks for a smaller vocabulary."""
    text = CONFIG["text_cfg"] | {"vocab_size": vocab_size}
    model = CLIP(embed_dim=CONFIG["embed_dim"], vision_cfg=CONFIG["vision_cfg"], text_cfg=text)
    model.visual.conv1 = stem(CONFIG["vision_cfg"]["width"])
    return model


def preprocess(images: np.ndarray) -> torch.Tensor:
    """uint8 images (n, 32, 32, 3) -> normalised float tensor (n, 3, 32, 32)."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)


def untrained_rows(token_ids: np.ndarray, width: int, std: float) -> np.ndarray:
    """Embedding rows (n, width) for words that pretraining never saw: normal noise that depends on the id alone.

    Element c of row t is a Box-Muller draw from two splitmix64 hashes of the counter t * width + c. The rule is
    spelled out here, and not left to a library's generator, so that the rows never change.
    """

    def uniform(counter: np.ndarray) -> np.ndarray:
        z = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53 + 2**-54

    def rows(ids: np.ndarray) -> np.ndarray:
        element = ids.astype(np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)  # (n, width)
        radius = np.sqrt(-2 * np.log(uniform(2 * element)))
        return (std * radius * np.cos(2 * np.pi * uniform(2 * element + np.uint64(1)))).astype(np.float32)

    # a few rows at a time stay in the processor's cache, and starting a run waits for this
    return np.concatenate([rows(token_ids[start : start + 256]) for start in range(0, len(token_ids), 256)])


def save(state: dict[str, torch.Tensor], token_ids: list[int], path: Path, metadata: dict[str, str]) -> None:
    """Write a state dict whose embedding table has one row per entry of `token_ids`, in half precision."""
    tensors = {name: tensor.half().contiguous() for name, tensor in state.items() if name != _TABLE}
    tensors[_ROWS] = state[_TABLE].half().contiguous()
    tensors[_IDS] = torch.tensor(token_ids, dtype=torch.int32)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.chmod(0o644)  # safetensors writes files that only their owner may read
    partial.replace(path)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no miniature CLIP weights at {path}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"the miniature CLIP weights at {path} are damaged: {one_line(error)}") from error
    missing = {_ROWS, _IDS} - set(tensors)
    if missing:
        raise ValueError(f"{path} does not hold miniature CLIP weights: no {', '.join(sorted(missing))}")
    return tensors


def load(path: Path = WEIGHTS) -> CLIP:
    """The pretrained model in single precision and evaluation mode."""
    tensors = _read(path)
    rows, ids = tensors.pop(_ROWS).float(), tensors.pop(_IDS).long()
    state = {name: tensor.float() for name, tensor in tensors.items()}
    size, width = CONFIG["text_cfg"]["vocab_size"], CONFIG["text_cfg"]["width"]
    if len(ids) and not (ids.min() >= 0 and ids.max() < size):
        raise ValueError(f"the miniature CLIP weights at {path} do not fit the model: token ids beyond its {size} words")
    if rows.shape != (len(ids), width):
        raise ValueError(f"the miniature CLIP weights at {path} do not fit the model: token rows {tuple(rows.shape)}")
    state[_TABLE] = torch.from_numpy(untrained_rows(np.arange(size), width, float(rows.std())))
    state[_TABLE][ids] = rows
    model = build()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = one_line(error)
        raise ValueError(f"the miniature CLIP weights at {path} do not fit the model: {reason}") from error
    return model.eval()
