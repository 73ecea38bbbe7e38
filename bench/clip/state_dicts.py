"""Weights files: their tensors, under open_clip's names.

Read are state dicts saved by torch (as they are or inside a training checkpoint), safetensors, and TorchScript archives.
Nothing in a file is ever run: torch.load is held to tensors, and a TorchScript archive is read without its program.
"""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from bench.clip import torchscript, wrapped
from bench.clip.wrapped import Found, NoClip, Tensors, few, was_added
from bench.errors import BenchError, first_line, printable
from bench.system import file_kinds

PICKLE = b"\x80"  # how torch's files from before 1.6 begin

_NOT_WEIGHTS = ("attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size")  # of older files
_OPENAI_MARKS = {"input_resolution", "context_length", "vocab_size"}  # only OpenAI's archives have these beside the weights
_HUGGING_FACE_MARK = "text_model.embeddings.token_embedding.weight"


def read(path: Path) -> Found:
    """The tensors of the one CLIP in a weights file under its own names, and what lay beside them."""
    try:
        content = _read(path)
    except BenchError:
        raise
    except pickle.UnpicklingError as error:
        raise BenchError(
            f"{path}: refused, it holds a pickled program and not tensors alone{_asked_for(error)}, or is damaged; save the "
            "model's state_dict() with torch.save, or as safetensors"
        ) from error
    except Exception as error:  # torch, zipfile and safetensors each have their own ways to fail on damaged bytes
        raise BenchError(f"{path}: no weights can be read, the file is damaged or cut short ({first_line(error)})") from error
    try:
        return wrapped.find(content)
    except NoClip as error:
        raise BenchError(f"{path}: {error}") from error


def tensors_of_part(path: Path) -> Tensors:
    """All tensors of a file that holds no CLIP, or only a part of one."""
    try:
        return wrapped.all_tensors(_read(path))
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(f"{path}: no weights can be read, the file is damaged or cut short ({first_line(error)})") from error


def _read(path: Path):
    """Whatever the file is called, it is read as what it is."""
    with open(path, "rb") as file:
        head = file.read(9)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        from safetensors.torch import load_file

        return load_file(path)
    if torchscript.is_archive(path):
        return torchscript.read(path)
    kind = file_kinds.kind_of(path)
    if kind and kind != "a zip archive":
        raise BenchError(f"{path}: is {kind}{', no weights' if ';' not in kind else ''}")
    if path.suffix == ".safetensors" and not kind and head[:1] != PICKLE:
        from safetensors.torch import load_file

        return load_file(path)  # says what is wrong with it
    with open(path, "rb") as file, warnings.catch_warnings():  # a file object: of a path torch believes the name
        warnings.simplefilter("ignore")  # on pickles that it then refuses
        return torch.load(file, map_location="cpu", weights_only=True)


def _asked_for(error: Exception) -> str:
    """Which class or function a pickle wants; torch's own advice, to run it all the same, is not ours."""
    wanted = re.search(r"GLOBAL ([\w.]+)|asks for ([\w.]+)", str(error))
    return f" (it asks for {wanted.group(1) or wanted.group(2)})" if wanted else ""


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


def fit(clip: torch.nn.Module, tensors: Tensors, path: Path, name: str) -> list[str]:
    """Load weights into the model of that name; every tensor must be there, in its shape. Returns what is not of the model.

    Only what fine-tuning has added is left out: a head, LoRA factors, adapters. Any other tensor that the model does not have
    belongs to another architecture.
    """
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
    surplus = [key for key in weights if key not in wanted]
    added = [key for key in surplus if was_added(key)]
    if len(missing) == len(wanted):
        raise BenchError(f"{path}: holds no CLIP weights (its tensors: {few(list(tensors))}); save the CLIP inside alone")
    complaints = differing + missing + [f"{key} is not in {name}" for key in surplus if key not in added]
    if complaints:
        more = f"; and {len(complaints) - 3} more" if len(complaints) > 3 else ""
        advice = "Name the architecture that these weights were made for with --backbone"
        if not (differing or missing) and not _has_more_layers(surplus, wanted):
            advice = "Save the CLIP inside alone"
        raise BenchError(f"{path} does not fit {name}: {printable('; '.join(complaints[:3]))}{more}. {advice}")
    for key in wanted:
        _refuse_unusable(path, key, weights[key], wanted[key])
    clip.load_state_dict({key: weights[key] for key in wanted})
    return added


def _has_more_layers(surplus: list[str], wanted: Mapping[str, torch.Tensor]) -> bool:
    """Are the tensors like those of the model, but of layers that it does not have?"""
    alike = {re.sub(r"\d+", "#", key) for key in wanted}
    return any(re.sub(r"\d+", "#", key) in alike for key in surplus)


def _refuse_unusable(path: Path, key: str, tensor: torch.Tensor, wanted: torch.Tensor) -> None:
    if wanted.is_floating_point():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise BenchError(f"{path}: {key} is {kind}, numbers of a quantised model; save the weights as floating point")
        if not bool(torch.isfinite(tensor).all()):
            raise BenchError(f"{path}: {key} holds values that are not finite; a model that has diverged cannot be evaluated")
