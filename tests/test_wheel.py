"""The package without its checkout: a built wheel does the same job, and a stranger's package joins in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import page_commands

ROOT = Path(__file__).parent.parent

PLUGIN_SETUP = """
[metadata]
name = nearest-mean-plugin
version = 1
[options]
py_modules = nearest_mean
[options.entry_points]
bench.methods =
    nearest-mean = nearest_mean:NearestMean
    unlucky = nearest_mean:Missing
"""


def run(*command, **options) -> subprocess.CompletedProcess:
    found = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600, **options)
    assert found.returncode == 0, found.stdout + found.stderr
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Environment variables under which only the installed wheel (and torch and the like) can be imported."""
    pytest.importorskip("build", reason="building a wheel needs the package `build` (pip install .[test])")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that no earlier build lends it a file
    shipped = [f"results/{name}" for name in ("published", "paper_tables", "baselines", "conformance", "measured")]
    for name in ("bench", "methods", "protocols", *shipped):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    site = folder / "site"
    pip_install(site, *folder.glob("*.whl"))
    return folder, site, os.environ | {"PYTHONPATH": str(site), "BENCH_CACHE": str(folder / "cache")}


def pip_install(site: Path, *what: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site, *what)


def bench(installed, folder: Path, *arguments: str) -> str:
    _, site, environment = installed
    # -P keeps the current folder off the path; the checkout must not be what is imported
    code = (
        f"import bench, sys; assert bench.__file__.startswith({str(site)!r}), bench.__file__; "
        "from bench.commands.main import main; main()"
    )
    return run(sys.executable, "-P", "-c", code, *arguments, cwd=folder, env=environment).stdout


@pytest.mark.slow
def test_the_wheel_runs_from_an_empty_folder(installed, tmp_path):
    output = bench(installed, tmp_path, "run", "--protocol", "mini60-6x10", "--methods", "zero-shot",
                   "--limit-train", "2", "--limit-test", "2")  # fmt: skip
    assert "CI-Transfer" in output
    assert (tmp_path / "results").is_dir()
    assert "bench check" in bench(installed, tmp_path, "new", "method", "novel-method")  # its templates are in the wheel
    assert "compared with the numbers of" in bench(installed, tmp_path, "show", "coop")  # and what was measured
    assert "measured by others" in bench(installed, tmp_path, "table", "--measured")
    assert list((installed[1] / "methods" / "recipes").glob("*.toml"))  # tuned settings
    assert "3 cells: 3 cannot be run" in bench(installed, tmp_path, "reproduce", "lora-loop-mtil")  # and study files


@pytest.mark.slow
def test_a_strangers_package_appears_and_runs(installed, tmp_path):
    folder, site, _ = installed
    package = folder / "plugin"
    package.mkdir()
    (package / "setup.cfg").write_text(PLUGIN_SETUP)
    (package / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    page = (ROOT / "docs" / "your-own-method.md").read_text()
    source = next(block.text for block in page_commands.blocks(page) if block.rest.endswith("nearest_mean.py"))
    (package / "nearest_mean.py").write_text(source)
    pip_install(site, package)
    listed = bench(installed, tmp_path, "list", "methods")
    assert "nearest-mean" in listed and "Nearest class mean" in listed
    assert "unlucky" in listed and "does not define 'Missing'" in listed
    assert "0 failed" in bench(installed, tmp_path, "check", "nearest-mean")
    table = bench(installed, tmp_path, "run", "--protocol", "mini60-6x10", "--methods", "nearest-mean,zero-shot",
                  "--limit-train", "5", "--limit-test", "2")  # fmt: skip
    assert "nearest-mean" in table
