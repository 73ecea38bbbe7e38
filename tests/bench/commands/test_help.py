"""The help of every command and of every group of them can be read in a terminal of 80 columns."""

import click
import pytest
from click.testing import CliRunner

from bench.commands.main import main

COLUMNS = 80


def groups(group: click.Group = main, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Group]]:
    """Every group with the words by which it is called."""
    inner = [(name, group.commands[name]) for name in group.commands]
    below = [found for name, one in inner if isinstance(one, click.Group) for found in groups(one, (*path, name))]
    return [(path, group), *below]


@pytest.mark.parametrize(("path", "group"), groups(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_no_description_is_cut(path, group):
    page = CliRunner().invoke(main, [*path, "--help"], env={"COLUMNS": str(COLUMNS)}).output
    listed = page[page.index("Commands:\n") :].splitlines()[1:]
    assert [line.split()[0] for line in listed] == sorted(group.commands)  # one line each
    for line in listed:
        assert line.endswith(".") and not line.endswith("...") and len(line) <= COLUMNS, line


def test_a_description_is_no_other_than_the_one_that_was_written():
    assert all(one.short_help for _, group in groups() for one in group.commands.values())
