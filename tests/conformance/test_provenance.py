"""What ships about the comparisons is true of the vectors that are here: whose code, which methods, how large an error.

What is feared is a table of small errors that were measured on other vectors, or on no vectors at all.
"""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bench.results import conformance
from bench.results.conformance import WorstError
from bench.system import registry
from tests.conformance import measured, sets
from tests.conformance.vectors import Vectors
from tests.conftest import OWN_VECTORS

FILES = {(index.parent.name, name): facts for index in sets.indices(OWN_VECTORS) for name, facts in sets.files_of(index).items()}
REMEDY = "pytest tests/conformance --write-errors results/conformance/worst_errors.csv measures again"


def test_every_directory_of_vectors_names_the_code_that_it_comes_from():
    directories = {path.name for path in OWN_VECTORS.iterdir() if path.is_dir()}
    assert directories and directories <= set(conformance.authors_code())
    for code in conformance.authors_code().values():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", code.repository), code
        assert re.fullmatch(r"[0-9a-f]{7,40}", code.commit), code
        assert re.fullmatch(r"(20\d\d-\d\d-\d\d)?", code.commit_date), code


def test_every_file_of_vectors_has_its_worst_error_and_no_other_file_has_one():
    errors = conformance.worst_errors()
    assert len({error.key for error in errors}) == len(errors)
    assert {(error.vectors, error.file) for error in errors} == set(FILES), REMEDY
    for (directory, file), facts in FILES.items():
        assert (directory, file, facts["dtype"]) in {error.key for error in errors}, REMEDY


def test_no_error_exceeds_its_limit():
    assert [error for error in conformance.worst_errors() if not 0 <= error.worst <= 1] == []
    assert all(error.arrays and error.worst_array and error.limits for error in conformance.worst_errors())


def test_errors_were_measured_on_the_vectors_and_limits_that_are_here():
    for error in conformance.worst_errors():
        now = measured.digest(OWN_VECTORS / error.vectors / error.file, FILES[error.vectors, error.file])
        assert error.digest == now, f"{error.vectors}/{error.file} has changed since; {REMEDY}"


def test_the_methods_of_an_error_are_those_that_the_tests_name():
    for error in conformance.worst_errors():
        readers = sets.readers(error.vectors, error.file)
        assert set(error.methods) == {method for reader in readers for method in reader.compared}, REMEDY


def test_every_method_that_says_it_was_compared_has_an_error_and_no_other_has_one():
    known = registry.names("method")
    compared = {method for reader in sets.every_reader() for method in reader.compared}
    assert compared <= set(known), "a mark `vectors` on a directory that is no method's names its methods"
    for name in known:
        says = not registry.load("method", name).conformance.startswith("no vectors")
        assert (name in compared) == says == bool(conformance.errors_of(name)), name


def test_nobody_is_pointed_to_a_file_that_does_not_exist():
    for index in sets.indices(OWN_VECTORS):
        assert set(re.findall(r"[\w-]+\.(?:md|npz|json|csv)\b|README|\bspec\b", index.read_text())) <= {
            *(name for directory, name in FILES if directory == index.parent.name),
            *(path.name for path in index.parent.iterdir()),
        }, index


# -- measuring --------------------------------------------------------------------------------------------------


def compared(folder, name: str, methods=("some-method",), dtype: str = "float64", **ratios: float) -> Vectors:
    """Vectors of which these arrays have been compared."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / name, **{array: np.ones(2) for array in ratios})
    facts = {"dtype": "float64", "params": {}, "inputs": [], "not_compared": {}, "faithful_only": []}
    limits = {"tolerances": {"*": {"abs": 0.5}}, "tolerances_float32": {"*": {"abs": 1.0}}}
    vectors = Vectors(folder / name, facts | limits, methods)
    vectors.check({array: np.array([1.0, 1 + ratio / 2]) for array, ratio in ratios.items()}, dtype=dtype)
    return vectors


def test_a_file_that_was_compared_in_several_ways_has_one_error_for_each_precision(tmp_path):
    first = compared(tmp_path / "one", "a.npz", loss=0.25, logits=0.5)
    second = compared(tmp_path / "one", "a.npz", ("another",), loss=0.75, logits=0.125)
    single = compared(tmp_path / "one", "a.npz", dtype="float32", loss=0.5, logits=0.25)
    single_error, double = measured.worst_errors([first, single, second])
    assert (double.vectors, double.file, double.computed_in) == ("one", "a.npz", "float64")
    assert (double.worst, double.worst_array, double.arrays) == (0.75, "loss", 2)
    assert double.methods == ("some-method", "another") and double.limits == "0.5 (2)"
    assert (single_error.computed_in, single_error.worst, single_error.limits) == ("float32", 0.25, "1 (2)")


def test_storing_renews_what_was_compared_and_keeps_the_rest(tmp_path):
    path = tmp_path / "errors.csv"
    measured.store(path, [compared(tmp_path / "b", "x.npz", loss=0.5), compared(tmp_path / "a", "y.npz", (), loss=0.25)])
    before = conformance.read_errors(path)
    assert [error.key[:2] for error in before] == [("a", "y.npz"), ("b", "x.npz")] and before[0].methods == ()
    measured.store(path, [compared(tmp_path / "b", "x.npz", loss=0.125)])
    kept, renewed = conformance.read_errors(path)
    assert kept == before[0]
    assert renewed == replace(before[1], worst=0.125)


def test_the_digest_knows_other_numbers_and_other_limits(tmp_path):
    vectors = compared(tmp_path / "b", "x.npz", loss=0.5)
    before = measured.digest(vectors.path, vectors.facts)
    assert measured.digest(vectors.path, vectors.facts | {"tolerances": {"*": {"abs": 0.6}}}) != before
    np.savez(vectors.path, loss=np.zeros(2))
    assert measured.digest(vectors.path, vectors.facts) != before


@pytest.mark.thorough
def test_a_run_of_the_tests_writes_what_it_has_measured(tmp_path):
    path = tmp_path / "errors.csv"
    done = pytest_with(path, "tests/conformance/test_rail.py")
    assert done.returncode == 0, done.stdout + done.stderr
    [error] = conformance.read_errors(path)
    assert isinstance(error, WorstError) and error.key == ("rail", "vectors.npz", "float32")
    assert error.methods == ("rail-primal", "rail-dual") and 0 < error.worst <= 1


@pytest.mark.thorough
def test_processes_that_cannot_tell_what_they_have_measured_are_refused(tmp_path):
    pytest.importorskip("xdist")
    done = pytest_with(tmp_path / "errors.csv", "-n", "2", "tests/conformance/test_rail.py")
    assert done.returncode == 4 and "--write-errors" in done.stderr


def pytest_with(path, *arguments: str) -> subprocess.CompletedProcess:
    root = OWN_VECTORS.parent.parent.parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--write-errors", str(path), *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
