"""`bench check`: which contract a name is held to, what is printed, and with which exit code."""

import pytest
from click.testing import CliRunner

from bench.checks import dataset, method
from bench.checks.promises import Result
from bench.commands.main import main
from bench.system import registry


@pytest.fixture
def check(cache, tmp_path):
    """check(name) -> (exit code, standard output, standard error)"""

    def call(name: str) -> tuple[int, str, str]:
        found = CliRunner().invoke(main, ["check", name, "--data-dir", str(tmp_path), "--cache-dir", str(cache)])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found.exit_code, found.stdout, found.stderr

    return call


@pytest.mark.parametrize(
    ("name", "promises", "one"),
    [
        ("mini-digits", 7, "labels every image with one of its classes"),
        ("mini-digits-5x2", 9, "has no test image among its training images"),
    ],
)
def test_data_sets_and_streams_have_contracts_of_their_own(name, promises, one, check):
    code, report, _ = check(name)
    assert code == 0, report
    assert f"pass  {one}\n" in report
    assert report.splitlines()[promises:] == [f"{name}: {promises} passed, 0 failed"]


@pytest.mark.parametrize("name", ["cifar100", "cifar100-10x10"])
def test_data_that_is_not_there_is_one_line_with_exit_code_2(name, check, tmp_path):
    code, report, complaint = check(name)
    assert (code, report) == (2, "") and complaint.count("\n") == 1
    assert complaint.startswith(f"bench: data set cifar100 is not in {tmp_path / 'cifar-100-python'}; download https://")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mini-digit", "unknown name 'mini-digit'; did you mean mini-digits"),
        ("zero-shots", "unknown name 'zero-shots'; did you mean zero-shot"),
        ("mini-digits-3x4", "unknown protocol 'mini-digits-3x4'; did you mean"),
    ],
)
def test_an_unknown_name_is_refused_with_the_close_ones(name, complaint, check):
    code, report, said = check(name)
    assert (code, report) == (2, "") and said.count("\n") == 1 and complaint in said


def test_a_name_of_several_kinds_is_checked_as_all_of_them(check, monkeypatch):
    monkeypatch.setattr(registry, "names", lambda kind: ["twin"] if kind in ("method", "dataset") else [])
    monkeypatch.setattr(method, "check", lambda name, folders: [Result("learns", True)])
    monkeypatch.setattr(dataset, "check", lambda name, folders: [Result("is", True), Result("stays", False, "it went")])
    assert check("twin")[:2] == (
        1,
        "twin names a method and a data set: all are checked\n"
        "pass  learns\nmethod twin: 1 passed, 0 failed\n"
        "pass  is\nFAIL  stays: it went\ndata set twin: 1 passed, 1 failed\n",
    )
