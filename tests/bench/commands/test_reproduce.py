"""`bench reproduce` from the command line, on stand-in images: to the end, killed and repeated, and with bad input."""

import os
import random
import signal
import time

import pytest
from click.testing import CliRunner

from bench.commands.main import main

QUICK = ("--data", "synthetic", "--backbone", "mini", "--limit-train", "1", "--limit-test", "1")


def call(*arguments):
    return CliRunner().invoke(main, ["reproduce", *map(str, arguments)])


def test_a_table_without_a_method_here_ends_with_its_verdicts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = call("lora-loop-mtil")
    assert found.exit_code == 0 and found.stdout.count("cannot be run: no such method here") == 3
    assert "3 cells: 3 cannot be run" in found.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zscl-table33"], "unknown table 'zscl-table33'; did you mean zscl-table3"),
        (["zscl-table3", "--methods", "coop"], "unknown method of zscl-table3 'coop'"),
        (["zscl-table3", "--order-seeds", "0,7"], "--order-seeds 7 contradicts zscl-table3"),
        (["zscl-table3", "--set", "zscl.iterations"], "--set zscl.iterations: write it as METHOD.FIELD=VALUE"),
        (["zscl-table3", "--full-training"], "--full-training is for --data synthetic"),
        (["zscl-table3", "--slurm", "partition=gpu"], "--slurm is for --launcher slurm"),
        (["zscl-table3", "--launcher", "slurm"], "on a cluster say what its machines have"),
        (["zscl-table3", "--study", "x.toml"], "No such option"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = call(*arguments)
    assert found.exit_code == 2 and found.stdout == "" and found.stderr.count("\n") == 1
    assert found.stderr.startswith(f"bench: {said}") and not list(tmp_path.iterdir())


def test_data_that_are_not_there_are_a_reason_and_an_exit_code(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    found = call("cifar100-rerun", "--methods", "engine", "--backbone", "mini", "--data-dir", tmp_path / "data")
    assert found.exit_code == 1, found.output
    assert "data set cifar100" in found.stdout and "not run: [1]" in found.stdout
    assert found.stdout.count("not run: left out by --methods or --protocol") == 4
    assert "1 of 1 runs are not finished" in found.stderr and "MISSING" in found.stderr


@pytest.mark.slow
def test_killed_at_random_and_repeated_it_prints_the_same(tmp_path, bench, start_bench):
    """Its standard output depends on nothing but the finished runs."""
    asked = ("reproduce", "cifar100-rerun", "--methods", "engine,rapf,proof", *QUICK)
    straight = bench(*asked, "--out", "straight")
    assert straight.returncode == 0, straight.stderr
    assert "NO VERDICT ON THE PAPER (stand-in images: shows only that the table goes through" in straight.stdout
    assert straight.stdout.count("none on the paper") == 3 and "5 cells: 3 without a verdict, 2 not run" in straight.stdout
    seconds = random.Random(0)
    for _ in range(3):
        process = start_bench(*asked, "--out", "killed")
        time.sleep(seconds.uniform(2, 20))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    repeated = bench(*asked, "--out", "killed")
    assert (repeated.returncode, repeated.stdout) == (0, straight.stdout), repeated.stderr
    again = bench(*asked, "--out", "killed")
    assert again.stdout == straight.stdout and "3 runs, 0 to do" in again.stderr
