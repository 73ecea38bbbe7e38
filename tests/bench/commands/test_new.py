"""`bench new`: what it writes works as written, and what it cannot write leaves nothing behind."""

import ast
import configparser
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.commands import new as new_package
from bench.commands.main import main
from bench.system import outlines, registry

ROOT = Path(__file__).parents[3]
KINDS = ["method", "dataset", "protocol"]


def new(kind: str, name: str, parent: Path):
    return CliRunner().invoke(main, ["new", kind, name, "--out", str(parent)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_point_names_an_object_of_the_module(kind, tmp_path):
    result = new(kind, "nearest-thing", tmp_path)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "nearest-thing"
    written = {"nearest_thing.py", "test_nearest_thing.py", "pyproject.toml", "README.md"}
    assert {path.name for path in folder.iterdir()} == written
    assert list(tmp_path.iterdir()) == [folder]  # no leftovers

    settings = tomllib.loads((folder / "pyproject.toml").read_text())
    [(name, target)] = settings["project"]["entry-points"][registry.KINDS[kind]].items()
    module, attribute = target.split(":")
    assert (name, [module]) == ("nearest-thing", ["nearest_thing"]) == (name, settings["tool"]["setuptools"]["py-modules"])
    assert settings["project"]["name"] == "nearest-thing"
    summary, broken = outlines.of_object(str(folder / f"{module}.py"), attribute, module, whole=True)
    assert summary and not broken
    tests = ast.parse((folder / "test_nearest_thing.py").read_text())
    imported = {node.module for node in ast.walk(tests) if isinstance(node, ast.ImportFrom)}
    assert f"bench.checks.{kind}" in imported and all(find_spec(module) for module in imported if module.startswith("bench."))
    for path in folder.iterdir():
        assert "{{" not in path.read_text() and "{%" not in path.read_text(), path


def test_its_pyproject_is_the_one_that_the_page_on_methods_shows(tmp_path):
    new("method", "nearest-mean", tmp_path)
    page = (ROOT / "docs" / "your-own-method.md").read_text()
    shown = page.split("<!-- file: nearest-mean/pyproject.toml -->\n```toml\n")[1].split("```")[0]
    assert (tmp_path / "nearest-mean" / "pyproject.toml").read_text() == shown


def test_a_method_is_a_class_named_in_the_usual_way(tmp_path):
    new("method", "nearest-thing2", tmp_path)
    assert "class NearestThing2(Method):" in (tmp_path / "nearest-thing2" / "nearest_thing2.py").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_to_do_next(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["new", kind, "novel-one"])
    assert "pip install ./novel-one" in result.output and "bench check novel-one" in result.output


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("method", "Nearest", "cannot be the name"),
        ("method", "a,b", "cannot be the name"),
        ("method", "../up", "cannot be the name"),
        ("method", "-x", "cannot be the name"),
        ("method", "", "cannot be the name"),
        ("method", "class", "cannot be the name"),
        ("method", "all", "cannot be the name"),
        ("method", "coop", "a method 'coop' already, in package continual-clip-bench"),
        ("dataset", "mini60", "a data set 'mini60' already"),
        ("protocol", "mini60-6x10", "a protocol 'mini60-6x10' already"),
        ("protocol", "mini60-3x20", "a protocol 'mini60-3x20' already, made from its name"),
        ("method", "numpy", "a package 'numpy' is installed already"),
        ("dataset", "json", "a module 'json' can be imported already"),
    ],
)
def test_a_name_that_cannot_be_had_is_refused_in_one_line(kind, name, reason, tmp_path):
    result = new(kind, name, tmp_path) if not name.startswith("-") else CliRunner().invoke(
        main, ["new", kind, "--out", str(tmp_path), "--", name]
    )  # fmt: skip
    assert result.exit_code == 2
    assert reason in result.output and result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_already_is_left_alone(make, tmp_path):
    make(tmp_path / "novel-one")
    before = os.lstat(tmp_path / "novel-one")
    result = new("method", "novel-one", tmp_path)
    assert result.exit_code == 2 and "exists already" in result.output
    assert os.lstat(tmp_path / "novel-one") == before
    assert [path.name for path in tmp_path.iterdir()] == ["novel-one"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    written = []

    def full(path, *arguments, **options):
        if written:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)

    monkeypatch.setattr(Path, "write_text", full)
    result = new("method", "novel-one", tmp_path)
    assert result.exit_code == 2 and "no space left" in result.output
    assert written and list(tmp_path.iterdir()) == []


def test_a_place_that_does_not_exist_is_said(tmp_path):
    result = new("method", "novel-one", tmp_path / "nowhere")
    assert (result.exit_code, result.output) == (
        2, f"bench: {tmp_path / 'nowhere'}: no such folder; make it, or choose another place with --out\n",
    )  # fmt: skip


def test_every_template_ships_with_the_package():
    shipped = {path.name for path in (ROOT / "bench" / "commands" / "templates").iterdir()}
    needed = {f"{kind}{suffix}.py.jinja" for kind in new_package.KINDS for suffix in ("", "_test")}
    assert shipped == needed | {"pyproject.toml.jinja", "README.md.jinja"}
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert "templates/*" in settings["options.package_data"]["bench.commands"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    """An empty folder, and a function that runs a command there as its owner would, installed packages included."""
    folder = tmp_path_factory.mktemp("strangers")
    site = folder / "site"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "BENCH_CACHE": str(cache)}

    def run(command: str) -> str:
        program, *arguments = shlex.split(command)
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)] * (program == "pip")
        # -P: the current folder is not on the import path, as for the installed programs
        whole = [sys.executable, "-P", "-m", program, *arguments, *options]
        found = subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
        assert found.returncode == 0, f"{command}\n{found.stdout}{found.stderr}"
        return found.stdout

    yield folder, run
    shutil.rmtree(folder, ignore_errors=True)


TRIED = {  # beyond the commands that `bench new` prints itself: what a user of such a plug-in sees
    "method": ["bench list methods", "bench show {name}"],
    "dataset": ["bench data list", "bench list datasets", "bench data check {name}"],
    "protocol": [
        "bench list protocols",
        "bench show {name}",
        "bench run --protocol {name} --limit-train 5 --limit-test 5 --methods zero-shot",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_works_as_printed_and_passes_its_own_test(kind, folder):
    folder, run = folder
    name = f"novel-{kind}"
    said = run(f"bench new {kind} {name}")
    commands = [line.strip() for line in said.split("try it:")[1].splitlines() if line.strip()]
    for command in commands:
        run(command)
    for command in TRIED[kind]:
        assert name in run(command.format(name=name))
    assert " passed" in run(f"pytest -q -p no:cacheprovider {name}")
