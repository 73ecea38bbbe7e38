"""The image files below a folder: which files are images, which folders are entered, and what is left out.

A folder is entered once, however many links lead to it. Hidden entries and what systems and notebooks leave behind are passed
over; every other file that is not read is counted, so that it can be said.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.errors import BenchError, one_line

TORCHVISION = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # its image folders
# still pictures that Pillow reads by itself; not documents, videos and containers of measurements
PILLOW = (
    *TORCHVISION, ".jpe", ".jfif", ".apng", ".gif", ".dib", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
    ".pbm", ".pnm", ".pfm", ".tga", ".icb", ".vda", ".vst", ".ico", ".cur", ".icns", ".pcx", ".dcx", ".dds", ".sgi", ".rgb",
    ".rgba", ".bw", ".qoi", ".psd", ".ras", ".xbm", ".xpm", ".im", ".msp", ".blp", ".ftc", ".ftu",
)  # fmt: skip
LITTER = frozenset(
    ["thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found",
     "icon\r"]
)  # fmt: skip


def is_litter(name: str) -> bool:
    """Hidden, or left by a system, an archive program or a notebook.

    >>> [is_litter(name) for name in (".DS_Store", "._x.jpg", "__MACOSX", "Thumbs.db", "@eaDir", "x.jpg", "_x.jpg", "___")]
    [True, True, True, True, True, False, False, False]
    """
    return name.startswith(".") or (name.startswith("__") and name.strip("_") != "") or name.lower() in LITTER


@dataclass
class Walk:
    """What was met on the way through the folders of one data set.

    entered: real folder -> how it was called when it was entered. left_out: suffix -> files that were not read.
    """

    suffixes: tuple[str, ...] = PILLOW
    entered: dict[tuple[int, int], Path] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def images_below(self, folder: Path, prefix: str = "") -> list[str]:
        """The image files of a folder and its sub-folders, sorted as torchvision sorts them; paths begin with `prefix`."""
        found = []
        waiting = [(folder, prefix, tuple(_number(parent) for parent in folder.resolve().parents))]
        while waiting:
            place, start, above = waiting.pop()
            own = self._enter(place, folder, above)
            if own is None:
                continue
            files, folders = self._entries(place)
            found.append((str(place), [start + name for name in files]))
            waiting += [(place / name, f"{start}{name}/", (*above, own)) for name in folders]
        return [path for _, files in sorted(found) for path in files]

    def _enter(self, place: Path, start: Path, above: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
        """The real folder's number, None if it has been entered under this start already; BenchError if it may not be."""
        own = _number(place)
        if own in above:
            raise BenchError(
                f"{place}: a link to a folder above it, whose images would be counted again and again; remove the link"
            )
        before = self.entered.get(own)
        if before is None:
            self.entered[own] = place
            return own
        if before == start or start in before.parents:
            return None
        raise BenchError(f"{before} and {place} are the same folder; its images can belong to one class of one split only")

    def _entries(self, place: Path) -> tuple[list[str], list[str]]:
        """The names of image files and of folders to enter, sorted."""
        files, folders = [], []
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise BenchError(f"{place}: the folder cannot be read ({one_line(error)})") from error
        for entry in entries:
            if is_litter(entry.name):
                continue
            if _is_folder(entry):
                folders.append(entry.name)
            elif entry.name.lower().endswith(self.suffixes) and _is_file(entry):
                files.append(entry.name)
            else:
                self.left_out[Path(entry.name).suffix.lower() or "no suffix"] += 1
        return files, folders


def _number(place: Path) -> tuple[int, int]:
    """What tells a real folder from every other one."""
    facts = place.stat()
    return facts.st_dev, facts.st_ino


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _is_file(entry: os.DirEntry) -> bool:
    """Not a pipe, a socket or a link to nothing: reading those would wait for ever, or fail in the middle of a run."""
    try:
        return entry.is_file()
    except OSError:
        return False


def in_words(left_out: Mapping[str, int], where: str) -> str:
    """How many files were left out, by suffix, the most frequent ones first; empty if there are none.

    >>> in_words({".txt": 1, ".zip": 2}, "pets")
    '3 files in pets are no images that are read (.zip 2, .txt 1)'
    """
    if not left_out:
        return ""
    total = sum(left_out.values())
    ranked = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{suffix} {count}" for suffix, count in ranked[:6])
    more = f", {len(ranked) - 6} other kinds" if len(ranked) > 6 else ""
    files = "1 file in {} is no image that is read" if total == 1 else f"{total} files in {{}} are no images that are read"
    return f"{files.format(where)} ({kinds}{more})"


def images_below(folder: Path, prefix: str = "", suffixes: tuple[str, ...] = PILLOW) -> list[str]:
    """The image files of one folder and its sub-folders."""
    return Walk(suffixes).images_below(folder, prefix)


def folders_in(place: Path) -> list[str]:
    """The names of the folders in a folder, sorted as torchvision's ImageFolder sorts its classes."""
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not is_litter(entry.name))


def class_after_class(images: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """The images of every class, class 0 first, as one list of paths and one array of labels.

    >>> class_after_class([["a/1.jpg", "a/2.jpg"], ["b/1.jpg"]])
    (['a/1.jpg', 'a/2.jpg', 'b/1.jpg'], array([0, 0, 1]))
    """
    counts = np.array([len(own) for own in images], dtype=np.int64)
    return [path for own in images for path in own], np.repeat(np.arange(len(images)), counts)
