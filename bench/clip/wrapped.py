"""The one CLIP in what training code has saved: under any prefix, in dictionaries of any depth, with other things beside it.

A CLIP is recognised by its structure and not by a list of known wrappers: where a token embedding lies, its image tower lies
under the same prefix. Just one has to be found; what is taken for it and what is left out is said, never guessed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench.errors import printable

Tensors = dict[str, torch.Tensor]

# segments that wrappers put into names: DistributedDataParallel, torch.compile, FSDP, activation checkpointing, PEFT
WRAPPERS = frozenset(["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"])
ANCHORS = (  # the token embedding -> how the names of the image tower beside it begin
    ("text.token_embedding.weight", "visual."),
    ("token_embedding.weight", "visual."),
    ("text_model.embeddings.token_embedding.weight", "vision_model."),
)
TOWERS = ("visual.", "transformer.", "text.", "vision_model.", "text_model.", "visual_projection.", "text_projection.")
DEEPEST = 16  # dictionaries in dictionaries
ADDED = ("lora", "adapter", "prompt", "ia3", "prefix_")  # parts of names that fine-tuning adds inside a tower


class NoClip(ValueError):
    """There is none, or not just one; the message says what was found, and the one way out."""


@dataclass(frozen=True)
class Found:
    """The tensors of the CLIP under their own names, the prefix that they had, and what lay beside them."""

    tensors: Tensors
    prefix: str
    beside: tuple[str, ...]  # names


def all_tensors(content: Any) -> Tensors:
    """Everything in what a file holds, under dotted names without the segments of wrappers."""
    return _unwrapped(dict(_tensors(content, "", 0)))


def find(content: Any) -> Found:
    """The one CLIP in what a file holds."""
    tensors = all_tensors(content)
    if not tensors:
        raise NoClip("holds no tensors; save the model's state_dict() with torch.save or as safetensors")
    if set(tensors) == {""}:
        raise NoClip("holds a single tensor; save the model's state_dict() with torch.save or as safetensors")
    prefixes = _prefixes(tensors)
    if not prefixes:
        raise NoClip(_what_is_there(tensors))
    prefix = prefixes[0]
    if len(prefixes) > 1:
        parts = [_below(tensors, one) for one in prefixes]
        if not all(_equal(parts[0], part) for part in parts[1:]):
            named = " and ".join(repr(printable(one)) if one else "the top" for one in prefixes[:4])
            raise NoClip(f"holds {len(prefixes)} whole CLIPs, under {named}; save the one that is meant alone")
    own = _below(tensors, prefix)
    return Found(own, prefix, tuple(sorted(name for name in tensors if not name.startswith(prefix))))


def _tensors(content: Any, name: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in nested dictionaries and lists, under dotted names."""
    if isinstance(content, torch.Tensor):
        yield name, content
    elif depth < DEEPEST and isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key), depth + 1)
    elif depth < DEEPEST and isinstance(content, list | tuple):
        for place, value in enumerate(content):
            yield from _tensors(value, f"{name}.{place}" if name else str(place), depth + 1)


def _unwrapped(tensors: Tensors) -> Tensors:
    """Without the segments of wrappers, wherever they stand, unless two names became one."""
    names = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in tensors}
    if len(set(names.values())) < len(names):
        return tensors
    return {names[name]: tensor for name, tensor in tensors.items()}


def _prefixes(tensors: Tensors) -> list[str]:
    """Under which prefixes both towers of a CLIP lie."""
    found: dict[str, None] = {}
    for anchor, image_tower in ANCHORS:
        for name in tensors:
            if name == anchor or name.endswith(f".{anchor}"):
                prefix = name.removesuffix(anchor)
                if prefix not in found and any(other.startswith(prefix + image_tower) for other in tensors):
                    found[prefix] = None
    return list(found)


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _what_is_there(tensors: Tensors) -> str:
    """Why these tensors are no CLIP."""
    text = next((name for name in tensors if name.endswith("token_embedding.weight")), None)
    image = next((name for name in tensors if name.endswith(("visual.conv1.weight", "visual.class_embedding"))), None)
    if text and image:
        where = f"the text tower at {printable(text)!r}, the image tower at {printable(image)!r}"
        return f"holds two towers that are no one CLIP ({where}); save the CLIP inside alone"
    if image:
        return "holds an image tower alone, its text tower is missing; save the whole CLIP"
    if text and "text_model.embeddings" in text:
        return "is a file of a transformers folder; name the folder, whose config.json belongs to the weights"
    if text:
        return "holds a text tower alone, its image tower is missing; save the whole CLIP"
    return f"holds no CLIP weights (its tensors: {few(list(tensors))}); save the CLIP inside alone"


def few(names: list[str]) -> str:
    """The first of the names, as a terminal can show them."""
    shown = ", ".join(printable(name)[:80] or "''" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def was_added(name: str) -> bool:
    """Does a name inside a CLIP say that fine-tuning has put the tensor there, or that it belongs to a head?"""
    if name.startswith(TOWERS):
        return any(part in name.lower() for part in ADDED)
    return not name.startswith(("logit_", "token_", "positional_", "ln_"))


def left_out(names: list[str]) -> str:
    """One sentence on tensors that are not taken."""
    if not names:
        return ""
    kinds = Counter("LoRA factors" if "lora" in name.lower() else "others" for name in names)
    count = "1 tensor of the file is" if len(names) == 1 else f"{len(names)} tensors of the file are"
    said = f"{count} left out ({few(names)})"
    if kinds["LoRA factors"]:
        said += "; LoRA factors among them: merge them into the weights before saving if they are meant"
    return said
