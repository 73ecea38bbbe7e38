"""Where reference data come from: images and sentences that belong to no task, by name or path.

Names resolve through the entry points of `bench.references`, objects with `images(folders)` -> ImageSource and
`sentences(folders)` -> tuple of str; a folder of images and a text file (one sentence a line) serve as well.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.images.dataset import Folders, ImageSource
from bench.system import registry
from bench.system.text_files import read_text


@dataclass(frozen=True)
class ReferenceNames:
    """What a method asks for; sentences may be None where it brings its own."""

    images: str
    sentences: str | None


def images_of(name: str, folders: Folders) -> ImageSource:
    """The reference images of that name, or of the folder at that path."""
    if name in registry.names("reference"):
        return registry.load("reference", name).images(folders)
    if Path(name).is_dir():
        return registry.load("reference", "folder").images(folders, Path(name))
    raise _unknown(name, "reference images", "a folder of images")


def sentences_of(name: str, folders: Folders) -> tuple[str, ...]:
    """The reference sentences of that name, or of the text file at that path."""
    if name in registry.names("reference"):
        found = registry.load("reference", name).sentences(folders)
    elif Path(name).is_file():
        lines = read_text(Path(name), "not reference sentences that can be read").split("\n")
        found = tuple(line.strip() for line in lines if line.strip())
    else:
        raise _unknown(name, "reference sentences", "a text file with one sentence a line")
    if not found:
        raise BenchError(f"reference sentences {name!r}: there is no sentence in it")
    return found


def _unknown(name: str, what: str, otherwise: str) -> BenchError:
    known: Sequence[str] = registry.names("reference")
    return BenchError(f"unknown {what} {name!r}: give {otherwise}, or one of {', '.join(known)}")


def look_for(what: str, name: str, folders: Folders) -> None:
    """BenchError with what to do if reference "images" or "sentences" of that name are not there."""
    known = registry.load("reference", name) if name in registry.names("reference") else None
    if what == "sentences":
        sentences_of(name, folders)
    elif known is None or (getattr(known, "there", None) is not None and not known.there(folders)):
        images_of(name, folders)


def digests(images: str | None, sentences: str | None, folders: Folders) -> dict[str, str]:
    """The digests of what lies under these names now, as far as it is people's own and can be read without fetching anything.

    What is made here, and sentences that are registered, are known by their names.
    """
    found = {}
    if images and _can_differ(images, folders):
        found["images"] = images_of(images, folders).digest
    if sentences and sentences not in registry.names("reference") and Path(sentences).is_file():
        found["sentences"] = digest_of_sentences(sentences_of(sentences, folders))
    return found


def _can_differ(name: str, folders: Folders) -> bool:
    if name in registry.names("reference"):
        there = getattr(registry.load("reference", name), "there", None)
        return there is not None and there(folders)
    return Path(name).is_dir()


def digest_of_sentences(sentences: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sentences).encode()).hexdigest()
