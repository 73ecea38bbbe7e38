"""A small disk of its own on which one command is run again and again while faults happen to it."""

import contextlib
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

METHODS = "zero-shot,simplecil,coop,linear-probe"
COMMAND = (
    "run", "--protocol", "mini60-6x10", "--methods", METHODS, "--set", "coop.epochs=3", "--limit-train", "4", "--limit-test", "2",
    "--device", "cpu", "--out", "results", "--cache-dir", "cache",
)  # fmt: skip
PATIENCE = 1800  # seconds until a command counts as hanging; a busy machine may take long
FILES = ("records.csv", "samples.safetensors")
DISK_MEGABYTES = 96


@dataclass
class Ended:
    """How a command ended: "exit 0", "SIGKILL", ..."""

    code: int
    stderr: str

    @property
    def words(self) -> str:
        return f"exit {self.code}" if self.code >= 0 else signal.Signals(-self.code).name


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        *(
            "bench.runs.runner",
            "bench.runs.launch",
            "bench.commands.run",
            "bench.runs.estimate",
            "bench.reports.tables",
            "sklearn.linear_model",
            "protocols.mini",
        ),
        *("methods.zero_shot", "methods.closed_form.simplecil", "methods.text_prompts.coop", "methods.bounds.linear_probe"),
    ]
)


class Forked:
    """A command in a process of its own; as much of subprocess.Popen as is needed here."""

    def __init__(self, folder: Path, log: Path, arguments: tuple[str, ...], before: Callable | None):
        self._process = FORKS.Process(target=_bench, args=(folder, log, arguments, before))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("bench", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _bench(folder: Path, log: Path, arguments: tuple[str, ...], before: Callable | None) -> None:
    """In the new process: what `bench ARGUMENTS` does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    for number, target in ((1, os.devnull), (2, log)):
        os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT), number)
    if before:
        before()
    from bench.commands.main import main

    main(arguments, prog_name="bench")


@dataclass
class Scene:
    """The folder, and how to run the command in it."""

    root: Path
    draws: random.Random
    work: float = 5.0  # seconds that an undisturbed command works on runs
    running: dict = field(default_factory=dict)  # commands in progress, and where they complain
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def features(self) -> Path:
        return self.root / "cache" / "features"

    def start(self, *more: str, environment: dict[str, str] | None = None, before: Callable | None = None):
        """The command, begun; `before` is called in the new process.

        It is forked off a process that has imported torch, which saves most of its time; with an environment of its own it
        starts from nothing.
        """
        log = self.root / f"stderr-{next(self._numbers)}"
        if environment:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench", *COMMAND, *more],
                cwd=self.root,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
                stdout=subprocess.DEVNULL,
                stderr=open(log, "w"),  # noqa: SIM115 - the process keeps it
            )
        else:
            process = Forked(self.root, log, (*COMMAND, *more), before)
        self.running[process] = log
        return process

    def end(self, process) -> Ended:
        """Wait for the command, and for what it said."""
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError("the command hangs") from None
        log = self.running.pop(process)
        said = log.read_text()
        log.unlink()
        return Ended(code, said)

    def carry_out(self, *more: str, **options) -> Ended:
        return self.end(self.start(*more, **options))

    def until_it_works(self, process: subprocess.Popen) -> None:
        """Until a run is in progress, then a random while longer."""
        self.wait_for(process, lambda: any((self.results / ".locks").glob("*.holder")))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draws.uniform(0, self.work))
            self.work *= 0.8  # it has ended: the machine is less busy than it was

    def wait_for(self, process: subprocess.Popen, condition) -> bool:
        """Until the condition holds; False if the command ends first."""
        while process.poll() is None:
            if condition():
                return True
            time.sleep(0.01)
        return False

    def finished(self) -> dict[str, bytes]:
        """The result files of all finished runs, by their place."""
        runs = [manifest.parent for manifest in self.results.rglob("manifest.json")]
        return {str((run / name).relative_to(self.results)): (run / name).read_bytes() for run in runs for name in FILES}

    def close(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


def can_mount() -> bool:
    """Is this process allowed to mount? Root is, outside of most containers."""
    with contextlib.suppress(OSError):
        probe = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
        return os.geteuid() == 0 and probe.returncode == 0
    return False


@contextlib.contextmanager
def mounted(folder: Path, *steps: Sequence[str]) -> Iterator[None]:
    """The mounts that the steps make on a folder, until the end of the block."""
    done = 0
    try:
        for step in steps:
            subprocess.run(["mount", *step, str(folder)], check=True, capture_output=True)
            done = 1
        yield
    finally:
        for _ in range(done):
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """The folder as a disk of its own, where that is possible."""
    folder.mkdir(parents=True, exist_ok=True)
    if not can_mount():
        yield
        return
    with mounted(folder, ("-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs")):
        yield
