"""The architectures that can be a backbone, by name: read from open_clip's files, nothing heavy is imported."""

import functools
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.errors import BenchError, unknown_name

FOLDERS: list[Path] = []  # of further architectures beside open_clip's; tests put their small ones there


def architectures() -> list[str]:
    """"mini", then those of open_clip's architectures that have CLIP's own text tower."""
    return ["mini", *sorted(name for name, settings in _every().items() if _obstacle(settings) is None)]


def settings_of(name: str) -> dict[str, Any]:
    """open_clip's settings of an architecture: embed_dim, vision_cfg, text_cfg and, where it has it, quick_gelu."""
    if name not in _every():
        raise unknown_name("backbone", name, architectures())
    settings = _every()[name]
    obstacle = _obstacle(settings)
    if obstacle:
        raise BenchError(f"{name} cannot be a backbone: its text tower {obstacle} (bench list backbones shows those that can)")
    return settings


def _every() -> dict[str, dict[str, Any]]:
    return _settings_in((_open_clips_folder(), *FOLDERS))


@functools.cache
def _open_clips_folder() -> Path:
    """Where open_clip keeps its settings. It is looked up without being imported, and only when a name is asked for."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise BenchError("open_clip is not installed, which has the architectures; pip install open_clip_torch")
    return Path(spec.submodule_search_locations[0]) / "model_configs"


@functools.cache
def _settings_in(folders: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """Each folder holds NAME.json, one architecture each."""
    paths = [path for folder in folders for path in folder.glob("*.json")]
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def _obstacle(settings: dict[str, Any]) -> str | None:
    """Why prompts cannot be cut at their end, or tokens be put into them, as all methods do; None if they can."""
    text = settings["text_cfg"]
    if "multimodal_cfg" in settings or text.get("embed_cls"):
        return "is part of a captioner"
    if text.get("hf_model_name"):
        return f"is {text['hf_model_name']}, not CLIP's own"
    if text.get("hf_tokenizer_name"):
        return "has another tokenizer than CLIP's"
    if text.get("no_causal_mask"):
        return "reads all tokens, those after the end too"
    if text.get("pool_type", "argmax") != "argmax" or text.get("proj_type", "linear") != "linear":
        return "is not read out at the end token as CLIP's is"
    return None
