"""Data sets that lie on disk: in which of their layouts they are there, where they are looked for, and how they get there."""

import contextlib
import functools
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

from bench.errors import BenchError
from bench.images import downloads
from bench.images.dataset import Copy, Dataset, DatasetInfo, Folders, Layout, note
from bench.images.listing import is_litter
from bench.images.sources import ImageSource

COMMON = {"train", "val", "test", "images", "annotations", "data", "labels"}  # names that tell no data sets apart


def dataset_on_disk(info: DatasetInfo, *layouts: Layout) -> Dataset:
    """A data set that is read from the first of these layouts that is there, else downloaded in the first that can be."""
    return Dataset(info, functools.partial(_open_split, info, layouts), layouts)


def _open_split(info: DatasetInfo, layouts: Sequence[Layout], split: str, folders: Folders) -> ImageSource:
    layout = find(layouts, folders.data)
    if layout is None and _elsewhere(layouts, folders.data):
        raise not_there(info, layouts, folders.data)  # rather than fetching again what lies there under another name
    layout = layout or get(info, layouts, folders.data)
    source = read(info, layout, split, folders)
    official = info.images(split)
    if official is not None and len(source) != official:
        note(
            f"{info.name}: {len(source)} {split} images in {folders.data / layout.folder}, the official number is "
            f"{official}: results are not comparable with others"
        )
    return source


def read(info: DatasetInfo, layout: Layout, split: str, folders: Folders) -> ImageSource:
    """The images of a split, from a layout that is there."""
    copy = Copy(info, folders.data / layout.folder, folders.cache)
    with copy.reading(copy.folder):
        return layout.read(copy, split)


def find(layouts: Sequence[Layout], data: Path) -> Layout | None:
    """The first of the layouts that is there."""
    return next((layout for layout in layouts if layout.present(data)), None)


def get(info: DatasetInfo, layouts: Sequence[Layout], data: Path) -> Layout:
    """Download the data set in the first layout that can be downloaded; BenchError says what to do if none can."""
    failures = []
    for layout in layouts:
        if layout.download:
            try:
                key = layout.folder.replace("/", "-")
                downloads.fetch(layout.download, data, info.name, key, functools.partial(layout.present, data))
            except downloads.DownloadFailed as error:
                failures.append(str(error))
                continue
            missing = layout.missing(data)
            if not missing:
                return layout
            failures.append(f"the download holds no {', '.join(missing)}")
    raise not_there(info, layouts, data, failures)


def not_there(info: DatasetInfo, layouts: Sequence[Layout], data: Path, failures: Sequence[str] = ()) -> BenchError:
    """One line: which data set, where it was looked for, why it could not be had, what to download and where to put it."""
    looked = " or ".join(dict.fromkeys(str(data / layout.folder) for layout in layouts))
    begun = [layout for layout in layouts if len(layout.missing(data)) < len(layout.needs)]
    parts = [f"data set {info.name} is not in {looked}"]
    if begun:
        parts[0] += f" (missing: {', '.join(begun[0].missing(data))})"
    if elsewhere := _elsewhere(layouts, data):
        there, wanted = elsewhere
        parts.append(f"{there} has what it needs: if that is it, rename it to {wanted}")
        return BenchError("; ".join(parts))
    if failures:
        parts.append(f"the download failed ({' | '.join(dict.fromkeys(failures))})")
    return BenchError("; ".join([*parts, how_to_get(layouts, data)]))


def _elsewhere(layouts: Sequence[Layout], data: Path) -> tuple[Path, Path] | None:
    """A folder that holds the data set under another name, such as its archive's own, and the name that is wanted."""
    places = _folders_below(data)
    for layout in layouts:
        for part in layout.download:
            for old, new in getattr(part, "renamed", ()):  # what the archive calls it -> what it is called here
                found = next((place for place in places if place.name == Path(old).name and place != data / new), None)
                if found:
                    return found, data / new
        taken = {data / other.folder for other in layouts}
        for place in places:
            if place in taken or not _alike(place.name, layout):
                continue
            if all(any(place.glob(need)) for need in layout.needs):
                return place, data / layout.folder
    return None


def _alike(name: str, layout: Layout) -> bool:
    """May a folder of that name be the one of a layout? What many data sets need (train, val) tells nothing by itself."""
    if not set(layout.needs) <= COMMON and not any("*" in need for need in layout.needs):
        return True
    one, other = (re.sub(r"[^a-z0-9]", "", text.lower()) for text in (name, Path(layout.folder).name))
    return SequenceMatcher(None, one, other).ratio() > 0.7


def _folders_below(data: Path) -> list[Path]:
    """The folders in the data folder, and those in them, as far as there are not too many; the shorter names first."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        own = sorted(place for place in data.iterdir() if place.is_dir() and not is_litter(place.name))
        found = own + [below for place in own[:100] for below in sorted(place.iterdir())[:100] if below.is_dir()]
    return found


def how_to_get(layouts: Sequence[Layout], data: Path) -> str:
    """What a person does to have the data set, in one sentence."""
    for layout in layouts:
        if layout.download:
            steps = " and ".join(part.instruction(data) for part in layout.download)
            return f"{steps}, then repeat the command"
    return f"{layouts[0].by_hand}, so that {_listed(layouts[0], data)}"


def _listed(layout: Layout, data: Path) -> str:
    """What will be there in the end."""
    return f"{data / layout.folder} has {', '.join(layout.needs)}"
