"""Folders with weights and settings: transformers' CLIPModel, and open_clip's own.

    transformers: config.json, model.safetensors or pytorch_model.bin, preprocessor_config.json
    open_clip:    open_clip_config.json, open_clip_model.safetensors or open_clip_pytorch_model.bin

Large models are split over several files, which an index lists. The settings say what the weights alone do not: the
activation, the number of heads, and how images are prepared.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.clip import state_dicts
from bench.errors import BenchError, reading
from bench.system.text_files import read_text

_OPEN_CLIP = ("open_clip_config.json", ["open_clip_model", "open_clip_pytorch_model"])
_TRANSFORMERS = ("config.json", ["model", "pytorch_model"])
_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as transformers stores them


@dataclass(frozen=True)
class WeightFolder:
    """The files of a folder that the model is made of, and what its settings say."""

    path: Path
    weights: tuple[Path, ...]
    settings_files: tuple[Path, ...]
    quick_gelu: bool
    preprocessing: dict[str, Any]  # mean, std, interpolation and resize_mode, as far as they are given
    expected: dict[str, Any]  # what the architecture must have: its settings as {"vision width": 768, ...}

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that can change the numbers."""
        return self.settings_files + self.weights

    def read(self) -> state_dicts.Tensors:
        """The tensors under open_clip's names."""
        tensors = {name: tensor for path in self.weights for name, tensor in state_dicts.tensors_of_part(path).items()}
        if state_dicts.is_hugging_face(tensors):
            with _as_written(self.path):
                tensors = from_hugging_face(tensors)
        return state_dicts.to_open_clip(tensors)

    def check(self, name: str, settings: dict[str, Any]) -> None:
        """That the architecture of that name has the settings that tensors' shapes do not show."""
        own = _hidden_settings(settings)
        for what, value in self.expected.items():
            if own[what] != value:
                raise BenchError(
                    f"{self.path} does not fit {name}: its {what} is {value}, that of {name} {own[what]}. "
                    "Name the architecture that these weights were made for with --backbone"
                )


def find(path: Path) -> WeightFolder:
    """What is in a folder; open_clip's files come first where both are there."""
    for (config, stems), describe in ((_OPEN_CLIP, _open_clip), (_TRANSFORMERS, _transformers)):
        with _as_written(path):
            weights = _weights(path, stems)
            if (path / config).is_file() and weights:
                return describe(path, path / config, weights)
    raise BenchError(
        f"{path}: neither a transformers folder (config.json with model.safetensors or pytorch_model.bin) nor an open_clip "
        "folder (open_clip_config.json with open_clip_model.safetensors or open_clip_pytorch_model.bin)"
    )


@contextlib.contextmanager
def _as_written(path: Path) -> Iterator[None]:
    """Settings and names of any type may stand in somebody's files: what no program writes into such a folder is refused."""
    what = "its settings or tensors are not as transformers or open_clip write them"
    with reading(path, what, (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)):
        yield


def _weights(folder: Path, stems: list[str]) -> tuple[Path, ...]:
    """safetensors before torch's files; one file, or the parts that an index lists."""
    for ending in (".safetensors", ".bin"):
        for stem in stems:
            whole, index = folder / f"{stem}{ending}", folder / f"{stem}{ending}.index.json"
            if whole.is_file():
                return (whole,)
            if index.is_file():
                parts = [folder / Path(name).name for name in sorted(set(_json(index).get("weight_map", {}).values()))]
                absent = [part.name for part in parts if not part.is_file()]
                if absent:
                    raise BenchError(f"{index}: names {absent[0]}, which is not in the folder")
                return tuple(parts)
    return ()


def _json(path: Path) -> dict[str, Any]:
    with reading(path, "not valid JSON", (ValueError,)):
        content = json.loads(read_text(path, "cannot be read"))
    if not isinstance(content, dict):
        raise BenchError(f"{path}: a JSON object is wanted")
    return content


# -- open_clip's folders ----------------------------------------------------------------------------------------


def _open_clip(path: Path, config: Path, weights: tuple[Path, ...]) -> WeightFolder:
    content = _json(config)
    model = content.get("model_cfg", content)
    if "vision_cfg" not in model or "text_cfg" not in model:
        raise BenchError(f"{config}: no settings of a model (model_cfg with vision_cfg and text_cfg)")
    with reading(config, "not settings of an open_clip model", (TypeError,)):
        expected = _hidden_settings(model)
    given = content.get("preprocess_cfg", {})
    preprocessing = {key: tuple(given[key]) for key in ("mean", "std") if given.get(key)}
    preprocessing |= {key: given[key] for key in ("interpolation", "resize_mode") if given.get(key)}
    return WeightFolder(path, weights, (config,), bool(model.get("quick_gelu")), preprocessing, expected)


def _hidden_settings(model: dict[str, Any]) -> dict[str, Any]:
    """Of open_clip's settings, those that change the numbers and do not show in the shape of any tensor."""
    from open_clip import CLIPTextCfg, CLIPVisionCfg

    vision, text = CLIPVisionCfg(**model["vision_cfg"]), CLIPTextCfg(**model["text_cfg"])
    return {
        "number of vision heads": None if vision.timm_model_name else vision.width // vision.head_width,
        "number of text heads": text.heads,
        "vision model": vision.timm_model_name,
        "vision pooling": vision.pool_type,
        "text pooling": text.pool_type,
        "epsilon of layer normalisation in the vision tower": (vision.norm_kwargs or {}).get("eps", 1e-5),
        "epsilon of layer normalisation in the text tower": (text.norm_kwargs or {}).get("eps", 1e-5),
    }


# -- transformers' folders --------------------------------------------------------------------------------------


def _transformers(path: Path, config: Path, weights: tuple[Path, ...]) -> WeightFolder:
    content = _json(config)
    if content.get("model_type") != "clip":
        raise BenchError(f"{config}: a CLIPModel is wanted (model_type clip), not {content.get('model_type')!r}")
    text = content.get("text_config") or content.get("text_config_dict") or {}
    vision = content.get("vision_config") or content.get("vision_config_dict") or {}
    activations = {tower.get("hidden_act", "quick_gelu") for tower in (text, vision)}
    if len(activations) > 1 or not activations <= {"quick_gelu", "gelu"}:
        raise BenchError(f"{config}: hidden_act {' and '.join(sorted(activations))}; both towers must have quick_gelu or gelu")
    preprocessor = path / "preprocessor_config.json"
    return WeightFolder(
        path,
        weights,
        (config, preprocessor) if preprocessor.is_file() else (config,),
        activations == {"quick_gelu"},
        _preprocessing(preprocessor) if preprocessor.is_file() else {},
        {
            "number of vision heads": vision.get("num_attention_heads", 12),
            "number of text heads": text.get("num_attention_heads", 8),
            "epsilon of layer normalisation in the vision tower": vision.get("layer_norm_eps", 1e-5),
            "epsilon of layer normalisation in the text tower": text.get("layer_norm_eps", 1e-5),
        },
    )


def _preprocessing(path: Path) -> dict[str, Any]:
    content = _json(path)
    known: dict[str, Any] = {}
    for key, name in (("image_mean", "mean"), ("image_std", "std")):
        if content.get(key):
            known[name] = tuple(content[key])
    if "resample" in content:
        if content["resample"] not in _FILTERS:
            raise BenchError(f"{path}: resample {content['resample']}; bilinear (2) or bicubic (3) is wanted")
        known["interpolation"] = _FILTERS[content["resample"]]
    if content.get("do_center_crop") is False:
        known["resize_mode"] = "squash"
    return known


_OUTSIDE_BLOCKS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # spelt so there
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}  # (d, w) -> (w, d)
_BLOCKS = {
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
}
_IN_BLOCKS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def from_hugging_face(tensors: state_dicts.Tensors) -> state_dicts.Tensors:
    """transformers' names and shapes -> open_clip's. What has no counterpart keeps its name, and does not fit later."""
    found: state_dicts.Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("embeddings.position_ids"):  # 0, 1, 2, ...: of older files
            continue
        if name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = tensor.T
        elif name in _OUTSIDE_BLOCKS:
            found[_OUTSIDE_BLOCKS[name]] = tensor
        else:
            new_name, parts = _in_block(name, tensors)
            found[new_name] = torch.cat(parts)
    return found


def _in_block(name: str, tensors: state_dicts.Tensors) -> tuple[str, list[torch.Tensor]]:
    """The new name of a tensor in a residual block, and the tensors that make it: query, key and value become one."""
    for start, new_start in _BLOCKS.items():
        if not name.startswith(start):
            continue
        number, part = name.removeprefix(start).split(".", 1)
        part, kind = part.rsplit(".", 1)  # kind: weight or bias
        if part in _IN_BLOCKS:
            return f"{new_start}{number}.{_IN_BLOCKS[part]}.{kind}", [tensors[name]]
        if part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            three = [f"{start}{number}.self_attn.{letter}_proj.{kind}" for letter in "qkv"]
            return f"{new_start}{number}.attn.in_proj_{kind}", [tensors[key] for key in three if key in tensors]
    return name, [tensors[name]]
