"""Weights files: their tensors, under open_clip's names.

Read are state dicts saved by torch (as they are or inside a training checkpoint), safetensors, and TorchScript archives.
Nothing in a file is ever run: torch.load is held to tensors, and a TorchScript archive is read without its program.
"""

import pickle
from pathlib import Path

import torch

from bench import torchscript
from bench.errors import BenchError

Tensors = dict[str, torch.Tensor]

_NOT_WEIGHTS = ("attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size")  # of older files
_OPENAI_MARKS = {"input_resolution", "context_length", "vocab_size"}  # only OpenAI's archives have these beside the weights
_HUGGING_FACE_MARK = "text_model.embeddings.token_embedding.weight"


def read(path: Path) -> Tensors:
    """The tensors of a weights file under their own names, without what wrappers and training loops put around them."""
    try:
        found = _read(path)
    except BenchError:
        raise
    except pickle.UnpicklingError as error:
        raise BenchError(f"{path}: refused, it holds more than tensors or is damaged ({_first_line(error)})") from error
    except Exception as error:  # torch, zipfile and safetensors each have their own ways to fail on damaged bytes
        raise BenchError(f"{path}: no weights can be read, the file is damaged or cut short ({_first_line(error)})") from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise BenchError(f"{path}: holds no state dict; save the model's state_dict() with torch.save or as safetensors")
    for prefix in ("module.", "_orig_mod."):  # torch's DistributedDataParallel and torch.compile
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _read(path: Path):
    if torchscript.is_archive(path):
        return torchscript.read(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def is_openai(tensors: Tensors) -> bool:
    """Whether OpenAI published these tensors: then they need QuickGELU."""
    return _OPENAI_MARKS <= tensors.keys()


def is_hugging_face(tensors: Tensors) -> bool:
    """Whether the names are those of transformers' CLIPModel."""
    return _HUGGING_FACE_MARK in tensors


def to_open_clip(tensors: Tensors) -> Tensors:
    """The weights alone, with the text tower's names where open_clip's CLIP class has them: beside `visual`, not in `text`."""
    weights = {name: tensor for name, tensor in tensors.items() if name not in _NOT_WEIGHTS}
    if "token_embedding.weight" in weights:
        return weights
    return {name.removeprefix("text."): tensor for name, tensor in weights.items()}


def fit(clip: torch.nn.Module, tensors: Tensors, path: Path, name: str) -> None:
    """Load weights into the model of that name; every tensor must be there, in its shape, and none besides."""
    wanted = clip.state_dict()
    weights = dict(tensors)
    for scalar in ("logit_scale", "logit_bias"):  # some files have (1,) where the model has (), or the other way round
        if scalar in weights and scalar in wanted and weights[scalar].numel() == 1:
            weights[scalar] = weights[scalar].reshape(wanted[scalar].shape)
    for counter in wanted:  # batch normalisation's step counter, which older files lack; it has no effect in a frozen tower
        if counter.endswith("num_batches_tracked"):
            weights.setdefault(counter, wanted[counter])
    differing = [
        f"{key} is {tuple(weights[key].shape)} in the file and {tuple(tensor.shape)} in {name}"
        for key, tensor in wanted.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    missing = [f"{key} is not in the file" for key in wanted if key not in weights]
    surplus = [f"{key} is not in {name}" for key in weights if key not in wanted]
    if len(missing) == len(wanted):
        raise BenchError(f"{path}: holds no CLIP weights (its tensors: {', '.join(list(tensors)[:3]) or 'none'}, ...)")
    complaints = differing + missing + surplus
    if complaints:
        more = f"; and {len(complaints) - 3} more" if len(complaints) > 3 else ""
        raise BenchError(
            f"{path} does not fit {name}: {'; '.join(complaints[:3])}{more}. "
            "Name the architecture that these weights were made for with --backbone"
        )
    clip.load_state_dict(weights)
