"""Runs on the mini world: repeatable, resumable, indifferent to what else is run."""

import json
import random
import shutil
import signal
import time

import pytest

QUICK = ("--protocol", "mini60-6x10", "--limit-train", "4", "--limit-test", "2")
THREE_TASKS = ("--protocol", "mini60-6x10+tasks=3", *QUICK[2:])
FEW_EPOCHS = ("--set", "cgil.vae_epochs=20")
FEW_UPDATES = (
    *FEW_EPOCHS, "--set", "cgil.alignment_epochs=1", "--set", "coop.epochs=1",
    "--set", "finetune.iterations=4", "--set", "finetune.warmup=1",
)  # fmt: skip


def files(out, name: str = "records.csv") -> dict[str, bytes]:
    """The named file of every run below a results folder, by method and run id."""
    return {str(path.parent.relative_to(out)): path.read_bytes() for path in out.rglob(name)}


def written(out) -> dict:
    """When each result file was last written."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_the_same_seed_gives_the_same_files_whatever_the_order_and_the_store(bench, tmp_path):
    first = bench("run", *THREE_TASKS, *FEW_UPDATES, "--methods", "cgil,coop,finetune", "--out", "a", "--cache-dir", "cold")
    assert first.returncode == 0, first.stderr
    second = bench("run", *THREE_TASKS, *FEW_UPDATES, "--methods", "finetune,coop,cgil", "--out", "b", "--cache-dir", "cold")
    assert second.returncode == 0, second.stderr
    for name in ("records.csv", "samples.safetensors"):
        assert files(tmp_path / "a", name) == files(tmp_path / "b", name)
    assert len(files(tmp_path / "a")) == 3


def test_a_second_run_does_nothing_and_says_so(bench, tmp_path):
    arguments = ("run", *QUICK, "--methods", "zero-shot")
    bench(*arguments)
    before = written(tmp_path / "results")
    again = bench(*arguments)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert before and written(tmp_path / "results") == before


def test_the_manifest_says_what_was_run_and_how_long_it_took(bench, tmp_path):
    bench("run", *QUICK, "--methods", "zero-shot", "--set", "zero-shot.x=1")  # refused: nothing is written
    assert not (tmp_path / "results").exists()
    bench("run", *QUICK, "--methods", "zero-shot")
    manifest = json.loads(next((tmp_path / "results").rglob("manifest.json")).read_text())
    assert manifest["identity"]["protocol"] == "mini60-6x10"
    assert len(manifest["cost"]["seconds_per_task"]) == 6
    assert manifest["environment"]["torch"]
    assert [len(task["classes"]) for task in manifest["tasks"]] == [10] * 6
    assert not list((tmp_path / "results").rglob("checkpoint*"))


def test_one_failing_run_does_not_stop_the_others(bench, tmp_path):
    found = bench("run", *QUICK, "--methods", "coop,zero-shot", "--set", "coop.learning_rate=1e30")
    assert found.returncode == 1
    assert "the loss is not finite" in found.stderr
    assert len(files(tmp_path / "results")) == 1
    failure = json.loads(next((tmp_path / "results").rglob("failure.json")).read_text())
    assert "RunFailure" in failure["traceback"]


def kill_and_repeat(bench, start_bench, tmp_path, kills: int, methods: str, stream=QUICK) -> None:
    """Kill the same command at random moments, then let it end: the files must equal an undisturbed run's.

    A machine that is busy now may be idle a second later, so a process can end before its moment has come: then the next
    one starts over in an empty folder and is killed earlier.
    """
    arguments = ("run", *stream, *FEW_EPOCHS, "--methods", methods)
    began = time.monotonic()
    assert bench(*arguments, "--out", "whole").returncode == 0
    latest = time.monotonic() - began
    whole, folder = files(tmp_path / "whole"), tmp_path / "killed"
    moments = random.Random(kills)
    killed = 0
    while killed < kills:
        process = start_bench(*arguments, "--out", "killed")
        time.sleep(moments.uniform(0.3, 1.0) * latest)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:
            shutil.rmtree(folder)
            latest /= 2
        for table in folder.rglob("records.csv"):
            assert table.read_bytes() == whole[str(table.parent.relative_to(folder))]
    assert bench(*arguments, "--out", "killed").returncode == 0
    for name in ("records.csv", "samples.safetensors"):
        assert files(folder, name) == files(tmp_path / "whole", name)
    assert not list(folder.rglob("*.tmp"))


def test_a_killed_run_ends_as_an_undisturbed_one(bench, start_bench, tmp_path):
    kill_and_repeat(bench, start_bench, tmp_path, kills=1, methods="cgil", stream=THREE_TASKS)


@pytest.mark.slow
def test_ten_kills_change_nothing(bench, start_bench, tmp_path):
    kill_and_repeat(bench, start_bench, tmp_path, kills=10, methods="cgil,coop,finetune,linear-probe")


def test_a_method_that_cannot_be_run_here_does_not_stop_the_others(bench, tmp_path):
    arguments = ("run", *QUICK, "--set", "zscl.reference_images=nowhere")
    together = bench(*arguments, "--methods", "zscl,zero-shot")
    assert together.returncode == 1
    assert "zscl: unknown reference images 'nowhere'" in together.stderr and len(files(tmp_path / "results")) == 1
    alone = bench(*arguments, "--methods", "zscl")
    assert alone.returncode == 2 and len(alone.stderr.strip().splitlines()) == 1
