"""What `--backbone` and `--pretrained` name: find the weights, identify them, and build the model that they need.

The activation is part of what weights need and is not in them. OpenAI's CLIP and some others were trained with QuickGELU,
x sigmoid(1.702 x), most with GELU; with the wrong one a model still works, a few points worse. It is taken from whatever
knows it: the tag, the settings of a folder, the archive. Only for a bare file of unknown origin the architecture's name
decides (ViT-B-16 or ViT-B-16-quickgelu), and the results say so.
"""

import copy
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.clip import folders, published, state_dicts, wrapped
from bench.clip.architectures import settings_of
from bench.clip.folders import WeightFolder
from bench.clip.tower_types import ClipModel, clip_model
from bench.errors import BenchError, unknown_name
from bench.system.files import file_digest
from bench.system.offline import offline

RANDOM = "none"  # --pretrained none


@dataclass(frozen=True)
class Pretrained:
    """A CLIP with its weights, and the facts about them that results record."""

    clip: ClipModel
    tokenizer: Any
    transform: Any
    label: str  # as the user named the weights
    digest: str  # of everything that the numbers depend on
    files: dict[str, str]  # name -> sha256 of each file that was read
    activation: str  # gelu or quick_gelu
    activation_source: str  # what says so
    left_out: str = ""  # of the file, what is no part of the CLIP


@dataclass(frozen=True)
class _Found:
    """Where the weights are, before any of them is read: a tag's settings, a folder, or a file; none of them: random."""

    tag: dict[str, Any] | None = None
    folder: WeightFolder | None = None
    file: Path | None = None


@dataclass(frozen=True)
class _Weights:
    """Weights as read, and what came with them."""

    path: Path  # for complaints
    files: dict[str, str]
    tensors: state_dicts.Tensors  # under open_clip's names
    quick_gelu: bool | None  # None: nothing says
    source: str  # what says so
    preprocessing: dict[str, Any]
    beside: tuple[str, ...] = ()  # names of other tensors in the file


def identity(name: str, pretrained: str | None) -> str:
    """What tells these weights from others, without loading or downloading any: a digest, or architecture and tag."""
    if name == "mini":
        return file_digest(_mini_file(pretrained))
    found = _find(name, pretrained)
    if found.folder:
        return _digest(_digests(found.folder.files))
    if found.file:
        return file_digest(found.file)
    return f"{name}:{pretrained}"


def missing(name: str, pretrained: str | None) -> str:
    """What to do where the weights are not on this machine; empty if they are. BenchError for names that are wrong."""
    if name == "mini":
        _mini_file(pretrained)
        return ""
    found = _find(name, pretrained)
    if found.tag:
        source = published.locate(found.tag)
        if source.there is None:
            return str(published.not_there(name, str(pretrained), source, offline() or "not downloaded yet"))
    return ""


def load(name: str, pretrained: str | None) -> Pretrained:
    """The model with its weights, in float32 on the CPU."""
    if name == "mini":
        return _load_mini(pretrained)
    settings = settings_of(name)
    weights = _read(name, str(pretrained), _find(name, pretrained))
    own = quick_gelu = bool(settings.get("quick_gelu"))
    source = f"as {name} has it"
    if weights and weights.quick_gelu is None:
        source = f"assumed from the name {name}: {weights.source}"
    elif weights:
        quick_gelu = bool(weights.quick_gelu)
        source = f"from the weights: {weights.source}"
        if quick_gelu != own:
            source += f"; {name} by itself has {_activation(own)}"
    clip = _build(settings, quick_gelu)
    left_out = ""
    if weights:
        added = state_dicts.fit(clip, weights.tensors, weights.path, name)
        left_out = wrapped.left_out([*added, *weights.beside])
        if left_out:
            print(f"note: {weights.path}: {left_out}", file=sys.stderr)
    return Pretrained(
        clip=clip,
        tokenizer=_tokenizer(settings),
        transform=_transform(clip, weights.preprocessing if weights else {}),
        label=str(pretrained),
        digest=_digest(weights.files) if weights else _state_digest(clip),
        files=weights.files if weights else {},
        activation=_activation(quick_gelu),
        activation_source=source,
        left_out=left_out,
    )


def _activation(quick_gelu: bool) -> str:
    return "quick_gelu" if quick_gelu else "gelu"


# -- finding ----------------------------------------------------------------------------------------------------


def _find(name: str, pretrained: str | None) -> _Found:
    """A tag of this architecture goes before a file of the same name; ./NAME means the file."""
    import open_clip

    settings_of(name)  # raises if there is no such architecture
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        known = ", ".join(tags) or "none known"
        raise BenchError(f"--backbone {name} needs --pretrained TAG, FILE, FOLDER or none (tags: {known})")
    if pretrained == RANDOM:
        return _Found()
    if open_clip.is_pretrained_cfg(name, pretrained):
        return _Found(tag=open_clip.get_pretrained_cfg(name, pretrained))
    path = Path(pretrained)
    if path.is_dir():
        return _Found(folder=folders.find(path))
    if path.is_file():
        return _Found(file=path)
    if "/" in pretrained or "." in pretrained:
        raise BenchError(f"--pretrained {pretrained}: no such file or folder")
    raise unknown_name(f"pretrained tag of {name}", pretrained, tags)


# -- reading ----------------------------------------------------------------------------------------------------


def _read(name: str, pretrained: str, found: _Found) -> _Weights | None:
    """The weights; None for random ones."""
    if found.tag:
        path = published.get(name, pretrained, found.tag)
        tensors = state_dicts.to_open_clip(state_dicts.read(path).tensors)
        return _Weights(path, _digests([path]), tensors, bool(found.tag.get("quick_gelu")), f"tag {pretrained}", found.tag)
    if found.folder:
        folder = found.folder
        folder.check(name, settings_of(name))
        source = folder.settings_files[0].name
        return _Weights(folder.path, _digests(folder.files), folder.read(), folder.quick_gelu, source, folder.preprocessing)
    return _read_file(name, found.file) if found.file else None


def _read_file(name: str, path: Path) -> _Weights:
    found = state_dicts.read(path)
    tensors = found.tensors
    if state_dicts.is_hugging_face(tensors):
        raise BenchError(f"{path}: a file of a transformers folder; name the folder, whose config.json belongs to the weights")
    files = _digests([path])
    tag, settings = _recognised(name, files[path.name])
    if settings:
        quick_gelu, source = bool(settings.get("quick_gelu")), f"the file of tag {tag}"
    elif state_dicts.is_openai(tensors):
        quick_gelu, source = True, "OpenAI's archive"
    else:
        quick_gelu, source = None, "the file does not say"
    return _Weights(path, files, state_dicts.to_open_clip(tensors), quick_gelu, source, settings, found.beside)


def _recognised(name: str, digest: str) -> tuple[str, dict[str, Any]]:
    """The tag whose published file this is, and its settings: open_clip knows the digests of some, or how they begin."""
    import open_clip

    for tag in open_clip.list_pretrained_tags_by_model(name):
        settings = open_clip.get_pretrained_cfg(name, tag)
        parts = settings.get("url", "").split("/")
        known = parts[-2] if "openaipublic" in settings.get("url", "") else Path(parts[-1]).stem.split("-")[-1]
        if len(known) >= 8 and set(known) <= set("0123456789abcdef") and digest.startswith(known):
            return tag, settings
    return "", {}


# -- building ---------------------------------------------------------------------------------------------------


def _build(settings: dict[str, Any], quick_gelu: bool) -> ClipModel:
    """open_clip's CLIP with random weights, the same ones every time.

    Architectures that open_clip builds with a text tower of its own kind are built as plain CLIP: the supported ones differ
    in the names of their weights only.
    """
    from open_clip.model import CLIP

    own = copy.deepcopy({key: value for key, value in settings.items() if key != "custom_text"})
    own["vision_cfg"]["timm_model_pretrained"] = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return clip_model(CLIP(**{**own, "quick_gelu": quick_gelu}))


def _tokenizer(settings: dict[str, Any]) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    text = settings["text_cfg"]
    return SimpleTokenizer(context_length=text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {}))


def _transform(clip: ClipModel, preprocessing: dict[str, Any]) -> Any:
    """Images as these weights want them; OpenAI's mean, deviation and bicubic filter where nothing says otherwise."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    known = {key: preprocessing[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in preprocessing}
    return image_transform_v2(PreprocessCfg(size=clip.visual.image_size, **known), is_train=False)


# -- the miniature CLIP -----------------------------------------------------------------------------------------


def _mini_file(pretrained: str | None) -> Path:
    from bench.clip import mini

    path = Path(pretrained) if pretrained else mini.WEIGHTS
    if not path.is_file():
        raise BenchError(f"{path}: the weights file is missing; install the package again or name one with --pretrained")
    return path


def _load_mini(pretrained: str | None) -> Pretrained:
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.transform import image_transform

    from bench.clip import mini

    path = _mini_file(pretrained)
    try:
        clip = mini.load(path)
    except ValueError as error:
        raise BenchError(str(error)) from error
    transform = image_transform(
        mini.IMAGE_SIZE, is_train=False, mean=mini.IMAGE_MEAN, std=mini.IMAGE_STD, interpolation="bicubic"
    )
    digests = _digests([path])
    tokenizer = SimpleTokenizer(context_length=clip.context_length)
    label = path.name if pretrained else "mini"
    return Pretrained(clip, tokenizer, transform, label, _digest(digests), digests, "gelu", "as mini has it")


# -- digests ----------------------------------------------------------------------------------------------------


def _digests(files: Iterable[Path]) -> dict[str, str]:
    return {path.name: file_digest(path) for path in files}


def _digest(digests: dict[str, str]) -> str:
    """That of the file, if it is one; otherwise of the list of all, so that a changed setting is another backbone."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()).hexdigest()


def _state_digest(clip: ClipModel) -> str:
    """Of weights that are in no file: their names and numbers."""
    digest = hashlib.sha256()
    for name, tensor in clip.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
