"""A set of vectors from which nothing is compared fails: what is skipped for want of a file must not look like agreement."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conformance import sets
from tests.conformance.vectors import Vectors
from tests.conftest import OWN_VECTORS


def complaints(folder: Path) -> Iterator[str]:
    """Why a set, or a part of it, would not be compared although no test fails."""
    tested = [index for index in sets.indices(folder) if any(index.parent.name == one.method for one in sets.every_reader())]
    if not tested:
        yield f"{folder}: no vectors of any method that has a test (DIR/<method>/params.json and the files that it lists)"
    for index in tested:
        method, listed = index.parent.name, sets.files_of(index)
        if not any((index.parent / name).exists() for name in listed):
            yield f"{index}: none of the files that it lists is there"
        for name in listed:
            if not sets.readers(method, name):
                patterns = sorted({pattern for one in sets.every_reader() if one.method == method for pattern in one.patterns})
                yield f"{index}: no test reads {name}; they read {', '.join(patterns)}"


def test_every_file_of_the_set_is_read(request):
    assert list(complaints(request.config.getoption("vectors"))) == []


def made(folder: Path, files: dict[str, list[str]], there: tuple[str, ...] = ()) -> Path:
    """A set with these methods and files; `there` are those that exist."""
    for method, names in files.items():
        (folder / method).mkdir(parents=True)
        (folder / method / "params.json").write_text(json.dumps({"files": {name: {} for name in names}}))
    for place in there:
        (folder / place).touch()
    return folder


@pytest.mark.parametrize(
    ("files", "there", "complaint"),
    [
        ({}, (), "no vectors of any method that has a test"),
        ({"of-somebody-else": ["vectors.npz"]}, ("of-somebody-else/vectors.npz",), "no vectors of any method that has a test"),
        ({"l2p": ["vectors.npz"]}, (), "none of the files that it lists is there"),
        ({"l2p": []}, (), "none of the files that it lists is there"),
        ({"coop": ["vectors.npz", "other.npz"]}, ("coop/vectors.npz", "coop/other.npz"), "no test reads other.npz; they read"),
        ({"l2p": ["vectors.npz", "more.npz"], "of-somebody-else": ["a.npz"]}, ("l2p/vectors.npz",), None),
    ],
)
def test_what_would_be_passed_over_is_a_complaint(tmp_path, files, there, complaint):
    found = list(complaints(made(tmp_path, files, there)))
    assert len(found) == bool(complaint) and all(complaint in one for one in found)


def pytest_on(folder: Path, *tests: str) -> subprocess.CompletedProcess:
    root = OWN_VECTORS.parent.parent.parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--vectors", str(folder), *tests]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)


@pytest.mark.thorough
def test_a_skip_is_shown_with_its_reason_and_an_empty_set_fails(tmp_path):
    every_file = "tests/conformance/test_sets.py::test_every_file_of_the_set_is_read"
    done = pytest_on(tmp_path, "tests/conformance/test_simplecil.py", every_file)
    assert done.returncode == 1, done.stdout
    assert "conformance: not compared" in done.stdout
    assert f"no vectors in {tmp_path / 'simplecil'}" in done.stdout
    assert "no vectors of any method that has a test" in done.stdout


@pytest.mark.thorough
def test_a_set_that_does_not_exist_is_refused(tmp_path):
    done = pytest_on(tmp_path / "none", "tests/conformance/test_simplecil.py")
    assert done.returncode == 4 and f"{tmp_path / 'none'}: no such directory" in done.stderr


def test_vectors_of_which_nothing_is_to_be_compared_fail():
    vectors = object.__new__(Vectors)
    vectors.path, vectors.arrays, vectors.ratios = Path("some.npz"), {"draws": np.zeros(3)}, {}
    vectors.facts = {"dtype": "float32", "inputs": ["draws"], "tolerances": {}, "not_compared": {}, "faithful_only": []}
    with pytest.raises(AssertionError, match="nothing was compared"):
        vectors.check({})
