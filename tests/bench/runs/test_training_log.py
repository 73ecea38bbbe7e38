"""log.csv: the losses of a run as its training loops have them, epoch by epoch, each task once."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from bench import BenchError, Draws
from bench.results import training_log
from bench.runs import moments, watch
from bench.runs.watch import Watch
from bench.system import progress
from methods.shared.batches import training_batches


@pytest.fixture
def log(tmp_path):
    return tmp_path / "run" / "log.csv"


def watched(log, *tasks, say=moments.ignore) -> list[tuple]:
    """The rows, without their seconds, that tasks leave: functions that make steps."""
    listener = Watch(log, say)
    with progress.listening(listener):
        listener.begin(len(tasks), 0, [])
        for index, task in enumerate(tasks):
            with listener.learning(index, f"task {index}"):
                task()
            listener.finished(index + 1, f"task {index}", 1.0)
    return [dataclasses.astuple(row)[:-1] for row in training_log.read(log)]


def descend(images: int, losses, purpose=("batch order", 0), **more):
    """Steps over batches of two images, down these losses one after the other."""
    arguments = {"epochs": 2, "budget": None} | more
    batches = training_batches(Draws("p", "m", 0), images=images, batch_size=2, purpose=purpose, **arguments)
    for loss, _ in zip(losses, batches):
        progress.step(torch.tensor(loss, requires_grad=True))


def test_an_epoch_is_a_row_with_its_mean_loss(log):
    rows = watched(log, lambda: descend(4, [1.0, 2.0, 4.0, 6.0]), lambda: descend(3, [8.0, 8.0, 2.0, 1.0]))
    assert rows == [
        (0, "task 0", "", 1, 2, 1.5), (0, "task 0", "", 2, 4, 5.0), (1, "task 1", "", 1, 2, 8.0), (1, "task 1", "", 2, 4, 1.5),
    ]  # fmt: skip


def test_a_budget_cuts_the_last_epoch_short(log):
    rows = watched(log, lambda: descend(4, [1.0, 2.0, 4.0], budget=6))
    assert rows == [(0, "task 0", "", 1, 2, 1.5), (0, "task 0", "", 2, 3, 4.0)]


def test_phases_have_names_and_a_second_one_a_number(log):
    def learn():
        descend(2, [1.0], epochs=1)
        descend(2, [2.0], ("balanced batch order", 0), epochs=1)
        descend(2, [3.0], ("balanced batch order", 0), epochs=1)

    phases = [(phase, loss) for _, _, phase, _, _, loss in watched(log, learn)]
    assert phases == [("", 1.0), ("balanced", 2.0), ("balanced 2", 3.0)]


def test_a_phase_without_epochs_has_a_row_every_few_steps(log):
    def learn():
        progress.trains("long", 5000)
        for step in range(5000):
            progress.step(step)
        progress.trains("short", 12)
        for _ in range(12):
            progress.step(torch.tensor(1.0))
        progress.step(None)  # trained nothing

    rows = watched(log, learn)
    assert len(rows) == 102 and rows[0] == (0, "task 0", "long", None, 50, 24.5)
    assert [row[4] for row in rows[-2:]] == [10, 12]


def test_a_loop_that_says_nothing_but_its_losses_is_logged_too(log):
    rows = watched(log, lambda: [progress.step(1.0) for _ in range(15)])
    assert [row[3:] for row in rows] == [(None, 10, 1.0), (None, 15, 1.0)]


def test_losses_are_read_together_and_not_step_by_step(log, monkeypatch):
    """Reading one makes a GPU wait."""
    read = []
    monkeypatch.setattr(watch, "READ_SECONDS", 1e9)
    monkeypatch.setattr(watch, "_numbers", lambda losses: read.append(len(losses)) or [0.0] * len(losses))
    watched(log, lambda: descend(8, [1.0] * 80, epochs=20))
    assert read == [20]


def test_what_was_trained_before_an_exception_is_in_the_log(log):
    def learn():
        descend(4, [1.0, 2.0, math.nan], epochs=2)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        watched(log, learn)
    rows = training_log.read(log)
    assert [row.step for row in rows] == [2, 3] and math.isnan(rows[1].loss)


def test_steps_outside_a_task_are_nobodys(log):
    listener = Watch(log, moments.ignore)
    with progress.listening(listener):
        progress.step(1.0)
    progress.step(1.0)
    assert training_log.read(log) == [] and not log.exists()


def test_a_run_that_goes_on_keeps_the_rows_of_finished_tasks_alone(log):
    watched(log, lambda: descend(2, [1.0], epochs=1), lambda: descend(2, [2.0], epochs=1))
    with open(log, "a") as file:
        file.write("1,task 1,,2,2,0.")  # killed while it wrote
    assert [row.task for row in training_log.read(log)] == [0, 1]
    training_log.cut(log, 1)
    assert log.read_text().splitlines()[1].startswith("0,task 0,,1,1,1.0,") and len(log.read_text().splitlines()) == 2
    training_log.cut(log, 0)
    assert not log.exists()


@pytest.mark.parametrize("content", ["", "no,log\n1,2\n", "\xff\n", "task,name,phase,epoch,step,loss,seconds\n1,2\n"])
def test_a_log_that_is_none_stops_no_run_and_is_one_line_for_a_reader(log, content):
    log.parent.mkdir()
    log.write_bytes(content.encode("latin-1"))
    if content:
        with pytest.raises(BenchError, match="log.csv"):
            training_log.read(log)
    training_log.cut(log, 3)
    assert not log.exists()


def test_how_far_training_is(log, monkeypatch):
    monkeypatch.setattr(watch, "SAY_SECONDS", 0)
    said = []
    watched(log, lambda: descend(4, [1.0, 2.0, 3.0, 4.0]), lambda: None, say=said.append)
    last = [moment for moment in said if moment.steps][-1]
    assert (last.done, last.what, last.step, last.steps, last.epoch, last.epochs) == (0, "learning task 0", 4, 4, 2, 2)
    assert last.left is not None and said[-1].done == 2 and said[-1].loss == 3.5 and said[-1].ended == "task 1"
    assert moments.Moment(**last.to_json()) == last


def test_other_work_is_seen_while_it_lasts(log, monkeypatch):
    monkeypatch.setattr(watch, "SAY_SECONDS", 0)
    said = []
    watched(log, lambda: list(progress.followed("abc", "encoding", 3)), say=said.append)
    assert [(moment.step, moment.steps) for moment in said if moment.phase == "encoding"] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert said[-1].phase == ""


def test_the_page_names_every_column():
    page = (Path(__file__).parents[3] / "docs/results-format.md").read_text()
    section = page.split("## log.csv")[1].split("\n## ")[0]
    assert [line.split(" | ")[0].strip("| ") for line in section.splitlines() if line.startswith("| ")][2:] == list(
        training_log.COLUMNS
    )
    assert all(meaning in section for meaning in training_log.COLUMNS.values())
