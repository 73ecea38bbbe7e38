"""--accelerate, from the option to what a run records; compiled runs beside plain ones."""

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from bench.commands.main import main
from bench.errors import BenchError
from bench.pictures.page.reproduction import command
from bench.results import records
from bench.results.run_facts import mixtures
from bench.runs import accelerators, plan, request, runner
from bench.runs.facts import Facts
from bench.runs.request import Request
from tests.bench.small_runs import execute, manifest, small_run

# of a compiled run from a plain one, in float32: of the largest energy of a test image, after some steps of Adam, which follows
# the sign of gradients that are next to nothing
APART = 0.01
SAME_PREDICTIONS = 0.95  # of all: images between two classes change sides


def test_a_plain_run_is_the_run_that_it_was(tmp_path):
    run = small_run("coop", tmp_path)
    assert run.accelerate == "none" and "accelerate" not in run.identity
    ids = {run.run_id, *(dataclasses.replace(run, accelerate=how).run_id for how in ("graphs", "compile"))}
    assert len(ids) == 3


def test_the_option_reaches_the_run(tmp_path):
    text = 'protocols = "mini60-6x10"\nmethods = "coop"\naccelerate = "compile"\ndevice = "cpu"\nprecision = "float32"'
    [asked] = request.parse(text, Path("s.toml"), {}).requests
    with Facts() as facts:
        [run], _ = plan.build(asked, facts)
    assert run.accelerate == "compile" and type(run).from_json(run.to_json()) == run
    with pytest.raises(BenchError, match=r"accelerate: choose one of none, graphs, compile"):
        request.parse(text.replace("compile", "turbo"), Path("s.toml"), {})


def test_graphs_without_a_gpu_are_one_line():
    asked = Request(("mini60-6x10",), ("coop",), device="cpu", precision="float32", accelerate="graphs")
    with Facts() as facts, pytest.raises(BenchError, match="--accelerate graphs: for CUDA devices, and the device is cpu"):
        plan.build(asked, facts)
    accelerators.refuse_device("graphs", "cuda:1")
    said = CliRunner().invoke(main, ["run", "--accelerate", "turbo", "--protocol", "mini60-6x10", "--methods", "coop"])
    assert said.exit_code == 2


@pytest.mark.parametrize(
    "device, words", [("cpu", r"needs a C\+\+ compiler for the CPU, and \S+ is not there"), ("cuda", "triton")]
)
def test_without_a_compiler_it_is_one_line(device, words, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(accelerators.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match=words):
        accelerators.refuse_without_compiler("compile", device)
    accelerators.refuse_without_compiler("none", device)


def test_it_is_looked_for_before_a_run_begins(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("CXX", "no-such-compiler")
    run = dataclasses.replace(small_run("coop", tmp_path), accelerate="compile")
    with pytest.raises(BenchError, match="no-such-compiler is not there"):
        execute(run, cache)
    assert not run.folder.exists()


def test_the_manifest_says_how_often_something_accelerated_was_called(monkeypatch, tmp_path, cache):
    monkeypatch.setattr(runner.acceleration, "_compiled", lambda function: function)
    monkeypatch.setattr(runner.accelerators, "refuse_without_compiler", lambda accelerate, device: None)
    plain, compiled = (dataclasses.replace(small_run("coop", tmp_path), accelerate=how) for how in ("none", "compile"))
    for run in (plain, compiled):
        execute(run, cache)
    assert "accelerated" not in manifest(plain) and "accelerate" not in manifest(plain)["identity"]
    found = manifest(compiled)
    assert found["identity"]["accelerate"] == found["accelerated"]["by"] == "compile" and found["accelerated"]["calls"] > 0
    assert mixtures([manifest(plain), found]) == ["accelerate (compile, none)"]
    [row, *_] = records.read_csv(compiled.files.records).to_dict("records")
    assert "--accelerate compile" in command(row, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coop", "cgil", "finetune"])
def test_a_compiled_run_scores_as_a_plain_one(name, tmp_path, cache):
    """With torch's compiler and that of C++: a minute or two."""
    plain, compiled = (dataclasses.replace(small_run(name, tmp_path), accelerate=how) for how in ("none", "compile"))
    for run in (plain, compiled):
        execute(run, cache)
    assert manifest(compiled)["accelerated"]["calls"] > 0
    wanted, ours = load_file(plain.files.samples), load_file(compiled.files.samples)
    for scores in (place for place in wanted if place.startswith("energy/")):
        assert float((ours[scores] - wanted[scores]).abs().max()) <= APART * float(wanted[scores].abs().max()), scores
    predictions = [place for place in wanted if place.startswith("prediction/")]
    same = sum(int((ours[place] == wanted[place]).sum()) for place in predictions)
    assert same >= SAME_PREDICTIONS * sum(len(wanted[place]) for place in predictions)
