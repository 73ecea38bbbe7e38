"""One run carried out by several processes: the numbers of one, whatever ends one of them, and what is refused."""

import json
import os
import signal
import time
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.runs import failures, launch, several_processes
from tests.bench.launched import runs_of

PROTOCOL = "mini-cdcl+tasks=2"  # two data sets; after more of them rounding has grown: to 2e-5 after four, 2e-4 after five
TOLERANCE = {"confidence": 1e-5}  # others are of logits, of which 1e-5 is the last bit
SHORT = ("lr=2e-4", "iterations=3", "warmup=1")


def run_of(method, out, processes, **changes):
    [run] = runs_of([method], out, [PROTOCOL], set=[f"{method}.{one}" for one in SHORT], processes=processes, **changes)
    return run


@pytest.fixture
def carry_out(tmp_path):
    """carry_out(run): how it ended, and what it said meanwhile."""

    def carry(run, hear=lambda moment: None):
        with launch.limited_threads(1):
            return launch.carry_out(run, Folders(tmp_path / "data", tmp_path / "cache"), lambda _, moment: hear(moment))

    return carry


def samples(run):
    return load_file(run.files.path / "samples.safetensors")


@pytest.fixture
def members(monkeypatch):
    """The processes that are begun."""
    found, begin = [], several_processes._begin
    monkeypatch.setattr(several_processes, "_begin", lambda *facts: found.append(begin(*facts)) or found[-1])
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["finetune", "zscl", "joint"])
def test_two_processes_have_the_numbers_of_one(method, tmp_path, carry_out):
    one, two = (run_of(method, tmp_path / str(count), count) for count in (1, 2))
    assert [carry_out(run).status for run in (one, two)] == ["finished", "finished"]
    [untrained] = runs_of(["zero-shot"], tmp_path / "0", [PROTOCOL])
    assert carry_out(untrained).status == "finished"
    start, alone, together = map(samples, (untrained, one, two))
    assert alone.keys() == together.keys() and len(alone) > 4
    confidences = [name for name in alone if name.startswith("confidence")]
    for name, value in alone.items():
        apart = float((together[name].double() - value.double()).abs().max())
        assert apart <= (0 if name.startswith(("prediction", "labels")) else TOLERANCE.get(name.split("/")[0], 1e-4)), name
    moved = [float((alone[name] - start[name]).abs().max()) for name in confidences if name in start]
    assert max(moved) > 1e-3  # it is not the start that is equal
    tables = [run.files.records.read_text().replace(run.run_id, "") for run in (one, two)]
    assert tables[0] == tables[1]
    manifests = [json.loads(run.files.manifest.read_text()) for run in (one, two)]
    assert [manifest.get("processes") for manifest in manifests] == [None, 2]
    if method != "zscl":  # whose reference images the first run encodes for the second
        assert manifests[0]["cost"]["image_passes"] == manifests[1]["cost"]["image_passes"]
    assert sorted(path.name for path in one.folder.iterdir()) == sorted(path.name for path in two.folder.iterdir())


@pytest.mark.thorough
def test_a_killed_process_ends_the_run_with_one_line_and_the_next_command_goes_on(tmp_path, carry_out, members):
    run, whole = (run_of("finetune", tmp_path / name, 2) for name in ("killed", "whole"))

    def kill(moment):
        if moment.done == 1 and "learning" in moment.what:
            os.kill(members[1].process.pid, signal.SIGKILL)

    outcome = carry_out(run, kill)
    assert (outcome.status, outcome.reason) == ("failed", "process 2 of its 2 was killed by SIGKILL; was the memory enough?")
    assert [member.process.poll() is None for member in members] == [False, False]
    assert [one.cause for one in failures.of(run)] == ["machine"] and run.checkpoint.exists()
    assert carry_out(run).status == "finished" and carry_out(whole).status == "finished"
    assert run.files.records.read_bytes() == whole.files.records.read_bytes()
    assert (run.folder / "samples.safetensors").read_bytes() == (whole.folder / "samples.safetensors").read_bytes()


@pytest.mark.thorough
def test_a_process_that_stands_still_is_not_waited_for_for_ever(tmp_path, carry_out, members, monkeypatch):
    monkeypatch.setattr(several_processes, "SECONDS_OF_AN_UPDATE", 10.0)
    monkeypatch.setattr(several_processes, "PATIENCE", 1.0)

    def stop(moment):
        if "learning" in moment.what:
            os.kill(members[1].process.pid, signal.SIGSTOP)

    began = time.monotonic()
    outcome = carry_out(run_of("finetune", tmp_path, 2), stop)
    assert outcome.status == "failed" and "process 1 of its 2: the other processes of the run do not answer" in outcome.reason
    assert "\n" not in outcome.reason and time.monotonic() - began < 120
    assert [member.process.poll() is None for member in members] == [False, False]


@pytest.mark.thorough
def test_what_its_own_code_does_wrong_is_recorded_once(tmp_path, carry_out):
    [run] = runs_of(["finetune"], tmp_path, [PROTOCOL], set=["finetune.lr=1e30", "finetune.iterations=3"], processes=2)
    outcome = carry_out(run)
    assert outcome.status == "failed" and "the loss is not finite" in outcome.reason
    [failure] = failures.of(run)
    assert failure.cause == "run" and "RunFailure" in failure.traceback


def test_so_many_processes_are_part_of_what_a_run_is(tmp_path):
    one, two, three = (run_of("finetune", tmp_path, count) for count in (1, 2, 3))
    assert len({run.run_id for run in (one, two, three)}) == 3
    assert "processes" not in one.identity and two.identity["processes"] == 2
    assert "processes" not in one.to_json() and type(one).from_json(two.to_json()) == two
    assert replace(two, processes=1).run_id == one.run_id


def test_a_method_that_does_not_divide_is_refused_by_name(tmp_path):
    with pytest.raises(BenchError, match="^coop: --processes 2: one run of it cannot be divided"):
        runs_of(["finetune", "coop"], tmp_path, processes=2)
    assert {run.method for run in runs_of(["all"], tmp_path, processes=2)} >= {"finetune", "zscl", "joint", "icarl"}
    assert "coop" not in {run.method for run in runs_of(["all"], tmp_path, processes=2)}


def test_every_process_wants_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    run = run_of("finetune", tmp_path, 2)
    assert several_processes._gpus_for(run) == [None, None]
    assert several_processes._gpus_for(replace(run, device="cuda")) == ["4", "7"]
    with pytest.raises(BenchError, match="--processes 3: every process wants a GPU of its own, and there are 2"):
        several_processes._gpus_for(replace(run, device="cuda", processes=3))
    with pytest.raises(BenchError, match="--device cuda:1: every process"):
        several_processes._gpus_for(replace(run, device="cuda:1"))
