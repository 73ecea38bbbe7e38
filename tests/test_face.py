"""The public names of `bench`, and the names that its modules had before."""

import ast
import importlib
import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.system import former_names, public_names

PUBLIC = (
    "Backbone BenchError Choices Composition Copy Dataset DatasetInfo Draws Folders HubFiles ImageFiles ImageSource Layout "
    "Method Order Protocol Range Reference ReferenceNames RemoteFile RunFailure Scenario Split Task TaskPlan TestBatches "
    "TrainedModel UnfitMethod class_incremental dataset_on_disk load one_line one_task_per_dataset parquet_images results "
    "run setting table unknown_name"
).split()


def python(code: str, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True)


def test_the_public_names_are_these():
    """Taking one away breaks plug-ins: it stays for a release, with a warning."""
    assert sorted(bench.__all__) == sorted(PUBLIC)
    assert all(getattr(bench, name) is not None for name in PUBLIC) and set(PUBLIC) <= set(dir(bench))


def test_type_checkers_are_told_the_same_names_of_the_same_modules():
    tree = ast.parse(Path(bench.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told.pop("VERSION") == "bench.system.version"
    assert told == {name: public_names.MODULE_OF[name] for name in PUBLIC}


def test_importing_bench_waits_for_no_library():
    found = python(
        "import sys, bench; assert not {'torch', 'numpy', 'pandas', 'open_clip', 'click'} & set(sys.modules)\n"
        "from bench import Method; assert 'torch' in sys.modules; print(Method.__module__, bench.__version__)"
    )
    assert found.stdout.split() == ["bench.learning.method", bench.__version__], found.stderr


def test_an_unknown_name_is_an_error_and_no_module():
    with pytest.raises(AttributeError, match="no attribute 'Metod'"):
        bench.Metod  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("bench.never_there")


@pytest.mark.parametrize("former", sorted(former_names.MOVED))
def test_a_former_name_gives_the_module_itself_and_says_where_it_is(former):
    sys.modules.pop(former, None)
    places = former_names.MOVED[former]
    with pytest.warns(DeprecationWarning, match=f"^{former} is {places.modules[0]}"):
        module = importlib.import_module(former)
    now = [importlib.import_module(place) for place in places.modules]
    if len(now) == 1 and not places.renamed:
        assert module is now[0] and module.__spec__.name == module.__name__ == places.modules[0]
    own = [name for one in now for name, value in vars(one).items() if getattr(value, "__module__", None) == one.__name__]
    holds_files_only = former == "bench.reference"
    assert bool(own) != holds_files_only and all(hasattr(module, name) for name in own)
    if holds_files_only:
        assert (importlib.resources.files(former) / "published").is_dir()
    for old, place in places.renamed.items():
        where, _, new = place.partition(":")
        assert getattr(module, old) is getattr(importlib.import_module(where), new)
    with pytest.raises(AttributeError, match="never_there"):
        module.never_there  # noqa: B018


@pytest.mark.parametrize("package", sorted(former_names.PACKAGES_NOW))
def test_a_package_with_the_name_of_a_former_module_gives_its_contents(package):
    places = former_names.PACKAGES_NOW[package]
    for module in map(importlib.import_module, places.modules):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        assert own
        for name in own:
            with pytest.warns(DeprecationWarning, match=f"{package}.{name} is"):
                assert getattr(importlib.import_module(package), name) is getattr(module, name)
    with pytest.raises(AttributeError):
        importlib.import_module(package).never_there  # noqa: B018


def test_the_warning_stands_where_the_import_does(tmp_path):
    script = tmp_path / "old_plug_in.py"
    script.write_text("\n\nfrom bench.dataset import Folders\nfrom bench import registry\nfrom bench.gate import compare\n")
    found = subprocess.run([sys.executable, "-W", "always", script], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for line, names in ((3, "bench.dataset is"), (4, "bench.registry is bench.system.registry"), (5, "bench.gate.compare is")):
        assert f"old_plug_in.py:{line}: DeprecationWarning: {names}" in found.stderr


def test_a_module_under_its_former_name_does_not_hide_a_public_name():
    """`bench.parquet_images` was a module, and is a function among the public names."""
    former = "from bench.parquet_images import parquet_images as former"
    found = python(f"{former}\nfrom bench import parquet_images\nprint(parquet_images is former)")
    assert found.stdout == "True\n", found.stderr


def test_a_protocol_still_opens_its_stream(tmp_path):
    from bench.clip import backbone
    from bench.streams.features import FeatureStore
    from bench.streams.names import find

    store = FeatureStore(backbone.load("mini", None, "cpu"), tmp_path)
    with pytest.warns(DeprecationWarning, match=r"^Protocol.stream is bench.streams.opening.open_stream now") as caught:
        stream = find("mini-letters-2x10").stream(0, store, bench.Folders(tmp_path, tmp_path), 1, limit_test=1)
    assert [len(task.train) for task in stream.tasks] == [10, 10] and caught[0].filename == __file__


@pytest.mark.thorough
def test_nothing_of_ours_uses_a_former_name():
    """Every module imported, and the command line called, with these warnings made errors."""
    modules = [
        ".".join(path.relative_to(Path(bench.__file__).parents[1]).with_suffix("").parts).removesuffix(".__init__")
        for package in ("bench", "methods", "protocols")
        for path in sorted((Path(bench.__file__).parents[1] / package).rglob("*.py"))
        if path.stem != "__main__"
    ]
    code = (
        "import importlib, warnings\n"
        "warnings.filterwarnings('error', message='.*the former name goes', category=DeprecationWarning)\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "from bench.commands.main import main\nmain(['list', 'methods'])"
    )
    found = python(code)
    assert found.returncode == 0 and "zero-shot" in found.stdout, found.stderr


def test_the_page_names_all_public_names_and_modules_that_are_there():
    text = (Path(bench.__file__).parents[1] / "docs" / "public-names.md").read_text()
    first_cells = [line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("| `")]
    modules = [name for name in first_cells if "." in name]
    assert sorted(set(first_cells) - set(modules)) == sorted(PUBLIC) and len(first_cells) == len(PUBLIC) + len(modules)
    assert len(modules) == 6 and all(importlib.import_module(name) for name in modules)
