"""The peak of memory is bytes on every system, and a system that does not say it stops nothing."""

import json
import mmap
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import bench
from bench.reports import costs
from bench.runs import runner
from bench.system import hardware, peak_memory

CPU = torch.device("cpu")
TWO_GIB = 2 * 1024**3


def test_the_peak_of_memory_is_that_of_the_stretch():
    if not peak_memory.forget_peak(CPU):
        pytest.skip("this system only knows the peak since the process began")
    before = peak_memory.peak_bytes(CPU)
    with mmap.mmap(-1, 200_000_000) as block:  # new memory, which torch's would not have to be: tests before have freed some
        block.write(b"1" * len(block))
        assert peak_memory.peak_bytes(CPU) - before > 150e6
    peak_memory.forget_peak(CPU)
    assert peak_memory.peak_bytes(CPU) - before < 100e6


def test_the_peak_of_the_process_is_in_bytes():
    block = torch.ones(100_000_000)  # 400 MB
    assert block.nbytes < peak_memory.peak_bytes_of_process() < 1000 * block.nbytes


@pytest.mark.parametrize(("system", "reported"), [("linux", TWO_GIB // 1024), ("darwin", TWO_GIB)])
def test_each_system_has_its_own_unit(monkeypatch, tmp_path, system, reported):
    """getrusage counts kilobytes on Linux and bytes on macOS, which has no /proc either."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(
        peak_memory, "resource", SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=reported))
    )
    assert peak_memory.peak_bytes_of_process() == TWO_GIB
    assert peak_memory.peak_bytes(CPU) == TWO_GIB
    assert _cost_of_a_run()["peak_memory_bytes"] == TWO_GIB


def test_a_system_that_does_not_say_leaves_the_column_empty(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(peak_memory, "resource", None)
    assert peak_memory.peak_bytes(CPU) is None
    cost = _cost_of_a_run()
    assert json.loads(json.dumps(cost))["peak_memory_bytes"] is None
    assert costs._number(costs._mean(costs.COSTS["Peak memory (MB)"], [cost])) == "-"


def _cost_of_a_run() -> dict:
    """What a run's manifest says about a method without parameters."""
    method = SimpleNamespace(parameters=lambda: [], exemplar_bytes=lambda: 0, state_dict=dict)
    return runner._cost(method, SimpleNamespace(device=CPU, frozen_parameters=6))


@pytest.mark.thorough
def test_nothing_needs_what_only_unix_has():
    """Every module can be imported where Python comes without the modules that are there on Unix only."""
    without = "import sys; sys.modules |= dict.fromkeys(['resource', 'fcntl', 'pwd', 'grp', 'termios']); "
    root = Path(bench.__file__).parent.parent
    files = [file for file in sorted((root / "bench").rglob("*.py")) if file.stem != "__main__"]
    imports = "; ".join(f"import {'.'.join(file.relative_to(root).with_suffix('').parts)}" for file in files)
    assert "bench.runs.local_pool" in imports
    done = subprocess.run([sys.executable, "-c", without + imports], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_cores_are_counted_where_the_system_knows_no_affinity(monkeypatch):
    assert hardware.usable_cores() >= 1
    monkeypatch.delattr(hardware.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 6)
    assert hardware.usable_cores() == 6
