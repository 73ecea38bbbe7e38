"""Claims: one holder at a time, whoever dies; notes of other hosts count as long as they are fresh."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from bench.system import claims
from bench.system.claims import Claim, Held, holder, note_of, waiting

HOLD = """
import sys, time
from pathlib import Path
from bench.system.claims import Claim
claim = Claim(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def write_note(path, age: float, host: str = "elsewhere") -> None:
    """A note as another host would have left it, last touched `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note_of(path).write_text(json.dumps({"host": host, "pid": 7, "since": 1e9}))
    os.utime(note_of(path), (time.time() - age,) * 2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "run.lock"


def test_a_second_claim_is_told_who_holds_the_first(path):
    with Claim(path):
        with pytest.raises(Held, match=rf"process {os.getpid()} on {socket.gethostname()}, since 20"):
            Claim(path)
        assert f"process {os.getpid()}" in holder(path)
    assert holder(path) is None
    Claim(path).release()
    assert [file.name for file in path.parent.iterdir()] == ["run.lock"]


def test_a_dead_process_holds_nothing(path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Held, match=f"process {process.pid} on"):
        Claim(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert note_of(path).exists()  # nobody could take it away
    with Claim(path):
        assert json.loads(note_of(path).read_text())["pid"] == os.getpid()


def test_another_host_holds_what_it_keeps_touching(path):
    write_note(path, age=claims.STALE_SECONDS / 2)
    with pytest.raises(Held, match="process 7 on elsewhere, since 2001-09-09"):
        Claim(path)
    assert note_of(path).exists()


def test_the_stale_note_of_another_host_is_taken_over(path):
    write_note(path, age=claims.STALE_SECONDS * 2)
    with Claim(path):
        assert json.loads(note_of(path).read_text())["host"] == socket.gethostname()
    assert [file.name for file in path.parent.iterdir()] == ["run.lock"]


def test_another_host_that_takes_over_first_keeps_it(path, monkeypatch):
    write_note(path, age=claims.STALE_SECONDS * 2)
    rename = os.rename

    def too_late(source, target):
        write_note(path, age=0, host="quicker")
        rename(source, target)

    monkeypatch.setattr(os, "rename", too_late)
    with pytest.raises(Held, match="on quicker"):
        Claim(path)
    assert json.loads(note_of(path).read_text())["host"] == "quicker"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_damaged_note_counts_for_nobody(path, content):
    path.parent.mkdir()
    note_of(path).write_text(content)
    Claim(path).release()


def test_a_holder_touches_its_note(path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.01)
    with Claim(path):
        os.utime(note_of(path), (0, 0))
        end = time.monotonic() + 10
        while note_of(path).stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert note_of(path).stat().st_mtime > 0


def test_without_hard_links_the_note_is_still_whole(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Claim(path):
        assert json.loads(note_of(path).read_text())["pid"] == os.getpid()


def test_waiting_goes_on_when_the_holder_has_ended(path, monkeypatch):
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    order = []
    first = Claim(path)

    def second() -> None:
        with waiting(path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.05)
    order.append("first")
    first.release()
    thread.join(10)
    assert order == ["first", "second"]
