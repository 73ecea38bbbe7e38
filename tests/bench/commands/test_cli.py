"""What a person at the terminal sees: answers at once, one line when something is wrong."""

import csv
import io
import os
import subprocess
import sys

import pytest

from bench.commands.main import COMMANDS, main
from bench.results.run_folder import LOG

QUICK = ("--protocol", "mini60-6x10", "--limit-train", "2", "--limit-test", "1")


def complaint(result) -> str:
    """The single line on stderr of a refused command."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--protocol", "mini60-6x1", "--methods", "all"), "unknown protocol 'mini60-6x1'; did you mean mini60-6x10"),
        ((*QUICK, "--methods", "cgli"), "unknown method 'cgli'; did you mean cgil"),
        ((*QUICK, "--methods", "cgil", "--set", "cgil.epoch"), "write it as METHOD.FIELD=VALUE"),
        ((*QUICK, "--methods", "cgil", "--set", "cgil.vae_epoch=3"), "did you mean vae_epochs"),
        ((*QUICK, "--methods", "cgil", "--set", "cgil.vae_epochs=many"), "a whole number is wanted"),
        ((*QUICK, "--methods", "cgil", "--set", "coop.epochs=1"), "unknown method of this run 'coop'"),
        ((*QUICK, "--methods", "cgil", "--seeds", "a"), "whole numbers separated by commas"),
        ((*QUICK, "--methods", ","), "empty list of names"),
        ((*QUICK, "--methods", "cgil", "--pretrained", "gone.safetensors"), "gone.safetensors: the weights file is missing"),
        ((*QUICK, "--methods", "cgil", "--backbone", "ViT-B-16"), "needs --pretrained"),
        ((*QUICK, "--methods", "cgil", "--device", "cuda:9"), "no usable CUDA device"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy_and_leaves_nothing(bench, tmp_path, arguments, message):
    assert message in complaint(bench("run", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_a_results_folder_that_cannot_be_written_is_named(bench, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file" in complaint(bench("run", *QUICK, "--methods", "zero-shot", "--out", "file/results")).splitlines()[-1]


def test_a_full_disk_is_said_in_one_line_and_leaves_no_torn_file(bench, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk can only be made as root")
    try:
        assert "no space left on the disk" in complaint(bench("run", *QUICK, "--methods", "finetune", "--out", "disk/results"))
        assert not [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != LOG]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "schema,run_id\n99,x\n"])
def test_unreadable_results_are_refused(bench, tmp_path, content):
    if content is not None:
        (tmp_path / "records.csv").write_text(content)
    assert "records.csv" in complaint(bench("table", "records.csv"))


def test_a_dry_run_prints_the_plan_and_writes_nothing(bench, tmp_path):
    found = bench("run", *QUICK, "--methods", "zero-shot,cgil", "--seeds", "0,1", "--dry-run")
    assert found.returncode == 0
    assert "4 runs, 4 to do" in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_table_starts_with_zero_shot_and_holds_ci_transfer(bench):
    found = bench("run", *QUICK, "--methods", "coop,zero-shot")
    assert found.returncode == 0, found.stderr
    rows = list(csv.DictReader(io.StringIO(bench("table", "results", "--format", "csv").stdout)))
    assert [row["method"] for row in rows] == ["zero-shot", "coop"]
    assert all(0 <= float(row["ci_transfer"]) <= 1 for row in rows)


def imported_by(*command: str) -> set[str]:
    """The modules that a process has imported once it has carried out a command."""
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom bench.commands.main import main\n"
        f"result = CliRunner().invoke(main, {list(command)!r})\n"
        "assert result.exit_code == 0, result.output\nprint(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"})
    assert found.returncode == 0, found.stderr
    return set(found.stdout.split())


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("list",),
        ("list", "methods"),
        ("list", "backbones"),
        ("show", "icarl"),
        ("show", "zscl-star"),
        ("show", "auroc"),
        ("show", "published", "zscl"),
        ("show", "mini60"),
        ("show", "mini60-6x10"),
        ("show", "mg-clip"),
    ],
)
def test_what_only_tells_imports_nothing_heavy(command):
    assert not imported_by(*command) & {"torch", "pandas", "matplotlib", "sklearn"}


def test_a_command_imports_no_other_one():
    commands = {module for module in imported_by("--version") if module.startswith("bench.commands.")}
    assert commands <= {"bench.commands.main", "bench.commands.waiting"}
    imported = imported_by("list", "methods")
    assert "bench.commands.list" in imported
    assert not imported & {"bench.commands.run", "bench.commands.results", "bench.commands.show", "numpy"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_found_under_its_name(name):
    assert main.commands[name].name == name
    assert main.commands[name].help


def test_a_command_that_does_not_exist_is_refused_with_the_close_ones(bench):
    found = complaint(bench("tabel"))
    assert found.startswith("bench: No such command 'tabel'.") and found.endswith("(bench --help says more)")


def test_show_prints_paper_and_every_hyper_parameter(bench):
    page = bench("show", "coop").stdout
    for wanted in ("arXiv 2109.01134", "context_length", "learning_rate", "conformance", "mini*"):
        assert wanted in page
    page = bench("show", "mini60-6x10").stdout
    for wanted in ("class-incremental", "a photo of a {}.", "mini60", "classes 51-60"):
        assert wanted in page
    assert "did you mean" in complaint(bench("show", "cgl"))
    assert "bench list metrics names them" in complaint(bench("show", "metrics"))
