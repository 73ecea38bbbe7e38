"""Data sets that lie on disk: the layouts in which they are read, where they are looked for, and how they get there."""

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from bench.errors import BenchError, one_line
from bench.images import downloads
from bench.images.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.images.files import ImageFiles
from bench.images.listing import PILLOW, TORCHVISION, Walk, in_words, is_litter

COMMON = {"train", "val", "test", "images", "annotations", "data", "labels"}  # names that tell no data sets apart


@dataclass(frozen=True)
class Copy:
    """One copy of a data set on disk, while it is read: what a layout's `read` is given.

    Its methods build image sources whose errors name the data set and the file.
    """

    info: DatasetInfo
    folder: Path
    cache: Path

    def damaged(self, path: Path, why: str) -> BenchError:
        """The error for a file that is missing or not what it should be."""
        why = " ".join(why.split())
        return BenchError(
            f"{self.info.name}: {path}: {why}; put a good copy there (bench data check {self.info.name} tells all that is wrong)"
        )

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Around the parsing of a file in somebody else's format: whatever is raised becomes an error that names it."""
        try:
            yield
        except (BenchError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise self.damaged(Path(error.filename or path), "the file is missing") from error
        except PermissionError as error:
            raise self.damaged(Path(error.filename or path), "it may not be read") from error
        except Exception as error:  # parsers of foreign formats raise anything on damaged bytes
            raise self.damaged(path, f"the file is damaged ({type(error).__name__}: {one_line(error)})") from error

    def labels(self, values: Sequence[int] | np.ndarray, where: Path, names: Sequence[str] | None = None) -> np.ndarray:
        """(n,) int64, after a check that each is one of the data set's labels 0..K-1; `names` are the images'."""
        labels = np.asarray(values, dtype=np.int64)
        bad = np.flatnonzero((labels < 0) | (labels >= len(self.info.class_names)))
        if len(bad):
            image = names[bad[0]] if names is not None else f"image {bad[0]}"
            raise self.damaged(
                where, f"label {labels[bad[0]]} of {image} is out of range 0..{len(self.info.class_names) - 1}"
            )
        return labels

    def files(self, paths: Sequence[str], labels: np.ndarray) -> ImageFiles:
        """Images in files of their own; paths are relative to the copy's folder."""
        return ImageFiles(self.folder, paths, labels, self.cache, self.damaged)

    def sub_folders(self, below: str = "") -> list[str]:
        """The names of the folders in a folder of the copy, sorted as torchvision's ImageFolder sorts them."""
        place = self.folder / below
        with self.reading(place):
            return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not is_litter(entry.name))

    def class_folders(self, classes: Sequence[str], below: str = "") -> tuple[list[str], np.ndarray]:
        """The images of class folders, class k being `classes[k]`: paths relative to the copy's folder, and labels.

        Read are the kinds of files that torchvision's image folders read; what lies there beside them is said.
        """
        prefix = f"{below}/" if below else ""
        paths, labels, walk = [], [], Walk(TORCHVISION)
        for label, name in enumerate(classes):
            place = self.folder / prefix / name
            if not place.is_dir():
                raise self.damaged(place, f"the folder of class {self.info.class_names[label]!r} is missing")
            own = walk.images_below(place, f"{prefix}{name}/")
            if not own:
                raise self.damaged(place, f"the folder of class {self.info.class_names[label]!r} holds no image")
            paths += own
            labels += [label] * len(own)
        pictures = {suffix: count for suffix, count in walk.left_out.items() if suffix in PILLOW}  # lists lie there by design
        if pictures:
            _note(f"{self.info.name}: {in_words(pictures, str(self.folder / below))}")
        return paths, np.array(labels, dtype=np.int64)


@dataclass(frozen=True)
class Layout:
    """One way in which the files of a data set may lie on disk.

    It is there when everything in `needs` is. `read(copy, split)` gives the images of "train" or "test". `download` is
    what `bench data get`, and a run that finds nothing, fetch by themselves; it is empty where a licence or a missing
    public source forbids that, and `by_hand` then says what to download and how it has to lie.
    """

    folder: str  # below the data folder
    needs: tuple[str, ...]  # files or folders below it; may hold * as a wildcard
    read: Callable[[Copy, str], ImageSource]
    download: tuple[downloads.Part, ...] = ()
    by_hand: str = ""
    official: dict[str, str] = field(default_factory=dict)  # known digests ("md5:...") of files below the folder

    def missing(self, data: Path) -> list[str]:
        """What is not there of what it needs."""
        folder = data / self.folder
        return [need for need in self.needs if not any(folder.glob(need))]

    def present(self, data: Path) -> bool:
        return not self.missing(data)


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
        _note(
            f"{info.name}: {len(source)} {split} images in {folders.data / layout.folder}, the official number is "
            f"{official}: results are not comparable with others"
        )
    return source


@functools.cache
def _note(text: str) -> None:
    """A line on stderr, once in a process."""
    print(f"note: {text}", file=sys.stderr)


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
