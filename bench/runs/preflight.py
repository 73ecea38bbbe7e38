"""Everything that a plan needs and that is missing on this machine, at once and before anything is started.

Weights, data sets, reference data, folders that cannot be written, and disk space as far as it can be told. Nothing is fetched
and nothing is written.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.clip.tower_sizes import embedding_width
from bench.errors import BenchError
from bench.images import folders, layouts
from bench.images.dataset import Folders
from bench.runs import assignments, estimate
from bench.runs.run import Run
from bench.streams import names, reference_sources
from bench.streams.reference_sources import ReferenceNames
from bench.system import offline, registry

BYTES_PER_NUMBER = 4  # of features
Item = TypeVar("Item")
LOOKING = "this is only a look"  # why nothing is fetched


@dataclass
class Found:
    """What was looked for, line by line."""

    lines: list[str] = field(default_factory=list)
    missing: int = 0

    def fine(self, text: str) -> None:
        self.lines.append(f"  ok       {text}")

    def note(self, text: str) -> None:
        self.lines.append(f"  note     {text}")

    def lacks(self, text: str) -> None:
        self.lines.append(f"  MISSING  {text}")
        self.missing += 1


def examine(runs: Sequence[Run], places: Folders) -> Found:
    """Look for what these runs need."""
    found = Found()
    for part in (_weights, _data_sets, _reference_data, _space):
        part(runs, places, found)
    network = offline.offline()
    if found.missing:
        found.lines.append(f"{found.missing} missing; nothing was started" + (f" ({network})" if network else ""))
    else:
        found.lines.append("nothing is missing")
    return found


def _said(error: BenchError) -> str:
    """Without the failure of a download that was never tried."""
    return str(error).replace(f" and the download failed ({LOOKING})", "").replace(f"; the download failed ({LOOKING})", "")


def _once(items: Iterable[Item]) -> list[Item]:
    return list(dict.fromkeys(items))


def _fetched(text: str) -> str:
    """How something gets here that can be had from the network."""
    return text if offline.offline() else f"{text} (or let the first run that needs it download it)"


def _weights(runs: Sequence[Run], places: Folders, found: Found) -> None:
    from bench.clip import loading

    found.lines.append("weights")
    asked = _once((run.backbone, run.pretrained) for run in runs if not names.find(run.protocol_given).embeddings)
    if not asked:
        found.fine("none are needed")
    for backbone, name in asked:
        label = f"{backbone} {name or ''}".strip()
        try:
            missing = loading.missing(backbone, name)
        except BenchError as error:
            missing = str(error)
        if missing:
            found.lacks(_fetched(missing))
        else:
            found.fine(label)


def _data_sets(runs: Sequence[Run], places: Folders, found: Found) -> None:
    found.lines.append("data sets")
    seen: set[str] = set()
    for given, order_seed in _once((run.protocol_given, run.order_seed) for run in runs if not run.synthetic):
        protocol = names.find(given)
        for name in protocol.dataset_names(order_seed):
            if name in seen:
                continue
            seen.add(name)
            dataset = protocol.dataset(name)
            try:
                if dataset.layouts and not layouts.find(dataset.layouts, places.data):
                    raise layouts.not_there(dataset.info, dataset.layouts, places.data)
                if not dataset.layouts and dataset.content != "pinned":
                    with offline.nothing_fetched(LOOKING):
                        dataset.open_split("train", places)
            except BenchError as error:
                by_hand = dataset.layouts and not any(layout.download for layout in dataset.layouts)
                found.lacks(f"by hand: {_said(error)}" if by_hand else _fetched(_said(error)))
            else:
                found.fine(name)
    if not seen:
        found.fine("none are needed")


def _reference_data(runs: Sequence[Run], places: Folders, found: Found) -> None:
    asked: dict[tuple[str, str], str] = {}
    for run in runs:
        wanted = None if run.synthetic else _reference_names(run)
        if wanted:
            asked.setdefault(("images", wanted.images), run.method)
        if wanted and wanted.sentences:
            asked.setdefault(("sentences", wanted.sentences), run.method)
    if not asked:
        return
    found.lines.append("reference data")
    for (what, part), method in asked.items():
        try:
            with offline.nothing_fetched(LOOKING):
                reference_sources.look_for(what, part, places)
        except BenchError as error:
            found.lacks(f"for {method}: {_said(error)}")
        else:
            found.fine(f"{what} {part}, for {method}")


def _reference_names(run: Run) -> ReferenceNames | None:
    """What the method of a run asks for: it is asked before it exists, as nothing but its settings decides."""
    method = registry.load("method", run.method_given)
    asking = method.__new__(method)
    object.__setattr__(asking, "settings", assignments.restored(method.Settings, run.settings))
    return asking.reference_names


def _space(runs: Sequence[Run], places: Folders, found: Found) -> None:
    """Free space where features and results go, against what they take as far as it is known."""
    found.lines.append("folders and disk")
    waiting = [run for run in runs if not run.finished]
    needed: dict[Path, float] = {}
    if not isinstance(places.cache, folders.Unknown):
        needed[places.cache] = bytes_of_features(waiting)
    for out in _once(run.out for run in runs):
        own = [run for run in waiting if run.out == out]
        costs = estimate.of_plan(own)
        needed[out] = sum(cost.bytes for cost in costs if cost)
        if unknown := sum(cost is None for cost in costs):
            found.note(f"{out}: what {unknown} of {len(own)} runs write is not known before a like one has finished")
    for folder, size in needed.items():
        there, free = free_space(folder)
        said = f"{folder}: about {estimate.size(size)} wanted, {estimate.size(free)} free"
        said = said if size else f"{folder}: {estimate.size(free)} free"
        if not (there.is_dir() and os.access(there, os.W_OK)):
            option = folders.OPTIONS["cache" if folder == places.cache else "results"]
            found.lacks(f"{folder} cannot be written ({there}); name another one with {option}")
        elif size > free:
            found.lacks(said)
        else:
            found.fine(said)


def free_space(folder: Path) -> tuple[Path, int]:
    """The folder that is there already, maybe one above it, and the bytes that are free on its disk."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return there, shutil.disk_usage(there).free


def bytes_of_features(runs: Sequence[Run]) -> float:
    """Of the frozen image encoder's embeddings of all images that are not limited away, at most."""
    total = 0.0
    for given, backbone in _once((run.protocol_given, run.backbone) for run in runs):
        protocol = names.find(given)
        if protocol.embeddings:
            continue  # they are there already
        infos = [protocol.dataset(name).info for name in protocol.dataset_names(0)]
        images = sum(info.train_images or 0 for info in infos)
        images += 0 if protocol.validation else sum(info.test_images or 0 for info in infos)
        total += images * embedding_width(backbone) * BYTES_PER_NUMBER
    return total
