"""Where the things lie that a kept model names: the file of its method, weights, folders of images, files that settings name.

The model's file calls them as anybody would ("my_method.py:MyMethod", "pets"): whoever is handed it has other folders, and those
of its maker are nobody's business. Where they lay is noted beside it, in places.json, which is worth nothing on another machine
and may be missing. There what the model needs is put beside it; code is never taken from there, it has to be named.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.results.run_folder import PLACES
from bench.runs.run import Run
from bench.streams import names as protocol_names
from bench.system import method_files, named_files

METHOD, WEIGHTS, PROTOCOL = "method", "weights", "protocol"


def of_setting(field_name: str) -> str:
    return f"setting {field_name}"


def of_task(index: int) -> str:
    return f"task {index}"


@dataclass(frozen=True)
class Places:
    """Of one kept model."""

    beside: Path  # the folder of the model
    known: Mapping[str, str] = field(default_factory=dict)  # what -> where it lay when the model was made

    def file(self, what: str, name: str, needed: str) -> Path:
        """The file or folder that the model calls by a name; BenchError if it lies neither where it lay nor beside the model."""
        candidates = [*([Path(self.known[what])] if what in self.known else []), self.beside / Path(name).name]
        for place in candidates:
            if place.exists():
                return place
        raise BenchError(f"kept model in {self.beside}: {needed}, {name}, is not here; put it beside the model")

    def protocol(self, name: str) -> str:
        """The name by which the stream is found here."""
        return self.known.get(PROTOCOL) or protocol_names.in_folder(name, self.beside)

    def method(self) -> str | None:
        """FILE.py:CLASS where it lay; None if it is not there."""
        former = self.known.get(METHOD)
        found = method_files.find(former) if former and method_files.is_file(former) else None
        return former if found and found.path.is_file() else None


def read(folder: Path) -> Places:
    """Those of the model in a folder. What cannot be read is as good as missing: it is nothing that a result depends on."""
    try:
        known = json.loads((folder / PLACES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    sound = isinstance(known, dict) and all(isinstance(text, str) for text in known.values())
    return Places(folder, known if sound else {})


def taken_out(run: Run) -> tuple[Run, dict[str, str]]:
    """The run with names in the place of paths, and the paths that it had. A name is taken out before, and stays."""
    paths: dict[str, str] = {}
    settings = {}
    for name, value in run.settings.items():
        own = named_files.is_file(value)
        settings[name] = {**value, "path": name_of(of_setting(name), value["path"], paths)} if own else value
    changes: dict[str, Any] = {"settings": settings, "overrides": _without_paths(run)}
    short = protocol_names.in_folder(run.given, None)
    if short != run.given:
        paths[PROTOCOL], changes["given"] = run.given, short
    if own_file := method_files.FORM.fullmatch(run.method_from):
        changes["method_from"] = f"{name_of(METHOD, own_file['path'], paths)}:{own_file['class']}"
        paths |= {METHOD: run.method_from} if METHOD in paths else {}
    if names_weights(run):
        changes["pretrained"] = name_of(WEIGHTS, str(run.pretrained), paths)
    return replace(run, **changes), paths


def names_weights(run: Run) -> bool:
    """Are its weights in a file or a folder? A tag is no path: its weights are known by architecture and tag."""
    return run.pretrained is not None and ":" not in run.weights


def name_of(what: str, path: str, paths: dict[str, str]) -> str:
    """The last part of a path; where it leads is noted."""
    if Path(path).is_absolute():
        paths[what] = path
    return Path(path).name


def _without_paths(run: Run) -> str:
    """The changed settings as the user gave them, files by their names."""
    text = run.overrides
    for name, value in run.settings.items():
        if named_files.is_file(value):
            short = named_files.in_records(Path(value["path"]).name, value)
            text = re.sub(rf"(?<![^;]){re.escape(name)}=.*?@{value['sha256'][:8]}", f"{name}={short}", text)
    return text
