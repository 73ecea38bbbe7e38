"""While a command works, its user is told so: after a while, on stderr, and not with --quiet."""

import io
import sys
import time

import click
import pytest
from click.testing import CliRunner

from bench.commands import waiting
from bench.commands.main import COMMANDS, main
from bench.system.progress import followed


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setenv("BENCH_PROGRESS_SECONDS", "0.2")
    monkeypatch.delenv("BENCH_QUIET")


@pytest.fixture
def slow(monkeypatch):
    """`bench slow`: a command that counts for a second."""

    @click.command("slow")
    def command() -> None:
        for _ in followed(range(4), "counting", 4):
            time.sleep(0.2)
        click.echo("done")

    monkeypatch.setitem(main.commands, "slow", waiting.with_quiet(command))


def test_a_slow_command_says_how_far_it_is(slow):
    found = CliRunner().invoke(main, ["slow"])
    assert found.exit_code == 0 and found.stdout == "done\n"
    lines = found.stderr.splitlines()
    assert len(lines) >= 2 and all(line.startswith("bench slow: counting, ") and " of 4; " in line for line in lines)


@pytest.mark.parametrize("how", ["option", "variable"])
def test_quiet_is_quiet(slow, how, monkeypatch):
    if how == "variable":
        monkeypatch.setenv("BENCH_QUIET", "1")
    found = CliRunner().invoke(main, ["slow", *(["--quiet"] if how == "option" else [])])
    assert (found.exit_code, found.stdout, found.stderr) == (0, "done\n", "")


def test_a_quick_command_says_nothing_more_than_it_did(monkeypatch):
    monkeypatch.delenv("BENCH_PROGRESS_SECONDS")
    found = CliRunner().invoke(main, ["list", "metrics"])
    assert found.exit_code == 0 and found.stderr == ""


def test_in_a_terminal_the_line_is_gone_before_the_answer(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with waiting.shown("bench report"):
        for _ in followed(range(3), "drawing", 3):
            time.sleep(0.2)
        said = terminal.getvalue()
    assert "\rbench report: drawing, " in said and said.endswith(" \r") and "\n" not in said


def commands(group: click.Group):
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield from commands(command) if isinstance(command, click.Group) else [command]


def test_every_command_can_be_quiet():
    found = list(commands(main))
    assert len(found) >= len(COMMANDS)
    assert all(any("--quiet" in parameter.opts for parameter in command.params) for command in found)
