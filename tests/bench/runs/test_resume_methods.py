"""Every registered method, killed after each of its tasks, ends with the files of an undisturbed run."""

import dataclasses
import random
import shutil
import signal
import time

import pytest
import torch

from bench.learning.stated import scenarios_of
from bench.results import training_log
from bench.runs import checkpoint
from bench.runs.checkpoint import finished_tasks
from bench.system import registry
from tests.bench.small_runs import TASKS, execute, small_run
from tests.every_method import every_method

FILES = ("records.csv", "samples.safetensors")
QUICK = (  # one method of each family

    "attriclip", "cgil", "clap", "clip-adapter", "coda-prompt", "coop", "derpp", "finetune", "linear-probe", "ranpac",
)  # fmt: skip
WITHOUT_STEPS = (  # their logs have no row
    "cca-cl-frozen", "continual-clip", "linear-probe", "rail-dual", "rail-primal", "ranpac", "simplecil", "zero-shot",
)  # fmt: skip


class Killed(BaseException):
    """Not an Exception: nothing may catch it on its way."""


def killed_after_next_checkpoint(run, cache, monkeypatch, kind="class-incremental") -> int:
    """Carry the run on from where it is until it has written a checkpoint; how many tasks that holds."""

    def write_and_die(*arguments):
        write(*arguments)
        raise Killed

    write = checkpoint.write
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoint, "write", write_and_die)
        execute(run, cache, kind=kind)
    return finished_tasks(run.checkpoint)


@pytest.mark.parametrize("name", every_method(QUICK))
def test_killed_after_every_task(name, tmp_path, cache, monkeypatch):
    pieces_end_as_the_whole(name, tmp_path, cache, monkeypatch, "class-incremental")


AGNOSTIC = [name for name in registry.names("method") if "task-agnostic" in scenarios_of(registry.load("method", name))]


@pytest.mark.parametrize("name", every_method(["coop"], AGNOSTIC))
def test_killed_on_a_task_agnostic_stream(name, tmp_path, cache, monkeypatch):
    """Classes of all tasks are scored from the start there, so that a resume has to know those that are not learned, too."""
    pieces_end_as_the_whole(name, tmp_path, cache, monkeypatch, "task-agnostic")


def pieces_end_as_the_whole(name, tmp_path, cache, monkeypatch, kind):
    """Each piece of the run is carried out by a new Method that knows nothing but the checkpoint file."""
    whole, pieces = small_run(name, tmp_path / "whole"), small_run(name, tmp_path / "pieces")
    execute(whole, cache, kind=kind)
    kills = [TASKS] if registry.load("method", name).joint else range(1, TASKS + 1)  # the last one just before the final files
    for task in kills:
        torch.manual_seed(task)  # as another process might have it
        assert killed_after_next_checkpoint(pieces, cache, monkeypatch, kind) == task
        assert not pieces.finished
    execute(pieces, cache, kind=kind)
    for file in FILES:
        assert (pieces.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file
    assert not pieces.checkpoint.exists()
    assert losses(pieces) == losses(whole)  # no task twice
    assert bool(losses(whole)) is (name not in WITHOUT_STEPS)


def losses(run) -> list[dict]:
    """What the log of a run holds, without its times. It is whole after every task: the pieces were killed between two."""
    return [dataclasses.asdict(row) | {"seconds": 0} for row in training_log.read(run.files.log)]


# -- processes that die at random moments -----------------------------------------------------------------------

KILLS = 10
# distillation with a teacher and stored images, a memory of logits, prompts, reference data: each with a state of its own
ON_PIXELS = ("finetune", "zscl", "icarl", "derpp", "coda-prompt")
TINY = ("--protocol", "mini60-6x10", "--limit-train", "4", "--limit-test", "2")


def methods_on(inputs: str) -> dict[str, type]:
    """All that train on stored features, or some that train on pixels."""
    if inputs == "pixels":
        return {name: registry.load("method", name) for name in ON_PIXELS}
    loaded, broken = registry.load_all("method")
    assert not broken
    return {name: method for name, method in loaded.items() if method.inputs != "pixels"}


def shortest_settings(methods: dict[str, type]) -> list[str]:
    """Options of `bench run` that shorten training as `quick` does."""

    def written(value) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return [f"--set={name}.{field}={written(value)}" for name, method in methods.items() for field, value in method.quick.items()]


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["features", "pixels"])
def test_processes_killed_at_random_moments(inputs, bench, start_bench, tmp_path):
    """These methods in one command, killed by the system ten times; what remains is carried on."""
    methods = methods_on(inputs)
    arguments = ("run", *TINY, "--methods", ",".join(methods), *shortest_settings(methods))
    began = time.monotonic()
    undisturbed = bench(*arguments, "--out", "whole")
    assert undisturbed.returncode == 0, undisturbed.stderr
    seconds = time.monotonic() - began
    moments = random.Random(KILLS)
    killed = 0
    while killed < KILLS:
        process = start_bench(*arguments, "--out", "killed")
        time.sleep(moments.uniform(0.1, 0.5) * seconds)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:  # it was done before its moment: the next one starts over
            shutil.rmtree(tmp_path / "killed")
    assert bench(*arguments, "--out", "killed").returncode == 0
    for file in FILES:
        whole, pieces = (
            {str(path.parent.relative_to(folder)): path.read_bytes() for path in folder.rglob(file)}
            for folder in (tmp_path / "whole", tmp_path / "killed")
        )
        assert len(whole) == len(methods)
        assert pieces == whole, file
    assert not list((tmp_path / "killed").rglob("*.tmp"))
