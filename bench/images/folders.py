"""The folders of a command: what lies in them, which are used where none is named, and what is said if one cannot be had.

A container may run without a home folder, or with one that cannot be written. That matters only to commands that need the
folder: until then it is a path that nobody has asked for.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import BenchError, one_line

APPLICATION = "continual-clip-bench"
OPTIONS = {"data": "--data-dir or BENCH_DATA", "cache": "--cache-dir or BENCH_CACHE", "results": "--out"}


@dataclass(frozen=True)
class Folders:
    """Where a data set finds and keeps its files."""

    data: Path  # what the user has placed or downloaded: one folder a data set
    cache: Path  # what can be made again at any time: generated images, digests, features
    features_apart: Path | None = None  # where features are kept instead

    @property
    def features(self) -> Path:
        """Of the feature store."""
        return self.features_apart or self.cache / "features"


class Unknown(type(Path())):  # type: ignore[misc]  # Python 3.11 inherits from the paths of this system only
    """The path of a folder that this machine has no place for: using it is an error that says how to name one."""

    what = ""

    @classmethod
    def folder(cls, what: str) -> "Unknown":
        path = cls(f"(no {what} folder)")
        path.what = what
        return path

    def _refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise BenchError(
            f"there is no home folder, and so no place for the {self.what} folder; name one with {OPTIONS[self.what]} "
            f"(data sets: {OPTIONS['data']}, what is kept between runs: {OPTIONS['cache']})"
        )

    __truediv__ = __fspath__ = joinpath = stat = exists = is_dir = glob = mkdir = iterdir = _refuse

    def absolute(self) -> "Unknown":
        return self

    def resolve(self, strict: bool = False) -> "Unknown":
        return self


def chosen(data: Path | None, cache: Path | None) -> Folders:
    """The folders that were named, else the user's own."""
    return Folders(data or _of_user("data"), cache or _of_user("cache"))


def _of_user(what: str) -> Path:
    from platformdirs import user_cache_path, user_data_path

    try:
        return {"data": user_data_path, "cache": user_cache_path}[what](APPLICATION)
    except RuntimeError:  # neither HOME nor an entry in the list of users
        return Unknown.folder(what)


def as_text(path: Path) -> str | None:
    """The absolute path for another process; None for a folder that is not known."""
    return None if isinstance(path, Unknown) else str(path.resolve())


def refused(error: OSError, folders: Folders, out: Path | None = None) -> BenchError | None:
    """The one line for a file that could not be read or written below one of the folders; None for any other error."""
    if not isinstance(error.filename, str | bytes | os.PathLike) or error.errno == errno.ENOSPC:
        return None
    path = Path(os.fsdecode(error.filename)).absolute()
    for what, folder in (("cache", folders.cache), ("data", folders.data), ("results", out)):
        if folder is None or isinstance(folder, Unknown):
            continue
        place = folder.absolute()
        if path == place or place in path.parents or (path in place.parents and not place.exists()):
            why = one_line(error)
            return BenchError(f"the {what} folder {folder} cannot be used ({path}: {why}); name another one with {OPTIONS[what]}")
    return None
