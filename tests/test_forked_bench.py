"""A forked command is one in a process of its own: folder, variables, streams, exit code, and nothing left of the one before."""

import os
import subprocess

import pytest

from tests import forked_bench

PLUG_IN = '''
import os
import sys

from bench import Method


class Speaking(Method):
    """Says what it sees."""

    trains = "nothing"

    def logits(self, batch, classes):
        raise SystemExit


print(os.getcwd(), os.environ["BENCH_WORD"], sys.argv[1:], "pytest" in sys.modules, file=sys.stderr)
'''


@pytest.fixture
def speaking(forked, tmp_path):
    """speaking(word) runs `bench show` of a method in a file, which says what it sees."""
    (tmp_path / "speaking.py").write_text(PLUG_IN)

    def call(word: str) -> subprocess.CompletedProcess:
        return forked.run(["show", "./speaking.py:Speaking"], tmp_path, os.environ | {"BENCH_WORD": word}, 60)

    return call


def test_each_has_its_own_folder_variables_and_streams(speaking, tmp_path):
    for word in ("one", "two"):
        found = speaking(word)
        assert found.returncode == 0 and "Says what it sees" in found.stdout
        assert found.stderr == f"{tmp_path} {word} ['show', './speaking.py:Speaking'] False\n"


def test_it_ends_as_a_fresh_one_does(forked, tmp_path):
    environment = os.environ | {"COLUMNS": "100"}
    for arguments in (["--version"], ["show", "nothing-of-this-name"], ["list", "tables"], ["no-command"]):
        fresh = forked_bench.run_fresh(arguments, tmp_path, environment, 60)
        found = forked.run(arguments, tmp_path, environment, 60)
        assert (found.returncode, found.stdout, found.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


@pytest.mark.skipif(not forked_bench.USABLE, reason="commands are not forked on this system")
def test_one_that_lasts_too_long_is_killed(forked, tmp_path):
    (tmp_path / "speaking.py").write_text(f"{PLUG_IN}\nimport time\n\ntime.sleep(60)\n")
    with pytest.raises(TimeoutError):
        forked.run(["show", "./speaking.py:Speaking"], tmp_path, os.environ | {"BENCH_WORD": "none"}, 1)


def test_variables_that_libraries_read_at_their_import_need_a_fresh_process():
    alike = forked_bench.fit({"HOME": "/a", "PATH": "x"}, {"HOME": "/a", "PATH": "y", "BENCH_CACHE": "z"})
    assert alike == forked_bench.USABLE
    assert not forked_bench.fit({"HOME": "/a"}, {"HOME": "/b"})
    assert not forked_bench.fit({}, {"OMP_NUM_THREADS": "2"})
