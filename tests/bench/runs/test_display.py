"""What is seen of runs: lines where stderr is a pipe, bars in a terminal, nothing with --quiet; stdout is left alone."""

import dataclasses
import io
import re
import sys
import time

import pytest
from click.testing import CliRunner, Result

from bench.commands.main import main
from bench.runs import display
from bench.runs.moments import Moment
from bench.system import outlines, registry
from tests.bench.small_runs import small_run

SLEEPER = '''
import time
import torch
from bench import Method

class Sleeper(Method):
    """Sleeps through every task, and says nothing."""
    paper, trains = "none", "nothing"

    def prepare(self):
        self.register_buffer("text", self.backbone.classifier(self.scenario.prompts_of(range(len(self.scenario.class_names)))))

    def learn(self, task):
        time.sleep(1.0)

    def logits(self, batch, classes):
        return batch @ self.text[list(classes)].T

class Other(Sleeper):
    """Sleeps, too."""
'''


@pytest.fixture
def sleeping(tmp_path, cache, monkeypatch):
    """sleeping(*options): `bench run` of two methods that sleep, with what it writes to two pipes."""
    info = tmp_path / "sleeper-1.0.dist-info"
    info.mkdir()
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeper\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.methods]\nsleeper = sleeper:Sleeper\nother = sleeper:Other\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in {"PYTHONPATH": tmp_path, "BENCH_CACHE": cache, "BENCH_PROGRESS_SECONDS": 0.4}.items():
        monkeypatch.setenv(name, str(value))  # workers get them
    monkeypatch.delenv("BENCH_QUIET")
    for cached in (registry._points, outlines._text, outlines._parse):
        cached.cache_clear()

    def call(*options: str) -> Result:
        few = ("--limit-train", "1", "--limit-test", "1", "--out", str(tmp_path / "results"))
        return CliRunner().invoke(
            main, ["run", "--protocol", "mini60-2x30", "--methods", "sleeper,other", *few, *options], catch_exceptions=False
        )

    yield call
    sys.modules.pop("sleeper", None)
    monkeypatch.undo()
    registry._points.cache_clear()


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_a_pipe_gets_a_line_for_every_task_and_others_while_one_lasts(sleeping, jobs):
    found = sleeping("--jobs", jobs)
    assert found.exit_code == 0, found.stderr
    lines = found.stderr.splitlines()
    for name in ("sleeper", "other"):
        own = [line for line in lines if f"mini60-2x30 {name} order 0 seed 0: " in line]
        assert [re.search(r"task (\d) of 2 \(.*\) done; \d+ s so far, ", line) is not None for line in own].count(True) == 2
        between = [line for line in own if "learning classes" in line and re.search(r"\(task \d of 2\); \d+ s so far", line)]
        assert len(between) >= 4, found.stderr  # a second each, and a line every 0.4 seconds
        assert any(f"{name} order 0 seed 0: finished after" in line for line in own)
    assert "so far" not in found.stdout and "2 runs, 2 to do" in found.stdout


def test_quiet_says_nothing(runs, capsys):
    with display.shown(runs[:1], quiet=True) as report:
        report(runs[0], Moment(1, "going on", ended="digits"))
    assert capsys.readouterr() == ("", "")


# -- the display itself -------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    run = dataclasses.replace(small_run("coop", tmp_path), tasks=3)
    return [dataclasses.replace(run, seed=seed) for seed in range(12)]


def test_a_line_says_task_elapsed_remaining_and_loss(runs, capsys):
    with display.shown(runs[:1]) as report:
        report(runs[0], Moment(0, "learning digits"))
        report(runs[0], Moment(1, "going on", ended="digits", loss=0.123456, left=90.0))
        report(runs[0], Moment(0, "", ended="finished"))
    said = capsys.readouterr()
    assert said.err == "small coop order 0 seed 0: task 1 of 3 (digits) done; 1 s so far, about 1 min 30 s to go, loss 0.1235\n"
    assert said.out == ""


def test_of_many_runs_at_a_time_one_line_tells(runs, capsys, monkeypatch):
    monkeypatch.setenv("BENCH_PROGRESS_SECONDS", "0.2")
    with display.shown(runs) as report:
        for run in runs:
            report(run, Moment(0, "pending"))
        time.sleep(0.35)
    assert set(capsys.readouterr().err.splitlines()) == {"0 of 12 runs are over; 12 pending; 1 s so far"}


def test_nobody_reading_stops_no_run(runs, monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Broken())
    with display.shown(runs) as report:
        report(runs[0], Moment(1, "going on", ended="digits"))


def test_bars_have_a_remaining_time_and_steps(runs, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    with display.shown(runs[:1]) as report:
        report(runs[0], Moment(1, "learning [digits]", step=120, steps=400, epoch=3, epochs=10, loss=0.5, left=61.0))
        time.sleep(0.3)
    said = terminal.getvalue()
    assert "learning [digits]" in said and "1 min 1 s left" in said and "epoch 3 of 10, step 120 of 400, loss 0.5" in said


def test_a_wrong_number_of_seconds_is_one_line(bench, monkeypatch):
    for wrong in ("soon", "-1", "nan"):
        monkeypatch.setenv("BENCH_PROGRESS_SECONDS", wrong)
        found = bench("list", "metrics")
        assert found.returncode == 2 and found.stderr.startswith(f"bench: BENCH_PROGRESS_SECONDS={wrong}: a number of seconds")
