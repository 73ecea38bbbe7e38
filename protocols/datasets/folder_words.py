"""The words of a folder of images: `dataset.toml` beside its class folders, where its owner says more than names of folders can.

    templates = ["a blurry photo of a {}."]         # the first one trains, evaluation averages all
    origin = "taken from the bus, 2026"
    licence = "CC BY 4.0"

    [class_names]                                   # folder = name; a folder without one keeps its own
    n02124075 = "Egyptian Mau"

Every key may be left out.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import BenchError, one_line, unknown_name
from bench.errors import printable
from bench.images import templates
from bench.system.text_files import read_text

FILE = "dataset.toml"
KEYS = ("templates", "class_names", "origin", "licence")


@dataclass(frozen=True)
class Words:
    """What a `dataset.toml` says; empty where it says nothing, or is not there."""

    templates: tuple[str, ...] = ()
    class_names: Mapping[str, str] = field(default_factory=dict)  # folder -> name
    origin: str = ""
    licence: str = ""


def read(root: Path) -> Words:
    """Of the folder; BenchError for a file that cannot be what its owner meant."""
    path = root / FILE
    if not path.exists():
        return Words()
    try:
        table = tomllib.loads(read_text(path, "cannot be read"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BenchError(f"{path}: not TOML that can be read ({one_line(error)})") from error
    for key in table:
        if key not in KEYS:
            raise BenchError(f"{path}: {unknown_name('key', key, KEYS)}")
    return Words(
        templates=_templates(table.get("templates"), path),
        class_names=_class_names(table.get("class_names", {}), path),
        origin=_line(table.get("origin", ""), f"{path}: origin"),
        licence=_line(table.get("licence", ""), f"{path}: licence"),
    )


def refuse_others(words: Words, folders: list[str], root: Path) -> None:
    """Names for classes that have no folder: a slip of the pen, or a folder that was moved."""
    for folder in words.class_names:
        if folder not in folders:
            wrong = unknown_name("class folder", folder, folders)
            raise BenchError(f"{root / FILE}: class_names: {wrong}")


def _templates(value: Any, path: Path) -> tuple[str, ...]:
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        raise BenchError(f'{path}: templates: a list of texts is wanted, for instance ["a blurry photo of a {{}}."]')
    for one in found:
        if wrong := templates.complaint(one):
            raise BenchError(f"{path}: templates: {wrong}")
    if len(set(found)) < len(found):
        raise BenchError(f"{path}: templates: one of them stands there twice")
    return tuple(found)


def _class_names(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BenchError(f'{path}: class_names: a table is wanted, with lines such as n02124075 = "Egyptian Mau"')
    for folder, name in value.items():
        if not _line(name, f"{path}: class_names: {folder}"):
            raise BenchError(f"{path}: class_names: {folder}: the name is empty")
    return value


def _line(value: Any, where: str) -> str:
    if not isinstance(value, str) or printable(value) != value:
        raise BenchError(f"{where}: a text in one line is wanted, in quotes, without control characters or spaces at its ends")
    return value
