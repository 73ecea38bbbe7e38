"""What a stream is made of, in digests: its class names and prompts, and its images.

Names and versions say what is meant; these say what is there. A run records them (`recorded`), and a later command asks what
they would be now (`present`) before it takes a finished run for the one that is asked for. Nothing is decoded, and nothing
downloaded: a data set that is not there has no digest. The digest of a data set's files is kept in the cache folder under
their names, sizes and times, so that it is computed again only where one of these has moved.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.images import layouts
from bench.images.dataset import Folders
from bench.streams import sources
from bench.streams.protocol import Protocol
from bench.system.digests import of_plain_data
from bench.system.files import write_atomically
from bench.system.version import VERSION

SPLITS = ("train", "test")
Images = dict[str, dict[str, str]]  # data set -> "train" or "test" -> digest of the images of that split that are used


def of_words(tasks: Sequence[Sequence[str]], templates: Sequence[str]) -> str:
    """16 hex digits for the class names of every task, in order, and the set of all prompt templates."""
    return of_plain_data([[list(names) for names in tasks], sorted(set(templates))])


def words_of_protocol(protocol: Protocol, order_seed: int) -> str:
    scenario = protocol.scenario(order_seed)
    tasks: list[list[str]] = [[] for _ in range(scenario.n_tasks)]
    for name, task in zip(scenario.class_names, scenario.task_of_class):
        tasks[task].append(name)
    return of_words(tasks, [template for own in scenario.templates for template in own])


def words_of_manifest(manifest: Mapping[str, Any]) -> str:
    """Of the stream that a finished run has learned."""
    return of_words([task["classes"] for task in manifest["tasks"]], manifest["templates"])


# -- images -----------------------------------------------------------------------------------------------------


def recorded(
    protocol: Protocol, order_seed: int, folders: Folders, limit_train: int | None, limit_test: int | None, synthetic: bool
) -> Images:
    """Of the images that a stream draws on, which are opened if they are not yet."""
    return {
        name: {
            split: _split_digest(protocol, name, split, folders, limit, synthetic)
            for split, limit in zip(SPLITS, (limit_train, limit_test))
        }
        for name in sorted(protocol.dataset_names(order_seed))
    }


def present(
    protocol: Protocol, order_seed: int, folders: Folders, limit_train: int | None, limit_test: int | None
) -> Images | None:
    """The same for the images as they lie on disk now; None if those of a data set are not there."""
    found: Images = {}
    for name in sorted(protocol.dataset_names(order_seed)):
        dataset = protocol.dataset(name)
        layout = layouts.find(dataset.layouts, folders.data) if dataset.layouts else None
        if dataset.layouts and layout is None:
            return None
        try:
            found[name] = {}
            for split, limit in zip(SPLITS, (limit_train, limit_test)):
                # with a validation part not even the names and dates of the test images count
                files = _Files(folders.data / layout.folder, folders.cache) if layout and not protocol.validation else None
                shots = protocol.shots if split == "train" else None
                asked = (dataset.info.name, dataset.info.version, split, shots, limit, *_other_rule(protocol, shots))
                known = files.known(asked) if files else None
                if known is None:
                    known = _split_digest(protocol, name, split, folders, limit, synthetic=False)
                    if files:
                        files.keep(asked, known)
                found[name][split] = known
        except (BenchError, OSError):
            return None
    return found


def digest_in_learning_order(
    protocol: Protocol, order_seed: int, folders: Folders, limit_train: int | None, limit_test: int | None
) -> str:
    """The digest of a whole stream's images that manifests of earlier versions hold: it depends on the order of the tasks."""
    images = hashlib.sha256()
    for plan in protocol.tasks(order_seed):
        for split, limit in zip(SPLITS, (limit_train, limit_test)):
            source = sources.images(protocol, plan.dataset, split, folders, limit)
            rows = np.flatnonzero(np.isin(source.labels, plan.labels))
            images.update(source.digest.encode() + rows.tobytes())
    return images.hexdigest()


def _other_rule(protocol: Protocol, shots: int | None) -> tuple[str, ...]:
    """The rule that chooses the shots, where it is not this package's."""
    return (protocol.shot_rule,) if shots is not None and protocol.shot_rule != "own" else ()


def _split_digest(
    protocol: Protocol, dataset: str, split: str, folders: Folders, limit: int | None, synthetic: bool
) -> str:
    """Of the images that are used, and of how many they were taken: methods shorten their replay by that share."""
    source = sources.images(protocol, dataset, split, folders, limit, synthetic)
    if limit is None:
        return source.digest
    whole = len(sources.images(protocol, dataset, split, folders, None, synthetic))
    return hashlib.sha256(f"{source.digest} of {whole}".encode()).hexdigest()


class _Files:
    """Digests of splits, kept as long as no file below a folder has another name, size or time of change."""

    def __init__(self, folder: Path, cache: Path):
        self.folder = folder
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]
        self.path = cache / "image-digests" / f"{name}.json"
        self._stamp = ""

    def known(self, asked: Sequence[Any]) -> str | None:
        kept = self._read()
        found = kept.get(_key(asked))
        return found if isinstance(found, str) and kept.get("files") == self.stamp else None

    def keep(self, asked: Sequence[Any], found: str) -> None:
        kept = self._read()
        kept = kept if kept.get("files") == self.stamp else {"files": self.stamp}
        with contextlib.suppress(OSError):  # a cache folder that cannot be written makes plans slower, not wrong
            write_atomically(self.path, json.dumps(kept | {_key(asked): found}, indent=1))

    @property
    def stamp(self) -> str:
        if not self._stamp:
            lines = sorted(_stamps(self.folder, ""))
            self._stamp = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
        return self._stamp

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _key(asked: Sequence[Any]) -> str:
    return json.dumps([VERSION, *asked])


def _stamps(folder: Path, prefix: str) -> Iterator[str]:
    """A line for every file below a folder: path, size, times. A link counts as what it leads to, a folder once."""
    seen: set[tuple[int, int]] = set()
    waiting = [(str(folder), prefix)]
    while waiting:
        place, start = waiting.pop()
        facts = os.stat(place)
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        for entry in os.scandir(place):
            if entry.is_dir():
                waiting.append((entry.path, f"{start}{entry.name}/"))
            else:
                yield f"{start}{entry.name} {_stamp(entry)}"


def _stamp(entry: os.DirEntry[str]) -> str:
    try:
        facts = entry.stat()
    except OSError:
        return "unreadable"  # a link to nothing
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


