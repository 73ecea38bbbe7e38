"""Jobs on a real SLURM, started on this machine for the test (tests/one_machine_slurm.py), and what its options may be."""

import contextlib
import json
import os
import subprocess
import time

import pytest

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.runs import failures, runner, slurm
from bench.runs.launch import Place
from tests import one_machine_slurm
from tests.bench.launched import kill_first, results, runs_of

# Its runs last as long on every machine: what is fast enough for its minute on one would never time out there.
SLOW = """
import time

from methods.fine_tuning.finetune import FineTune


class Slow(FineTune):
    \"\"\"Fine-tuning that takes two and a half seconds more for every task.\"\"\"

    def learn(self, task):
        time.sleep(2.5)
        super().learn(task)
"""

STUDY = """
backbone = "mini"
device = "cpu"
limit_train = 2
limit_test = 1

[slurm]
time_min = 1
signal_delay_s = 10
poll_s = 1

[[runs]]
protocols = "mini60-6x10"
methods = ["zero-shot", "coop", "finetune"]
set.finetune.epochs = 4

[[runs]]                        # longer than the minute that its job has
protocols = "mini60-30x2"
methods = "./slow.py:Slow"
"""


def test_options_come_from_the_study_file_and_the_command_line_goes_before_it():
    options = slurm.read_options({"partition": "a100", "time_min": 60, "mem_gb": 32}, ["partition=h100", "gpus_per_node=1"])
    assert (options.partition, options.time_min, options.gpus_per_node) == ("h100", 60, 1)
    sent = options.for_submitit()
    assert sent["slurm_partition"] == "h100" and sent["timeout_min"] == 60 and sent["mem_gb"] == 32
    assert "slurm_account" not in sent and sent["slurm_additional_parameters"] == {"requeue": True}


@pytest.mark.parametrize(
    ("table", "pairs", "message"),
    [
        ({}, ["partition"], "--slurm partition: write it as KEY=VALUE"),
        ({}, ["partitions=a"], "--slurm partitions=a: unknown key 'partitions'; did you mean partition"),
        ({"time_min": "1h"}, [], "[slurm] time_min: a whole number is wanted"),
        ({"retries": True}, [], "[slurm] retries: a whole number is wanted"),
    ],
)
def test_wrong_options_are_refused(table, pairs, message):
    with pytest.raises(BenchError) as caught:
        slurm.read_options(table, pairs)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say what its machines have"),
        (("--device", "cuda"), "say what its machines have"),
        (("--device", "cpu", "--slurm", "partitions=a"), "did you mean partition"),
        (("--device", "cpu"), "squeue does not answer"),
    ],
)
def test_without_a_cluster_the_command_says_so(bench, tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("PATH", str(tmp_path))  # SLURM's commands are not there
    found = bench("run", "--protocol", "mini60-6x10", "--methods", "zero-shot", "--launcher", "slurm", *options)
    assert found.returncode == 2 and message in found.stderr and found.stderr.count("\n") == 1, found.stderr


def test_a_job_that_timed_out_too_often_has_not_failed_by_itself(tmp_path, monkeypatch):
    errors = pytest.importorskip("submitit.core.utils")
    run = runs_of(["zero-shot"], tmp_path)[0]

    def times_out(run, folders, foreign):
        raise errors.UncompletedJobError("timed-out too many times")

    monkeypatch.setattr(slurm, "carry_out", times_out)
    slurm.Job(Place(Folders(tmp_path, tmp_path), 1), str(tmp_path / "outcome.json"))(run.to_json())
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert outcome["status"] == "failed" and "max_timeouts" in outcome["reason"]
    assert failures.of(run)[-1].cause == "machine"


def test_a_job_that_goes_back_into_the_queue_is_no_failure_of_its_run(tmp_path, monkeypatch):
    pytest.importorskip("submitit.helpers")
    run = runs_of(["zero-shot"], tmp_path)[0]
    folders = Folders(tmp_path / "no-data", tmp_path / "cache")
    job = slurm.Job(Place(folders, 1), str(tmp_path / "outcome.json"))

    def is_told_to_leave(*_):  # as submitit's signal handler does it
        job.checkpoint(run.to_json())
        raise SystemExit(-1)

    def ends_like_a_script(*_):
        raise SystemExit(-1)

    monkeypatch.setattr(runner, "execute", is_told_to_leave)
    with pytest.raises(SystemExit):
        job(run.to_json())
    assert not failures.of(run) and not (tmp_path / "outcome.json").exists()
    again = job.checkpoint(run.to_json()).function
    monkeypatch.setattr(runner, "execute", ends_like_a_script)
    assert again(run.to_json()) == "failed" and failures.of(run)[-1].cause != "machine"


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("submitit", reason="submitit is not installed")
    if reason := one_machine_slurm.missing():
        pytest.skip(f"no SLURM can be started here: {reason}")
    with contextlib.ExitStack() as stack:
        try:
            variables = stack.enter_context(one_machine_slurm.running())
        except TimeoutError as error:
            pytest.skip(f"SLURM does not start here: {error}")
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def logs(out) -> str:
    return "\n".join(path.read_text(errors="replace") for path in sorted((out / ".slurm").glob("*/*_log.*")))


@pytest.mark.slow
@pytest.mark.slurm
def test_with_a_killed_and_a_timed_out_job_the_results_are_those_of_a_local_run(cluster, bench, start_bench, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "slow.py").write_text(SLOW)
    assert bench("run", "--study", "study.toml", "--out", "local", "--jobs", "2").returncode == 0
    command = ("run", "--study", "study.toml", "--out", "cluster", "--launcher", "slurm")
    killed = runs_of(["finetune"], tmp_path / "cluster", set=["finetune.epochs=4"])[0]
    launched = start_bench(*command)
    kill_first(tmp_path / "cluster", killed, 600)
    assert launched.wait(timeout=1800) == 0
    assert results(tmp_path / "cluster") == results(tmp_path / "local") and len(results(tmp_path / "local")) == 8
    lost = json.loads((killed.folder / "manifest.json").read_text())["earlier_failures"]
    assert [failure["cause"] for failure in lost] == ["machine"] and "ended before its run" in lost[0]["reason"]
    assert "has timed out" in logs(tmp_path / "cluster")
    again = bench(*command)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    tables = [bench("table", place, "--format", "csv").stdout for place in ("local", "cluster")]
    assert tables[0] == tables[1] and tables[0].count("\n") > 3


@pytest.mark.slow
@pytest.mark.slurm
def test_a_preempted_job_goes_on_and_a_second_launch_waits_for_the_queued_jobs(cluster, start_bench, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    few = ("--limit-train", "2", "--limit-test", "1", "--device", "cpu")
    jobs = ("--launcher", "slurm", "--slurm", "poll_s=1", "--slurm", "time_min=50")
    command = ("run", "--protocol", "mini60-30x2", "--methods", "./slow.py:Slow", *few, *jobs)
    first = start_bench(*command)
    end = time.monotonic() + 600
    while not (begun := list((tmp_path / "results").rglob("checkpoint*"))):
        assert first.poll() is None and time.monotonic() < end, logs(tmp_path / "results")
        time.sleep(0.1)
    first.kill()
    first.wait()
    subprocess.run(["srun", "-p", "urgent", "-n", "1", "-c", "4", "true"], check=True, timeout=120, env=os.environ)
    assert start_bench(*command).wait(timeout=900) == 0
    (facts,) = (tmp_path / "results").glob("mini60-30x2/*/*/manifest.json")
    assert facts.parent == begun[0].parent and "earlier_failures" in json.loads(facts.read_text())
    assert len(list((tmp_path / "results" / ".slurm").glob("*/*_submitted.pkl"))) == 1  # nothing was submitted twice
    assert "preempted" in logs(tmp_path / "results").lower()
