"""The `bench` command in processes that have imported everything already: each is forked from one that did it once.

A process of its own, with its own folder, environment variables, standard streams and exit code, as `python -m bench` has them;
but the seconds that torch and its kin take to be imported are spent once, not by every command of every test. Where a variable
counts that libraries read when they are imported, and on systems but Linux, a usual process is started instead. What a command
imports, and when, cannot be seen here: tests of that start a process themselves.

    python -m tests.forked_bench ADDRESS      serves until its standard input ends

A script that stands in for `bench` calls `python -S tests/forked_bench.py ADDRESS ...`: it needs the standard library alone.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
# variables that count when something is imported: read by the interpreter, by numerical libraries, by clients of a network
AT_IMPORT = (
    "ATEN_", "CUDA_", "HF_", "HOME", "LANG", "LC_", "LD_", "MKL_", "OMP_", "OPENBLAS_", "PYTHON", "PYTORCH_", "TORCH",
    "TRANSFORMERS_", "TZ", "XDG_",
)  # fmt: skip
LONGEST = 1 << 20  # bytes of a message
USABLE = sys.platform == "linux"  # elsewhere a process that holds such libraries cannot be forked, or none at all


class ForkedBench:
    """A server that has imported everything, and the calls to it."""

    def __init__(self, folder: Path):
        self.address = folder / "bench.socket"
        self.environment = dict(os.environ)
        variables_of(self.address).write_text(json.dumps(self.environment))
        command = [sys.executable, "-m", "tests.forked_bench", str(self.address)]
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) if USABLE else None

    def close(self) -> None:
        if self.server:
            assert self.server.stdin
            self.server.stdin.close()
            self.server.wait(60)

    def run(self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float):
        """As subprocess.run does it, with both streams captured."""
        if not fit(self.environment, environment):
            return run_fresh(arguments, cwd, environment, timeout)
        pipes = [os.pipe(), os.pipe()]
        found: list[bytes] = [b"", b""]

        def collect(place: int) -> None:
            with os.fdopen(pipes[place][0], "rb") as stream:
                found[place] = stream.read()

        readers = [threading.Thread(target=collect, args=(place,)) for place in range(2)]
        for reader in readers:
            reader.start()
        try:
            with open(os.devnull, "rb") as nothing:
                code = call(self.address, arguments, cwd, environment, (nothing.fileno(), *(end for _, end in pipes)), timeout)
        finally:
            for _, end in pipes:
                os.close(end)
            for reader in readers:
                reader.join()
        return subprocess.CompletedProcess(["bench", *arguments], code, *(part.decode() for part in found))


def run_fresh(arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float, **options):
    """`python -m bench` in a process that has nothing imported yet."""
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, **options)


def variables_of(address: Path | str) -> Path:
    """Holds the server's environment variables."""
    return Path(address).with_suffix(".json")


def fit(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Are variables that count equal? The path of modules is set anew in every process."""
    counting = [name for name in one.keys() | other.keys() if name.startswith(AT_IMPORT) and name != "PYTHONPATH"]
    return USABLE and all(one.get(name) == other.get(name) for name in counting)


def call(
    address: Path | str, arguments: Sequence[str], cwd: Path | str, environment: Mapping[str, str], streams: Sequence[int],
    timeout: float | None = None, on_path: bool = True,
) -> int:  # fmt: skip
    """The exit code of the command; TimeoutError after so many seconds. on_path: modules of the folder can be imported."""
    facts = {"arguments": list(arguments), "cwd": str(cwd), "environment": dict(environment), "on_path": on_path}
    message = json.dumps(facts).encode()
    assert len(message) < LONGEST
    end = time.monotonic() + 120
    with socket.socket(socket.AF_UNIX) as server:
        while True:  # it may not have imported everything yet
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                server.connect(str(address))
                break
            if time.monotonic() > end:
                raise TimeoutError(f"no server at {address}")
            time.sleep(0.05)
        server.settimeout(timeout)
        server.sendall(len(message).to_bytes(8, "big"))
        socket.send_fds(server, [message[:1]], list(streams))
        server.sendall(message[1:])
        answer = server.recv(64)  # its process id, at once
        pid = int(answer.split()[0])
        try:
            while b"\n" not in answer:
                if not (more := server.recv(64)):
                    raise RuntimeError("the server of commands has ended")
                answer += more
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            raise
    return int(answer.split()[1])


# -- the server ---------------------------------------------------------------------------------------------------


def serve(address: str) -> None:
    import tests.arithmetic  # noqa: F401  (before torch)

    import_everything()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        while listening.fileno() in select.select([listening.fileno(), 0], [], [])[0]:  # else: whoever started it is gone
            connection, _ = listening.accept()
            if os.fork() == 0:  # one process a call waits for the command, and tells how it ended
                listening.close()
                _answer(connection)
            connection.close()
            _reap()
    os._exit(0)  # at once: there is nothing to end in order


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def import_everything() -> None:
    """Whatever a command may import of this project and below it; nothing is called."""
    import importlib
    import pkgutil

    import bench
    import methods
    import protocols

    for package in (bench, methods, protocols):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and "templates" not in module.name and ".export." not in module.name:
                importlib.import_module(module.name)


def _answer(connection: socket.socket) -> None:
    size = int.from_bytes(_exactly(connection, 8), "big")
    first, streams, _, _ = socket.recv_fds(connection, 1, 3)
    facts = json.loads(first + _exactly(connection, size - 1))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(facts, streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{pid} ".encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        if not (part := connection.recv(size - len(found))):
            os._exit(1)
        found += part
    return found


def _become(facts: dict, streams: Sequence[int]) -> None:
    """This process becomes the command."""
    import runpy
    import signal

    os.setsid()
    signal.set_wakeup_fd(-1)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(facts["cwd"])
    os.environ.clear()
    os.environ.update(facts["environment"])
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*([facts["cwd"]] if facts["on_path"] else []), *paths, *(path for path in sys.path[1:] if path not in paths)]
    sys.argv = ["bench", *facts["arguments"]]
    code: object = 0
    try:
        runpy.run_module("bench", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    _leave(code)


def _leave(code: object) -> None:
    """As the interpreter ends: threads, functions that asked for it, streams."""
    import atexit

    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 255)


@contextlib.contextmanager
def running() -> Iterator[ForkedBench]:
    """A server, in a folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = ForkedBench(Path(folder))
        try:
            yield server
        finally:
            server.close()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    elif fit(json.loads(variables_of(sys.argv[1]).read_text()), os.environ):
        sys.exit(call(sys.argv[1], sys.argv[2:], os.getcwd(), os.environ, (0, 1, 2), on_path=False))
    else:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "bench", *sys.argv[2:]])
