"""Nothing that comes from outside is executed: a hostile file for every door, and a look at the source for new doors.

Elsewhere: pickles of data sets (test_safe_pickle.py, tests/protocols/datasets), archives (test_downloads.py), weights files
(test_pretrained.py, test_torchscript.py), the report (test_report.py).
"""

import ast
import contextlib
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench.commands.main import main
from bench.errors import BenchError
from bench.results.samples import Samples
from bench.runs import checkpoint
from bench.streams.features import FeatureStore
from bench.system import registry
from tests.results_folder import write_run

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for folder in ("bench", "methods", "protocols", "results") for path in (ROOT / folder).rglob("*.py"))


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path):
    """The folder that nothing may make."""
    yield tmp_path / "owned"
    assert not (tmp_path / "owned").exists()


def bench(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused_in_one_line(result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.output, result.output
    return result.stderr


# -- pickles ----------------------------------------------------------------------------------------------------


def hostile_files(folder: Path, trap: Path) -> dict[str, Path]:
    """A pickle that makes a folder, in everything that may hold one."""
    files = {name: folder / name for name in ("plain.pt", "zipped.pt", "legacy.pt", "model.safetensors", "model.bin")}
    content = pickle.dumps(Hostile(trap))
    for name in ("plain.pt", "model.safetensors", "model.bin"):
        files[name].write_bytes(content)
    torch.save({"state_dict": Hostile(trap)}, files["zipped.pt"])
    torch.save({"state_dict": Hostile(trap)}, files["legacy.pt"], _use_new_zipfile_serialization=False)
    return files


def test_hostile_weights_are_refused(tmp_path, trap):
    for path in hostile_files(tmp_path, trap).values():
        found = bench(
            "run", "--protocol", "mini60-6x10", "--methods", "zero-shot", "--pretrained", path, "--out", tmp_path / "results"
        )
        assert path.name in refused_in_one_line(found)
        assert not (tmp_path / "results").exists()


def test_a_hostile_entry_of_the_feature_store_is_encoded_again(tmp_path, trap, small_backbone):
    from bench.images.dataset import ImageSource
    from bench.system.files import sha256

    source = ImageSource.from_arrays(np.zeros((2, 32, 32, 3), np.uint8), np.arange(2))
    whole = FeatureStore(small_backbone, tmp_path / "features").features(source).copy()
    entry = next((tmp_path / "features").rglob("*.npy"))
    array = np.empty(2, object)
    array[:] = [Hostile(trap)] * 2
    np.save(entry, array, allow_pickle=True)
    facts = json.loads(entry.with_suffix(".json").read_text())
    entry.with_suffix(".json").write_text(json.dumps(facts | {"sha256": sha256(entry.read_bytes())}))  # the checksum is right
    store = FeatureStore(small_backbone, tmp_path / "features")
    assert np.array_equal(store.features(source), whole) and store.encoded == 2


def test_a_hostile_checkpoint_is_damaged(tmp_path, trap):
    for path in hostile_files(tmp_path, trap).values():
        with pytest.raises(checkpoint.Damaged):
            checkpoint.from_bytes(path.read_bytes())
        assert checkpoint.finished_tasks(path) == 0


def test_hostile_samples_are_refused(tmp_path, trap):
    run = write_run(tmp_path / "results", [[0.5, 0.5], [0.5, 0.5]])
    (run / "samples.safetensors").write_bytes(pickle.dumps(Hostile(trap)))
    with pytest.raises(BenchError, match="samples.safetensors"):
        Samples(run / "samples.safetensors")


def test_hostile_literals_in_logs_of_other_toolkits_are_not_evaluated(tmp_path, trap):
    path = tmp_path / "logs.pyd"
    path.write_text(f"{{'accuracy_1_task1': __import__('os').mkdir({str(trap)!r})}}\n")
    refused_in_one_line(bench("metrics", path))
    path.write_text(f"=> CNN: {{'total': __import__('os').mkdir({str(trap)!r})}}\n")
    refused_in_one_line(bench("metrics", path))


# -- archives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../owned", "/owned", "a/../../owned"])
def test_archives_do_not_leave_their_folder(tmp_path, name):
    from bench.images.downloads import unpack

    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    for archive in ("a.zip", "a.tar"):
        with contextlib.suppress(BenchError):  # the first slash of a member's name may be dropped instead
            unpack(tmp_path / archive, inside)
            assert [path.name for path in inside.iterdir()] == ["owned"]
    assert not (tmp_path / "owned").exists() and not Path("/owned").exists()


def test_members_that_lead_outside_are_refused(tmp_path):
    from bench.images.downloads import unpack

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("whole", "x")
        archive.writestr("../owned", "x")
    with pytest.raises(BenchError, match="not safe to unpack"):
        unpack(tmp_path / "a.zip", tmp_path / "inside")


# -- plug-ins ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile_plugin(tmp_path, trap):
    """An installed package whose import makes a folder, registered as everything there is; the environment that has it."""
    folder = tmp_path / "site"
    info = folder / "hostile-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "hostile.py").write_text(f"import os\nos.mkdir({str(trap)!r})\nx = None\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    groups = [f"[{group}]\nhostile = hostile:x\n" for group in registry.KINDS.values()]
    taken = "[bench.methods]\nhostile = hostile:x\nzero-shot = hostile:x\n"  # a built-in name
    (info / "entry_points.txt").write_text("\n".join([*groups[1:], taken]))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "BENCH_CACHE": str(tmp_path / "cache")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("run", "--protocol", "mini60-6x10", "--methods", "zero-shot", "--dry-run"),
        ("show", "zero-shot"),
        pytest.param(("doctor", "results"), marks=pytest.mark.thorough),
    ],
)
def test_a_plugin_that_is_not_named_is_not_imported(hostile_plugin, tmp_path, arguments):
    command = [sys.executable, "-m", "bench", *arguments]
    found = subprocess.run(command, env=hostile_plugin, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_a_plugin_that_is_named_is_imported(hostile_plugin, tmp_path):
    command = [sys.executable, "-m", "bench", "show", "hostile"]
    subprocess.run(command, env=hostile_plugin, cwd=tmp_path, capture_output=True)
    os.rmdir(tmp_path / "owned")  # it was


# -- markup -----------------------------------------------------------------------------------------------------

EVIL = '<script>alert(1)<\\script>"\'&<img src=x onerror=alert(2)>'


class _Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture
def hostile_results(tmp_path):
    """Runs whose every free text holds markup."""
    out = tmp_path / "results"
    for protocol in ("toy-3x2", EVIL.replace("/", "")):
        for method in ("zero-shot", EVIL.replace("/", "")):
            accuracies = [[0.5, 0.5], [0.5, 0.5]]
            write_run(out, accuracies, protocol=protocol, method=method, overrides=f"x={EVIL}", backbone=EVIL, limits="train=2")
    return out


@pytest.mark.parametrize("view", ["summary", "tasks", "matrix", "cost"])
def test_html_tables_hold_no_markup_of_the_results(hostile_results, view):
    found = bench("table", hostile_results, "--format", "html", "--view", view)
    assert found.exit_code == 0, found.output
    tags = _Tags(found.output).found
    assert tags and not {"script", "img"} & {tag for tag, _ in tags} and "&lt;script&gt;" in found.output
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]


def test_the_report_holds_no_markup_of_the_results(hostile_results, tmp_path):
    found = bench("report", hostile_results, "-o", tmp_path / "report.html")
    assert found.exit_code == 0, found.output
    tags = _Tags((tmp_path / "report.html").read_text()).found
    assert sum(tag == "script" for tag, _ in tags) == 1 and not any(tag == "img" for tag, _ in tags)
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]


def test_junit_of_the_gate_is_xml_whatever_the_names(hostile_results, tmp_path):
    assert bench("gate", hostile_results, "--baseline", tmp_path / "baseline.csv", "--update").exit_code == 0
    found = bench("gate", hostile_results, "--baseline", tmp_path / "baseline.csv", "--junit", tmp_path / "junit.xml")
    assert found.exit_code in (0, 1), found.output
    assert not list(ElementTree.parse(tmp_path / "junit.xml").iter("script"))


# -- the source -------------------------------------------------------------------------------------------------


def test_the_source_has_no_other_doors():
    """Calls that could execute what they read stand only where the tests above have looked."""
    found = [f"{path.relative_to(ROOT)}:{line}: {what}" for path in SOURCES for line, what in _doors(path)]
    assert found == []


def _doors(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        allowed = {
            "torch.load": given.get("weights_only") == "True",
            "np.load": given.get("allow_pickle") == "False",
            "np.lib.format.read_array": given.get("allow_pickle") == "False",
            "opened.extractall": given.get("filter") == "'data'",
        }
        forbidden = {
            *("pickle.load", "pickle.loads", "joblib.load", "pd.read_pickle"),
            *("yaml.load", "torch.jit.load", "torch.hub.load"),
        }
        if called in allowed and not allowed[called]:
            yield node.lineno, f"{called} without its guard"
        elif called == "exec" and path.name == "written_classes.py":
            continue  # it makes functions of the sources of this package, which importing would execute as well
        elif called in (*forbidden, "eval", "exec", "os.system", "os.popen") or given.get("shell") == "True":
            yield node.lineno, called
        elif called.endswith(".extractall") and called not in allowed:
            yield node.lineno, called
        elif called.endswith("Unpickler") and path.name not in ("safe_pickle.py", "torchscript.py"):
            yield node.lineno, called


def test_restricted_readers_are_the_only_unpicklers():
    bases = {
        (path.relative_to(ROOT).as_posix(), node.name)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Unpickler") for base in node.bases)
    }
    assert bases == {("bench/images/pickles.py", "_DataOnly"), ("bench/clip/torchscript.py", "_Reader")}
