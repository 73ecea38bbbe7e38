"""The weights of open_clip's tags: where they come from, where they lie on this machine, and how they get there.

Looking for them asks no network: the hub's client would, even for a file that is there. When they cannot be had, one line says
where to fetch them and where to put them, and no log of a library stands around it.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, first_line
from bench.system.offline import offline

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Source:
    """Where the file of a tag comes from, and where it is looked for."""

    address: str
    target: Path  # where a file that was fetched by hand is found
    there: Path | None  # where it lies; None: not on this machine


def locate(settings: dict[str, Any]) -> Source:
    """Of a tag's settings, as open_clip has them. Nothing is fetched."""
    if "file" in settings:
        path = Path(settings["file"])
        return Source(str(path), path, path if path.is_file() else None)
    if settings.get("hf_hub"):
        return _on_the_hub(settings["hf_hub"])
    address = settings.get("url", "")
    target = _folder() / Path(address).name
    return Source(address, target, target if target.is_file() else None)


def _on_the_hub(name: str) -> Source:
    """owner/model/file, or owner/model/ where the file has its usual name."""
    from huggingface_hub import constants, try_to_load_from_cache

    repository, _, file = name.rpartition("/")
    usual = [file.rsplit(".", 1)[0] + ".safetensors", file] if file else list(HUB_FILES)
    cache = Path(constants.HF_HUB_CACHE)
    cached = (try_to_load_from_cache(repository, one, cache_dir=cache) for one in usual)
    found = next((Path(path) for path in cached if isinstance(path, str)), None)
    placed = [_folder() / repository.replace("/", "--") / one for one in usual]
    there = found or next((path for path in placed if path.is_file()), None)
    address = f"https://huggingface.co/{repository}/resolve/main/{usual[-1] if file else usual[0]}"
    return Source(address, placed[-1] if file else placed[0], there)


def _folder() -> Path:
    """Where open_clip puts what it downloads."""
    home = os.path.expanduser("~")
    if home.startswith("~"):
        raise BenchError("there is no home folder in which weights of tags are kept; name a file or folder with --pretrained")
    return Path(home) / ".cache" / "clip"


def get(name: str, tag: str, settings: dict[str, Any]) -> Path:
    """The file of a tag, from this machine or the net. What was downloaded only in part is not used."""
    source = locate(settings)
    if source.there and not _must_be_fetched_anew(source, settings):
        return source.there
    if why := offline():
        raise not_there(name, tag, source, why)
    import open_clip

    try:
        with _silent_libraries():
            return Path(open_clip.download_pretrained(settings))
    except Exception as error:  # the hub and its network library each have their own
        raise not_there(name, tag, source, f"the download failed: {first_line(error)}") from error


def _must_be_fetched_anew(source: Source, settings: dict[str, Any]) -> bool:
    """Is a file that OpenAI's address names by its digest another one, such as half of it?"""
    from bench.system.files import file_digest

    expected = source.address.split("/")[-2] if "openaipublic" in source.address else ""
    return bool(expected) and source.there is not None and not file_digest(source.there).startswith(expected)


def not_there(name: str, tag: str, source: Source, why: str) -> BenchError:
    """One line: which weights, where from, where to."""
    return BenchError(
        f"the weights {tag} of {name} are not on this machine ({why}); download {source.address} to {source.target}, or name a "
        "file or folder with --pretrained"
    )


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
    """No retries and warnings of the hub's client and its network library; the progress of a download stays."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
