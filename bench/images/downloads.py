"""Getting files from the internet so that half of one is never taken for the whole.

Everything is fetched into a folder of its own beside the data sets, checked against its length and digest, unpacked
there, and only then moved to its place. What a killed process leaves behind is removed by the next download.
"""

import contextlib
import http.client
import json
import lzma
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from bench.errors import BenchError, first_line, one_line
from bench.system.files import file_digest
from bench.system.offline import VARIABLES, offline

TIMEOUT = 30  # seconds without an answer
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OFFLINE = VARIABLES[0]


class DownloadFailed(Exception):
    """A file could not be fetched, or is not the one that was expected; the message says why in a few words."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the internet. An archive is unpacked and removed, unless `unpack` is False; others stay as they are.

    A file of this name that already lies in the data folder, or in `into`, is used instead of a download: that is how
    an archive fetched on another machine is put to use.
    """

    urls: tuple[str, ...]  # the same file at several places, tried in order
    digest: str = ""  # "md5:..." or "sha256:..." in hex; "" where none is known
    into: str = ""  # sub-folder of the data folder in which it is put or unpacked
    name: str = ""  # [the last part of the first URL]
    unpack: bool = True
    inner: tuple[str, ...] = ()  # archives in this archive, relative to `into`: unpacked where they lie, and removed
    renamed: tuple[tuple[str, str], ...] = ()  # what has to move after unpacking, both relative to the data folder
    gives: str = ""  # where this lies already, relative to the data folder, it is not fetched again

    @property
    def file_name(self) -> str:
        return self.name or self.urls[0].split("?")[0].rsplit("/", 1)[-1]

    @property
    def is_archive(self) -> bool:
        return self.unpack and self.file_name.lower().endswith(ARCHIVES)

    def placed(self, data: Path) -> Path | None:
        """Where it lies already, if somebody has put it there."""
        places = (data / self.into / self.file_name, data / self.file_name)
        return next((place for place in places if place.is_file()), None)

    def given(self, data: Path) -> bool:
        """Whether what it gives is there already."""
        return bool(self.gives) and (data / self.gives).exists()

    def at_hand(self, data: Path) -> bool:
        """Whether it can be had without the internet."""
        return self.given(data) or self.placed(data) is not None

    def instruction(self, data: Path) -> str:
        """What a person does who fetches it by hand."""
        target = data / self.into / self.file_name
        return f"download {self.urls[0]} to {target}" + (" (it is unpacked by itself)" if self.is_archive else "")


@dataclass(frozen=True)
class HubFiles:
    """Files of a data set repository of the Hugging Face hub; they are put in `into` without their folders."""

    repository: str  # owner/name
    patterns: tuple[str, ...]  # which files
    into: str
    revision: str = "main"

    def at_hand(self, data: Path) -> bool:
        return False

    def instruction(self, data: Path) -> str:
        return f"download {', '.join(self.patterns)} of huggingface.co/datasets/{self.repository} into {data / self.into}"


Part = RemoteFile | HubFiles


def fetch(parts: Sequence[Part], data: Path, name: str, key: str, already_there: Callable[[], bool] = lambda: False) -> None:
    """Fetch everything that a data set consists of, then put it into the data folder.

    Of the processes that fetch what has the same `key`, one does so; the others wait, and then find it `already_there`.
    Raises DownloadFailed, after which the data folder holds what it held before.
    """
    if (why := offline()) and not all(part.at_hand(data) for part in parts):
        raise DownloadFailed(why)
    with _staging(data, key) as staging:
        if already_there():
            return
        for part in parts:
            if isinstance(part, HubFiles):
                _fetch_from_hub(part, staging, name)
            elif not part.given(data):
                _fetch_file(part, data, staging, name)
        merge(staging, data)


@contextlib.contextmanager
def _staging(data: Path, key: str) -> Iterator[Path]:
    """A folder beside the data sets, removed at the end; one process at a time fetches a data set."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = FileLock(data / f".{key}.lock")
        lock.acquire()
    except OSError as error:
        raise DownloadFailed(f"{data} cannot be written: {one_line(error)}") from error
    try:
        for abandoned in data.glob(f".{key}-*.partial"):
            shutil.rmtree(abandoned, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{key}-", suffix=".partial", dir=data))
        os.chmod(staging, 0o755)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        lock.release()


def merge(source: Path, target: Path) -> None:
    """Move what lies in one folder into another; folders that both have are merged, files of the same name replaced."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            merge(entry, place)
        else:
            os.replace(entry, place)


# -- single files -----------------------------------------------------------------------------------------------


def _fetch_file(part: RemoteFile, data: Path, staging: Path, name: str) -> None:
    folder = staging / part.into
    folder.mkdir(parents=True, exist_ok=True)
    placed = part.placed(data)
    if placed:
        verify(placed, part.digest)
    else:
        placed = staging / f"{part.file_name}.download"
        _fetch_from_any(part, placed, name)
    if part.is_archive:
        print(f"{name}: unpacking {part.file_name}", file=sys.stderr)
        unpack(placed, folder)
        for inner in part.inner:
            unpack(folder / inner, (folder / inner).parent)
            (folder / inner).unlink()
    else:
        shutil.copyfile(placed, folder / part.file_name)
    if placed.parent == staging:
        placed.unlink()
    for old, new in part.renamed:
        if (staging / old).exists():
            (staging / new).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / old, staging / new)


def _fetch_from_any(part: RemoteFile, target: Path, name: str) -> None:
    """Download from the first of the URLs that gives the whole file."""
    failures = []
    for url in part.urls:
        try:
            download(url, target, f"{name}: downloading {part.file_name}")
            verify(target, part.digest)
            return
        except DownloadFailed as error:
            failures.append(f"{url}: {error}")
            target.unlink(missing_ok=True)
    raise DownloadFailed("; ".join(failures))


def download(url: str, target: Path, label: str) -> None:
    """Fetch one file, with its progress on stderr. DownloadFailed if it could not be fetched whole."""
    request = urllib.request.Request(url, headers={"User-Agent": "continual-clip-bench"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, open(target, "wb") as file:
            expected = int(answer.headers.get("Content-Length") or 0)
            received = 0
            with _progress(label, expected) as report:
                while block := answer.read(1 << 20):
                    file.write(block)
                    received += len(block)
                    report(received)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadFailed(str(reason).strip() or type(error).__name__) from error
    if expected and received != expected:
        raise DownloadFailed(f"only {received} of {expected} bytes arrived")


@contextlib.contextmanager
def _progress(label: str, expected: int) -> Iterator[Callable[[int], None]]:
    """One line on stderr: where that is a terminal it counts, elsewhere it is printed once."""
    size = f" ({expected / 1e6:.0f} MB)" if expected else ""
    if not sys.stderr.isatty():
        print(label + size, file=sys.stderr)
        yield lambda received: None
        return
    last = 0.0

    def report(received: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.2:
            last = time.monotonic()
            done = f"{100 * received / expected:.0f} % of {expected / 1e6:.0f} MB" if expected else f"{received / 1e6:.0f} MB"
            print(f"\r{label}: {done}   ", end="", file=sys.stderr, flush=True)

    try:
        yield report
    finally:
        print(file=sys.stderr)


def verify(path: Path, digest: str) -> None:
    """DownloadFailed unless the file has this digest; a file without a known one must at least be readable as what it is."""
    if digest:
        kind, _, expected = digest.partition(":")
        if file_digest(path, kind) != expected:
            raise DownloadFailed(f"{path.name} is not the file that was expected ({kind} differs)")
    elif path.name.removesuffix(".download").endswith(".json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DownloadFailed(f"{path.name} is not JSON") from error


def _fetch_from_hub(part: HubFiles, staging: Path, name: str) -> None:
    from huggingface_hub import snapshot_download

    print(f"{name}: downloading {', '.join(part.patterns)} of huggingface.co/datasets/{part.repository}", file=sys.stderr)
    folder = staging / ".hub"
    try:
        snapshot_download(
            part.repository, repo_type="dataset", revision=part.revision, allow_patterns=list(part.patterns), local_dir=folder
        )
    except Exception as error:  # the client raises its own errors, its HTTP library's and OSError
        reason = first_line(error)
        raise DownloadFailed(f"huggingface.co/datasets/{part.repository}: {reason}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise DownloadFailed(f"huggingface.co/datasets/{part.repository} holds no {' or '.join(part.patterns)}")
    (staging / part.into).mkdir(parents=True, exist_ok=True)
    for path in files:
        os.replace(path, staging / part.into / path.name)
    shutil.rmtree(folder)


# -- archives ---------------------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip archive below a folder.

    Members that would land outside the folder, links that lead out of it and special files are refused; DownloadFailed
    names an archive that is damaged.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter="data")
                while opened.fileobj.read(1 << 20):
                    pass  # to the end, where a compressed file has its checksum
    except tarfile.FilterError as error:
        raise BenchError(f"{archive}: refused, it is not safe to unpack: {one_line(error)}") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        raise DownloadFailed(f"the archive {archive} is damaged ({one_line(error)})") from error
    except OSError as error:
        if error.errno is None:  # gzip's and bz2's own, not the file system's
            raise DownloadFailed(f"the archive {archive} is damaged ({one_line(error)})") from error
        raise


def _unpack_zip(archive: Path, folder: Path) -> None:
    root = folder.resolve()
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            target = (root / member.filename).resolve()
            if stat.S_ISLNK(member.external_attr >> 16) or not target.is_relative_to(root) or "\\" in member.filename:
                raise BenchError(f"{archive}: refused, it is not safe to unpack: {member.filename!r} leads outside")
            opened.extract(member, root)
