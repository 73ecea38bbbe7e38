"""Warnings of libraries do not reach the user; those of this package and of plug-ins are a line without a place."""

import subprocess
import sys

import numpy as np
import pytest

import methods
from bench.system import library_warnings

USER = UserWarning


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (np.__file__, ""),
        (subprocess.__file__, ""),
        ("<frozen importlib._bootstrap>", ""),
        ("/home/somebody/my_method.py", "note: look out\n"),
        (methods.__file__, "note: look out\n"),
    ],
)
def test_whose_warning_it_is(file, said):
    assert library_warnings._formatted(USER("look\nout"), USER, file, 7) == said


def test_an_installed_plugin_is_no_library(monkeypatch):
    site = np.__file__.partition("numpy")[0]
    assert library_warnings._formatted("x", USER, f"{site}novel/method.py", 1) == ""
    monkeypatch.setattr(library_warnings.registry, "names", lambda kind: ["novel"])
    monkeypatch.setattr(library_warnings.registry, "target", lambda kind, name: "novel.method:Novel")
    assert library_warnings._formatted("x", USER, f"{site}novel/method.py", 1) == "note: x\n"


CODE = """
import warnings, numpy
from bench.system.library_warnings import left_to_their_authors
with left_to_their_authors():
    warnings.warn_explicit("of numpy", UserWarning, numpy.__file__, 1)
    warnings.warn("of this one")
"""


@pytest.mark.parametrize("asked", [False, True])
def test_python_shows_all_of_them_where_it_is_asked_to(asked, tmp_path):
    (tmp_path / "script.py").write_text(CODE)
    options = ["-W", "default"] if asked else []
    done = subprocess.run([sys.executable, *options, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if asked:
        assert "UserWarning: of numpy" in done.stderr and "script.py:6: UserWarning: of this one" in done.stderr
    else:
        assert done.stderr == "note: of this one\n"
