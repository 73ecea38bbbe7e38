"""Plug-ins: found by name, listed without import, reported when broken."""

import subprocess
import sys
import textwrap

import pytest

from bench.errors import BenchError
from bench.system import outlines, registry


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """plugin(entry_points, **modules): a distribution as pip would install it, on the import path."""

    def make(entry_points: str, **modules: str):
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        info = tmp_path / "somebodys_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-plugin\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        monkeypatch.syspath_prepend(str(tmp_path))
        for cached in (registry._points, outlines._text, outlines._parse):
            cached.cache_clear()

    yield make
    sys.modules.pop("novel", None)
    monkeypatch.undo()
    registry._points.cache_clear()


def find(kind: str, name: str) -> registry.Entry:
    return next(entry for entry in registry.entries(kind) if entry.name == name)


def test_a_plugin_is_listed_with_its_package_and_first_docstring_line(plugin):
    plugin("[bench.methods]\nnovel = novel:Novel\n", novel='class Novel:\n    """A novel method."""\n')
    assert find("method", "novel") == registry.Entry("novel", "somebodys-plugin", "novel:Novel", "A novel method.", "")
    assert registry.load("method", "novel").__name__ == "Novel"


@pytest.mark.parametrize(
    ("modules", "reason"),
    [
        ({}, "no module named 'novel'"),
        ({"novel": "class Other: pass"}, "does not define 'Novel'"),
        ({"novel": "class Novel(:"}, "SyntaxError"),
    ],
)
def test_what_is_visibly_broken_is_listed_as_such(plugin, modules, reason):
    plugin("[bench.methods]\nnovel = novel:Novel\n", **modules)
    assert reason in find("method", "novel").broken
    assert find("method", "zero-shot").broken == ""


def test_a_plugin_that_fails_at_import_is_named_and_the_others_load(plugin):
    plugin("[bench.methods]\nnovel = novel:Novel\n", novel="raise RuntimeError('no licence')\nclass Novel: pass")
    with pytest.raises(BenchError, match="'novel' of package somebodys-plugin is broken: RuntimeError: no licence"):
        registry.load("method", "novel")
    loaded, broken = registry.load_all("method")
    assert "zero-shot" in loaded and "novel" not in loaded
    assert len(broken) == 1


def test_a_builtin_name_cannot_be_taken_over(plugin):
    plugin("[bench.methods]\nzero-shot = novel:Novel\n", novel="class Novel: pass")
    assert registry.load("method", "zero-shot").__name__ == "ZeroShot"


def test_unknown_names_come_with_close_ones():
    with pytest.raises(BenchError, match=r"unknown method 'zeroshot'; did you mean zero-shot\?"):
        registry.load("method", "zeroshot")


def test_listing_imports_no_torch():
    code = "import sys; from bench.system import registry; registry.entries('method'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
