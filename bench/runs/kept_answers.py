"""Answers that are kept from one command to the next, in a file below the cache folder.

The file is named after a digest of all sources that answers come from: the packages that register something, bench itself, the
versions of torch and open_clip. So an answer is never older than the code that gave it. A cache folder that cannot be read or
written makes plans slower, not wrong.
"""

import contextlib
import functools
import hashlib
import json
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from bench.errors import BenchError
from bench.runs.questions import Answer, Question
from bench.system import registry
from bench.system.files import write_atomically

SMALL = 1 << 20  # bytes; larger files (weights) count with their size and time of change
KEPT = 8  # files of answers: several environments may share a cache folder


class KeptAnswers:
    """The file of one environment. cache: None keeps nothing."""

    def __init__(self, cache: Path | None):
        self._path: Path | None = None
        with contextlib.suppress(BenchError):  # a machine without a home folder: nothing is kept
            self._path = cache / "facts" / f"{_sources_digest()}.json" if cache else None
        self._known = _read(self._path)
        self._new: dict[str, Answer] = {}

    def find(self, question: Question) -> Answer | None:
        return self._known.get(question.to_json())

    def keep(self, question: Question, answer: Answer) -> None:
        self._new[question.to_json()] = answer

    def write(self) -> None:
        """Add the new answers to what other commands may have written meanwhile."""
        if self._path and self._new:
            with contextlib.suppress(OSError):
                write_atomically(self._path, json.dumps(_read(self._path) | self._new))
                _prune(self._path)


def _read(path: Path | None) -> dict[str, Answer]:
    """The kept answers; a damaged file holds none."""
    try:
        found = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _prune(path: Path) -> None:
    """Only the latest files of answers stay."""
    for old in sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def _sources_digest() -> str:
    """Of every package that registers something, with the entry points themselves."""
    installed = entry_points()
    found = [point for group in registry.KINDS.values() for point in installed.select(group=group)]
    points = sorted((point.group, point.name, point.value) for point in found)
    distributions = sorted({point.dist.name for point in found if point.dist} | {"torch", "open_clip_torch"})
    digest = hashlib.sha256(json.dumps([points, [_version(name) for name in distributions], sys.version]).encode())
    for package in sorted({"bench", *(point.module.split(".")[0] for point in found)}):
        for place in _places(package):
            for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if file.suffix != ".pyc" and file.is_file():
                    facts = file.stat()
                    digest.update(f"{file}\0{facts.st_size}\0".encode())
                    digest.update(file.read_bytes() if facts.st_size < SMALL else str(facts.st_mtime_ns).encode())
    return digest.hexdigest()[:24]


def _places(package: str) -> list[Path]:
    """The folders of a package, or the one file of a module; none if it is not to be found."""
    spec = find_spec(package)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin else []


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution
