"""Digests of files, remembered between runs: a file is read again only if its size or one of its times differs.

The times are that of the content and that of the file's entry, which a program cannot set: a file that was put in the place of
another one is read again even if it has the other's size and date.
"""

import functools
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from bench.system.files import file_digest, write_atomically
from bench.system.progress import followed

WORKERS = min(8, os.cpu_count() or 1)  # hashing and reading both leave the interpreter free


class FileDigests:
    """The digests of the files below one folder.

    They are kept in the cache folder, in one text file for each folder of images, a line a file: digest, bytes, times of
    change of content and entry in ns, path. A damaged line is a file that is read again.
    """

    def __init__(self, root: Path, cache: Path):
        self.root = root
        self.path = cache / "file-digests-2" / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:24]}.txt"

    def of(self, paths: Sequence[str]) -> list[str]:
        """SHA-256 of the content of each file, 64 hex digits; paths are relative to the folder."""
        stamps = [self._stamp(path) for path in paths]
        known = self._load()
        missing = [path for path, stamp in zip(paths, stamps) if known.get(path, ("", ""))[0] != stamp]
        if missing:
            with ThreadPoolExecutor(WORKERS) as pool:
                found = pool.map(lambda path: file_digest(self.root / path), missing)
                digests = list(followed(found, "hashing files", len(missing)))
            stamp_of = dict(zip(paths, stamps))
            fresh = {path: (stamp_of[path], digest) for path, digest in zip(missing, digests)}
            known |= fresh
            self._save(fresh)
        return [known[path][1] for path in paths]

    def _stamp(self, path: str) -> str:
        facts = os.stat(self.root / path)
        return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"

    def _load(self) -> dict[str, tuple[str, str]]:
        """path -> (stamp, digest)"""
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return {}
        return dict(_parse(self.path, facts.st_size, facts.st_mtime_ns))

    def _save(self, fresh: dict[str, tuple[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):  # another process may have added others in the meantime
            known = self._load() | fresh
            lines = (f"{digest} {stamp} {path}\n" for path, (stamp, digest) in known.items() if "\n" not in path)
            write_atomically(self.path, "".join(lines).encode("utf-8", "surrogateescape"))


@functools.lru_cache(maxsize=4)
def _parse(path: Path, size: int, changed_ns: int) -> dict[str, tuple[str, str]]:
    """What a file of digests says, path -> (stamp, digest); size and time of change tell whether it is still the same."""
    known = {}
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        parts = line.split(" ", 4)
        if len(parts) == 5 and len(parts[0]) == 64:
            known[parts[4]] = (" ".join(parts[1:4]), parts[0])
    return known
