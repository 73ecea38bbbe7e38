"""What is kept of failed runs, and which of them are tried again."""

import dataclasses
import json

import pytest
import torch

from bench.errors import RunFailure
from bench.runs import failures
from tests.bench.small_runs import small_run


@pytest.fixture
def run(tmp_path):
    return small_run("coop", tmp_path)


def raised(error: BaseException) -> BaseException:
    """The error as `except` gets it: with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


def test_every_attempt_is_kept_with_its_traceback(run):
    failures.record(run, failures.of_machine("worker killed by signal 9"))
    failures.record(run, failures.of_error(run, raised(RunFailure("the loss is not finite"))))
    facts = json.loads((run.files.failure).read_text())
    assert facts["status"] == "failed" and facts["run_id"] == run.run_id and facts["identity"] == run.identity
    assert facts["reason"] == "the loss is not finite" and "in raised" in facts["traceback"]
    assert [one["reason"] for one in facts["attempts"]] == ["worker killed by signal 9", "the loss is not finite"]
    assert [one.cause for one in failures.of(run)] == ["machine", "run"]
    failures.forget(run)
    assert failures.of(run) == [] and failures.lasting(run) is None


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (RunFailure("nan"), True),
        (ValueError("shape"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (OSError(5, "Input/output error"), False),
        (PermissionError(13, "Permission denied"), False),
    ],
)
def test_what_the_run_did_itself_lasts_and_what_the_machine_did_does_not(run, error, lasts):
    failures.record(run, failures.of_error(run, raised(error)))
    assert (failures.lasting(run) is not None) is lasts


def test_too_little_gpu_memory_names_the_options_that_need_less(run, tmp_path):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
    reason = failures.of_error(run, raised(error)).reason
    batch = run.settings["batch_size"]
    assert reason == (
        "OutOfMemoryError: CUDA out of memory; "
        f"try --set coop.batch_size={batch // 2} (now {batch}) or --precision bfloat16 (now float32)"
    )
    finetune = failures.of_error(small_run("finetune", tmp_path), raised(error)).reason
    assert (
        "try --set finetune.gradient_checkpointing=true or --set finetune.accumulate=2 or --set finetune.batch_size=4" in finetune
    )
    half = failures.of_error(dataclasses.replace(small_run("zero-shot", tmp_path), precision="bfloat16"), raised(error)).reason
    assert half.endswith("try a GPU with more memory, or --device cpu")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"attempts": 3}', '{"attempts": [{"x": 1}]}'])
def test_a_damaged_record_is_none(run, content):
    run.folder.mkdir(parents=True)
    (run.files.failure).write_text(content)
    assert failures.of(run) == [] and failures.lasting(run) is None


def test_where_nothing_can_be_written_the_run_is_merely_unfinished(run):
    run.folder.parent.mkdir(parents=True)
    run.folder.write_text("a file where the folder should be")
    failures.record(run, failures.of_machine("killed"))
    assert failures.of(run) == []
