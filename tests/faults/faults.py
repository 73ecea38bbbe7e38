"""What happens to the command: each function lets one fault happen and says how the command ended, None if it did not."""

import contextlib
import errno
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.scene import Ended, Scene, can_mount, mounted

Fault = Callable[[Scene], list[Ended] | None]


def killed(scene: Scene) -> list[Ended] | None:
    """SIGKILL at a random moment"""
    return _signalled(scene, signal.SIGKILL)


def terminated(scene: Scene) -> list[Ended] | None:
    """SIGTERM at a random moment"""
    return _signalled(scene, signal.SIGTERM)


def interrupted(scene: Scene) -> list[Ended] | None:
    """Ctrl-C (SIGINT) at a random moment"""
    return _signalled(scene, signal.SIGINT)


def _signalled(scene: Scene, number: int) -> list[Ended] | None:
    process = scene.start()
    scene.until_it_works(process)
    met = process.poll() is None
    process.send_signal(number)
    ended = scene.end(process)
    return [ended] if met else None


def lost_worker(scene: Scene) -> list[Ended] | None:
    """SIGKILL of one of two workers (--jobs 2)"""
    process = scene.start("--jobs", "2")
    scene.until_it_works(process)
    workers = _children(process.pid)
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(scene.draws.choice(workers), signal.SIGKILL)
    ended = scene.end(process)
    return [ended] if workers else None


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def full_disk(scene: Scene) -> list[Ended]:
    """full disk: a tmpfs with 0 to 300 KB left"""
    ballast = scene.root / "ballast"
    try:
        with open(ballast, "wb") as file:
            try:
                while True:
                    file.write(b"\0" * (1 << 16))
                    file.flush()
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        size = ballast.stat().st_size
        os.truncate(ballast, max(0, size - scene.draws.randrange(300 << 10)))
        return [scene.carry_out()]
    finally:
        ballast.unlink(missing_ok=True)


def file_size_limit(scene: Scene) -> list[Ended]:
    """full disk, stand-in: no file may grow beyond 1 to 40 KB (RLIMIT_FSIZE)"""
    limit = scene.draws.randrange(1 << 10, 40 << 10)
    return [scene.carry_out(before=functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)))]


def read_only(scene: Scene) -> list[Ended]:
    """read-only directory: results, one protocol's, or the feature store"""
    folder = scene.draws.choice([scene.results, scene.results / "mini60-6x10", scene.features])
    folder.mkdir(parents=True, exist_ok=True)
    with _only_readable(folder):
        return [scene.carry_out()]


@contextlib.contextmanager
def _only_readable(folder: Path) -> Iterator[None]:
    if can_mount():
        with mounted(folder, ("--bind", str(folder)), ("-o", "remount,bind,ro")):
            yield
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    try:
        for path in folders:
            path.chmod(0o555)
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def damaged_checkpoint(scene: Scene) -> list[Ended] | None:
    """killed, and the checkpoint cut short or a bit of it changed"""
    process = scene.start()
    if scene.wait_for(process, lambda: any(scene.results.rglob("checkpoint.safetensors"))):
        time.sleep(scene.draws.uniform(0, 0.3 * scene.work))
        process.kill()
    ended = scene.end(process)
    found = sorted(scene.results.rglob("checkpoint.safetensors"))
    if not found:
        return None
    _spoil(scene, scene.draws.choice(found))
    return [ended]


def damaged_features(scene: Scene) -> list[Ended] | None:
    """an entry of the feature store cut short, changed or half deleted"""
    found = sorted([*scene.features.glob("??/*.npy"), *scene.features.glob("??/*.json")])
    if not found:
        return None
    for path in scene.draws.sample(found, min(len(found), 3)):
        if path.exists():
            _spoil(scene, path)
    return _signalled(scene, signal.SIGKILL) or [scene.carry_out()]


def _spoil(scene: Scene, path: Path) -> None:
    data = bytearray(path.read_bytes())
    kind = scene.draws.choice(["cut", "change", "delete"] if path.suffix != ".safetensors" else ["cut", "change"])
    if kind == "delete":
        path.unlink()
        return
    if kind == "cut" or not data:
        del data[scene.draws.randrange(len(data) or 1) :]
    else:
        data[scene.draws.randrange(len(data))] ^= 1 << scene.draws.randrange(8)
    path.write_bytes(data)


def clock_jump(scene: Scene) -> list[Ended] | None:
    """clock jump of up to two years at a random moment, then SIGKILL"""
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
    offset = scene.draws.uniform(-730, 730)
    clock = scene.root / "clock"
    clock.write_text("+0\n")
    environment = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    try:
        if library:
            process = scene.start(environment=environment | {"LD_PRELOAD": str(library)})
        else:
            process = scene.start(environment=_patched_clock(scene, clock))
        scene.until_it_works(process)
        if process.poll() is not None:
            scene.end(process)
            return None
        clock.write_text(f"{offset:+.0f}d\n")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(scene.draws.uniform(0, scene.work))
        process.kill()
        return [scene.end(process)]
    finally:
        clock.unlink()


def _patched_clock(scene: Scene, clock: Path) -> dict[str, str]:
    """Stand-in without libfaketime: Python's own time.time reads the file."""
    folder = scene.root / "patched"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        "real = time.time\n"
        "def jumped():\n"
        f"    text = open({str(clock)!r}).read().strip().removesuffix('d')\n"
        "    return real() + 86400 * float(text or 0)\n"
        "time.time = jumped\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), *map(str, sys.path)])}


def racing(scene: Scene) -> list[Ended]:
    """two racing launchers, every third time one of them killed"""
    first = scene.start()
    time.sleep(scene.draws.uniform(0, 1))
    second = scene.start()
    written: dict[Path, int] = {}

    def twice() -> bool:
        """Has a finished run been written again?"""
        for manifest in scene.results.rglob("manifest.json"):
            if written.setdefault(manifest, manifest.stat().st_ino) != manifest.stat().st_ino:
                raise AssertionError(f"{manifest.parent} was carried out twice")
        return False

    if scene.draws.random() < 1 / 3:
        scene.until_it_works(first)
        scene.draws.choice([first, second]).kill()
    scene.wait_for(first, twice)
    scene.wait_for(second, twice)
    return [scene.end(first), scene.end(second)]


def all_faults() -> list[Fault]:
    """Those that can be made here."""
    disk = full_disk if can_mount() else file_size_limit
    return [
        killed, terminated, interrupted, disk, *([read_only] if can_mount() or os.geteuid() else []), damaged_checkpoint,
        damaged_features, clock_jump, racing, *([lost_worker] if shutil.which("ps") else []),
    ]  # fmt: skip
