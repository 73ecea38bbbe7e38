"""A data set: what is known of it, how its files may lie on disk, and how a copy of them is read."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from bench.errors import BenchError, one_line
from bench.images.downloads import Part
from bench.images.files import ImageFiles
from bench.images.folders import Folders
from bench.images.listing import PILLOW, TORCHVISION, Walk, class_after_class, folders_in, in_words
from bench.images.sources import ImageSource, out_of_range, out_of_range_in_words


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without touching an image."""

    name: str
    version: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]  # each with one "{}"; training uses the first, evaluation averages all of them
    summary: str  # one line
    origin: str  # where the images come from, and their licence
    train_images: int | None = None  # number of images of the whole split; None: not fixed, or not stated
    test_images: int | None = None
    image_size: tuple[int, int] = (224, 224)  # height and width of a typical image
    repeated_names: tuple[str, ...] = ()  # names that the official list has twice; any other two classes of one name are refused

    def images(self, split: str) -> int | None:
        """The number of images of the whole "train" or "test" split, if it is fixed."""
        return {"train": self.train_images, "test": self.test_images}[split]


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
        classes = len(self.info.class_names)
        bad = out_of_range(labels, classes)
        if len(bad):
            image = names[bad[0]] if names is not None else f"image {bad[0]}"
            raise self.damaged(where, out_of_range_in_words(labels[bad[0]], image, classes))
        return labels

    def labels_by_name(self, path: Path, images: Sequence[str], names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """(n,) int64: which of `classes` each image belongs to, by the name that the list in `path` gives."""
        label_of = {name: label for label, name in enumerate(classes)}
        for image, name in zip(images, names):
            if name not in label_of:
                raise self.damaged(path, f"image {image} is of class {name!r}, which is none of the {len(classes)} classes")
        return np.array([label_of[name] for name in names], dtype=np.int64)

    def text_lines(self, path: Path) -> list[str]:
        """The lines of a text file without empty ones and outer spaces."""
        with self.reading(path):
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line]

    def files(self, paths: Sequence[str], labels: np.ndarray) -> ImageFiles:
        """Images in files of their own; paths are relative to the copy's folder."""
        return ImageFiles(self.folder, paths, labels, self.cache, self.damaged)

    def sub_folders(self, below: str = "") -> list[str]:
        """The names of the folders in a folder of the copy, sorted as torchvision's ImageFolder sorts them."""
        place = self.folder / below
        with self.reading(place):
            return folders_in(place)

    def class_folders(self, classes: Sequence[str], below: str = "") -> tuple[list[str], np.ndarray]:
        """The images of class folders, class k being `classes[k]`: paths relative to the copy's folder, and labels.

        Read are the kinds of files that torchvision's image folders read; what lies there beside them is said.
        """
        prefix = f"{below}/" if below else ""
        walk, images = Walk(TORCHVISION), []
        for label, name in enumerate(classes):
            place = self.folder / prefix / name
            if not place.is_dir():
                raise self.damaged(place, f"the folder of class {self.info.class_names[label]!r} is missing")
            own = walk.images_below(place, f"{prefix}{name}/")
            if not own:
                raise self.damaged(place, f"the folder of class {self.info.class_names[label]!r} holds no image")
            images.append(own)
        pictures = {suffix: count for suffix, count in walk.left_out.items() if suffix in PILLOW}  # lists lie there by design
        if pictures:
            note(f"{self.info.name}: {in_words(pictures, str(self.folder / below))}")
        return class_after_class(images)


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
    download: tuple[Part, ...] = ()
    by_hand: str = ""
    official: dict[str, str] = field(default_factory=dict)  # known digests ("md5:...") of files below the folder

    def missing(self, data: Path) -> list[str]:
        """What is not there of what it needs."""
        folder = data / self.folder
        return [need for need in self.needs if not any(folder.glob(need))]

    def present(self, data: Path) -> bool:
        return not self.missing(data)


# What the name and version of a data set say about its images.
#   pinned: all of it; a digest in the package is compared whenever they are made
#   official: which images are meant; a copy may lack or alter some, so a finished run is compared with the copy that is there
#   own: nothing, they are anybody's; what they are is a part of the identity of every run on them
Content = Literal["pinned", "official", "own"]


@dataclass(frozen=True)
class Dataset:
    """A data set: facts, and two sources that are opened when first asked for.

    The object that a `bench.datasets` entry point names. `open_split(split, folders)` gives the images of "train" or
    "test", or raises BenchError with one line that says what is missing, where it was looked for and how to get it.
    `layouts` are the ways in which its files may lie on disk (Layout); none where they are made here.
    """

    info: DatasetInfo
    open_split: Callable[[str, Folders], ImageSource]
    layouts: tuple[Layout, ...] = ()
    content: Content = "official"
    notes: tuple[str, ...] = ()  # what a user should know of this copy: files that are not read, for instance


@functools.cache
def note(text: str) -> None:
    """A line on stderr, once in a process."""
    print(f"note: {text}", file=sys.stderr)
