"""One process at a time: who carries out a run, who writes an entry of the feature store.

The operating system's lock on a file decides: it ends with the process that holds it, however that ends. Beside the lock
lies a note of who holds it (host, process, since when), for messages and for shared file systems on which locks do not
reach other machines: there a note of another host counts as long as that host keeps touching it.
"""

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

BEAT_SECONDS = 60.0  # a holder touches its note so often
STALE_SECONDS = 600.0  # a note of another host that has not been touched for so long belongs to nobody
POLL_SECONDS = 0.2
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # file systems without hard links


class Held(Exception):
    """Somebody else has it; the message says who."""


class Claim:
    """A lock that is held, until `release`."""

    def __init__(self, path: Path):
        """Take the lock at `path`; Held if somebody else has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._note = note_of(path)
        self._lock = FileLock(path, timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise Held(describe(_read(self._note))) from None
        try:
            os.utime(path)  # its time of change is now the file server's present
            self._clear_stale_note(path)
            self._write_note()
        except BaseException:
            self._lock.release()
            raise
        self._ended = threading.Event()
        threading.Thread(target=self._beat, name="claim", daemon=True).start()

    def release(self) -> None:
        self._ended.set()
        self._note.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def _clear_stale_note(self, path: Path) -> None:
        """Remove the note of a holder that is gone; Held if another host still holds the lock."""
        found = _read(self._note)
        if found is None and not self._note.exists():
            return
        if found and found["host"] != socket.gethostname():  # on this host it would hold the lock itself
            try:
                age = path.stat().st_mtime - self._note.stat().st_mtime
            except FileNotFoundError:
                return
            if age < STALE_SECONDS:
                raise Held(describe(found))
        aside = self._note.with_name(f"{self._note.name}.{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._note, aside)
            other = _read(aside)
            if other != found:  # another host was quicker, and this is its note
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self._note)
                aside.unlink()
                raise Held(describe(other))
            aside.unlink()

    def _write_note(self) -> None:
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        draft = self._note.with_name(f"{self._note.name}.{uuid.uuid4().hex}")
        try:
            draft.write_text(json.dumps(facts))
            os.link(draft, self._note)  # whole at once, and only if another host has not written one in between
        except FileExistsError:
            raise Held(describe(_read(self._note))) from None
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.replace(draft, self._note)
        finally:
            draft.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._note)


@contextlib.contextmanager
def waiting(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, however long others have it first."""
    while True:
        try:
            claim = Claim(path)
            break
        except Held:
            time.sleep(POLL_SECONDS)
    with claim:
        yield


def note_of(path: Path) -> Path:
    """Where the holder of a lock says who it is."""
    return path.with_suffix(".holder")


def holder(path: Path) -> str | None:
    """Who holds the lock at `path` now, in words; None if nobody does. Changes nothing."""
    if not path.exists():
        return None
    try:
        claim = Claim(path)
    except Held as held:
        return str(held)
    claim.release()
    return None


def describe(facts: dict | None) -> str:
    """A note in words.

    >>> describe({"host": "node7", "pid": 12, "since": 0.0})[:21]
    'process 12 on node7, '
    """
    if not facts:
        return "another process"
    return f"process {facts['pid']} on {facts['host']}, since {datetime.fromtimestamp(facts['since']):%Y-%m-%d %H:%M:%S}"


def _read(note: Path) -> dict | None:
    """What a note says; None if there is none, or half of one (its writer died: it counts for nobody)."""
    try:
        facts = json.loads(note.read_text())
        return {"host": str(facts["host"]), "pid": int(facts["pid"]), "since": float(facts["since"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
