"""What is kept of failed runs, and which of them are tried again."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from bench.commands.main import main
from bench.errors import RunFailure
from bench.runs import failures
from bench.system import outlines, registry
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


# -- what the user is told, and what is tried again ---------------------------------------------------------------

BROKEN = '''
import torch
from bench import Method

class Broken(Method):
    """Fails in its second task."""
    paper, trains = "none", "nothing"

    def prepare(self):
        self.register_buffer("text", self.backbone.classifier(self.scenario.prompts_of(range(len(self.scenario.class_names)))))

    def learn(self, task):
        if task.index == 1:
            self.helper()

    def helper(self):
        raise ValueError("no idea what to do")

    def logits(self, batch, classes):
        return batch @ self.text[list(classes)].T
'''


@pytest.fixture
def broken(tmp_path, cache, monkeypatch):
    """broken(*arguments): `bench` where a method is installed that fails in its second task."""
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (tmp_path / "broken.py").write_text(BROKEN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.methods]\nbroken = broken:Broken\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        sys.modules.pop("broken", None)  # as another process finds it
        registry._SOURCES.pop("broken", None)
        for cached in (registry._points, outlines._text, outlines._parse):
            cached.cache_clear()
        return CliRunner().invoke(main, [*arguments], catch_exceptions=False)

    yield call
    sys.modules.pop("broken", None)
    registry._SOURCES.pop("broken", None)
    monkeypatch.undo()
    registry._points.cache_clear()


RUN = ("run", "--protocol", "mini60-3x20", "--methods", "broken", "--limit-train", "1", "--limit-test", "1")
PLACE = "ValueError: no idea what to do (broken.py:17, in helper)"


def test_a_failure_is_found_mended_and_tried_again(broken, tmp_path):
    assert BROKEN.splitlines()[16].strip().startswith("raise")
    found = broken(*RUN)
    assert found.exit_code == 1
    trace = next((tmp_path / "results").rglob("traceback.txt"))
    ended = found.stderr.splitlines()
    assert f"broken order 0 seed 0: failed: {PLACE}; traceback: {trace.relative_to(tmp_path)}" in found.stderr
    assert ended[-1] == "1 of 1 runs failed; --retry-failed tries them again"
    assert trace.read_text().startswith("Traceback") and trace.read_text().rstrip().endswith("no idea what to do")

    planned = broken(*RUN, "--dry-run").stdout
    assert "1 run, 0 to do" in planned and "failed in task 2" in planned and "every run" not in planned
    assert f"note: 1 run of broken on mini60-3x20 failed: {PLACE}; traceback: " in planned and "--retry-failed" in planned
    assert "failed in task 2, tried again" in broken(*RUN, "--dry-run", "--retry-failed").stdout

    left_alone = broken(*RUN)
    assert left_alone.exit_code == 1 and "(earlier; --retry-failed tries again)" in left_alone.stderr
    assert "nothing to do" not in left_alone.stdout

    (tmp_path / "broken.py").write_text("# a comment changes nothing\n" + BROKEN)
    assert "failed in task 2" in broken(*RUN, "--dry-run").stdout
    (tmp_path / "broken.py").write_text(BROKEN.replace("task.index == 1", "task.index == 99"))
    assert "failed, starts over: begun by other code" in broken(*RUN, "--dry-run").stdout
    mended = broken(*RUN)
    assert mended.exit_code == 0 and not trace.exists() and not trace.with_name("failure.json").exists()


def test_of_a_method_in_a_file_the_line_is_named_too_and_it_is_tried_again_once_edited(broken, tmp_path):
    (tmp_path / "own.py").write_text(BROKEN.replace("class Broken", "class Own"))
    command = [*RUN[:4], "./own.py:Own", *RUN[5:], "--out", "own"]
    place = PLACE.replace("broken.py", "own.py")
    assert f"own order 0 seed 0: failed: {place}; traceback: " in broken(*command).stderr
    assert "failed in task 2" in broken(*command, "--dry-run").stdout
    (tmp_path / "own.py").write_text(BROKEN.replace("class Broken", "class Own").replace("index == 1", "index == 99"))
    assert "failed, starts over: begun by other code" in broken(*command, "--dry-run").stdout
    (tmp_path / "own.py").write_text(BROKEN.replace("class Broken", "class Own"))
    checked = broken("check", "./own.py:Own").stdout
    assert place in checked and Path(checked.splitlines()[-1].removeprefix("tracebacks: ")).name == "own.py_Own.txt"


def test_a_check_says_the_same(broken, cache):
    found = broken("check", "broken")
    assert found.exit_code == 1 and PLACE in found.stdout and str(cache) in found.stdout.splitlines()[-1]
    trace = found.stdout.splitlines()[-1].removeprefix("tracebacks: ")
    assert "raise ValueError" in Path(trace).read_text()


def test_a_method_that_cannot_be_imported_names_its_line(broken, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN + "\n1 / 0\n")
    found = broken(*RUN)
    assert found.exit_code == 2 and "ZeroDivisionError: division by zero (broken.py:22, in <module>)" in found.stderr


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(("error", "reason"), [(Speechless(), "Speechless"), (ValueError("half \udcff"), "half")])
def test_an_exception_without_printable_words_is_recorded(run, error, reason):
    failures.record(run, failures.of_error(run, raised(error)))
    assert reason in failures.of(run)[-1].reason and run.files.traceback.read_text().startswith("Traceback")


def test_a_method_that_ends_like_a_script_has_failed(broken, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN.replace('raise ValueError("no idea what to do")', "raise SystemExit(3)"))
    found = broken(*RUN)
    assert found.exit_code == 1 and "failed: SystemExit: 3 (broken.py:17, in helper)" in found.stderr


def test_a_killed_worker_leaves_no_older_traceback(run):
    failures.record(run, failures.of_error(run, raised(ValueError("first"))))
    assert run.files.traceback.exists()
    failures.record(run, failures.of_machine("killed"))
    assert not run.files.traceback.exists() and failures.lasting(run) is None
