"""A real SLURM on this machine, for tests: controller and one node that claims four cores, in a folder of its own.

    python tests/one_machine_slurm.py      starts it, says what to set, and stops it at Ctrl-C

Needs root and the packages slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins and munge. Nothing outside a
temporary folder is written. Two partitions: ci, and urgent, whose jobs send those of ci back into the queue.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmctldPort={port}
SlurmdPort={node_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} CPUs=4 SocketsPerBoard=1 CoresPerSocket=4 RealMemory=2000
PartitionName=ci Nodes={host} Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE OverSubscribe=NO
PartitionName=urgent Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""


def missing() -> str:
    """Why it cannot be started here; empty if it can."""
    absent = [program for program in PROGRAMS if not _program(program)]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "starting SLURM needs root"


@contextlib.contextmanager
def running() -> Iterator[dict[str, str]]:
    """The environment variables with which commands find it."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as place:
        yield from _run_in(Path(place))


def _run_in(folder: Path) -> Iterator[dict[str, str]]:
    for name in ("run", "log", "state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)  # munged refuses a socket that others could not reach
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, port=_free_port(), node_port=_free_port()))
    environment = {"SLURM_CONF": str(configuration)}
    started: list[subprocess.Popen] = []
    try:
        files = {
            "key-file": key,
            "socket": "run/munge.socket",
            "pid-file": "run/munged.pid",
            "seed-file": "munge/seed",
            "log-file": "log/munged.log",
        }
        started.append(
            _start(folder, {}, "munged", "--foreground", *(f"--{name}={folder / file}" for name, file in files.items()))
        )
        _wait(lambda: (folder / "run" / "munge.socket").exists(), "munged", folder)
        started.append(_start(folder, environment, "slurmctld", "-D"))
        started.append(_start(folder, environment, "slurmd", "-D", "-N", host))
        _wait(lambda: "idle" in _ask(environment, "sinfo", "-h", "-o", "%T"), "an idle node", folder)
        yield environment
    finally:
        _ask(environment, "scancel", "--user=root")
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _start(folder: Path, environment: dict[str, str], name: str, *arguments: str) -> subprocess.Popen:
    with open(folder / "log" / f"{name}.out", "w") as log:
        return subprocess.Popen([_program(name), *arguments], env=os.environ | environment, stdout=log, stderr=log)


def _ask(environment: dict[str, str], *command: str) -> str:
    try:
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=20).stdout
    except subprocess.TimeoutExpired:
        return ""


def _wait(condition, what: str, folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = "\n".join(
                f"{log.name}: {log.read_text(errors='replace')[-600:]}" for log in sorted((folder / "log").iterdir())
            )
            raise TimeoutError(f"no {what} after {seconds:.0f} s\n{logs}")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with running() as variables:
        print(" ".join(f"{name}={value}" for name, value in variables.items()), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(60)
