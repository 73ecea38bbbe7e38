"""Which files a method is made of, and what counts as a change of them."""

import sys
import textwrap

import pytest

from bench.system import method_source, registry
from bench.system.method_source import Source, changed_modules, changes_on_disk, of_object


@pytest.fixture
def package(tmp_path, monkeypatch):
    """write(path, text): a module of a package that lies in a folder of its own; gives the target of its method."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))

    def write(name: str, text: str) -> str:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        for above in path.relative_to(place).parents:
            if str(above) != "." and not (place / above / "__init__.py").exists():
                (place / above / "__init__.py").write_text("")
        return f"{name.removesuffix('.py').replace('/', '.')}:Mine"

    return write


def changed(before: Source, target: str) -> list[str]:
    return changes_on_disk(target, before)


METHOD = """
    '''A method.'''
    from bench.learning.method import Method

    class Mine(Method):
        def logits(self, batch, classes):
            return 1.0 * batch
"""


def test_a_changed_line_of_the_method_is_seen_and_named(package):
    target = package("mine_a/method.py", METHOD)
    before = of_object(target)
    assert changed(before, target) == []
    package("mine_a/method.py", METHOD.replace("1.0", "2.0"))
    assert changed(before, target) == ["mine_a.method"]


@pytest.mark.parametrize(
    "text",
    [
        METHOD.replace("'''A method.'''", "'''Another docstring.'''"),
        METHOD.replace("return", "# why\n            return"),
        METHOD.replace("class Mine", "\n\n    class Mine"),
        METHOD.replace("return 1.0 * batch", "return (1.0\n                    * batch)"),
    ],
    ids=["docstring", "comment", "empty lines", "line break"],
)
def test_words_and_layout_are_no_change(package, text):
    target = package("mine_b/method.py", METHOD)
    before = of_object(target)
    package("mine_b/method.py", text)
    assert of_object(target).text != before.text
    assert changed(before, target) == []


def test_another_version_of_python_compares_the_text(package):
    """Its syntax trees are written differently, so that equal ones are not to be expected."""
    target = package("mine_c/method.py", METHOD)
    before = of_object(target)
    before = Source(before.target, before.text, {"mine_c.method": "of another version"}, "3.99")
    assert changed(before, target) == []
    package("mine_c/method.py", METHOD + "# a comment\n")
    assert changed(before, target) == ["mine_c.method"]


@pytest.mark.parametrize(
    "line",
    [
        "from mine_d import helper",
        "from mine_d.helper import weight",
        "import mine_d.helper",
        "from . import helper",
        "from .helper import weight",
        "def later():\n        from mine_d.helper import weight",
        "if True:\n        import mine_d.helper as other",
    ],
)
def test_what_the_method_imports_from_its_package_is_part_of_it(package, line):
    package("mine_d/helper.py", "weight = 1\n")
    target = package("mine_d/method.py", f"    {line}\n{METHOD}")
    before = of_object(target)
    assert "mine_d.helper" in before.text
    package("mine_d/helper.py", "weight = 2\n")
    assert changed(before, target) == ["mine_d.helper"]


def test_the_init_of_its_package_and_what_helpers_import_are_part_of_it(package):
    package("mine_e/deep/low.py", "weight = 1\n")
    package("mine_e/helper.py", "from .deep.low import weight\n")
    target = package("mine_e/method.py", f"    from mine_e import helper\n{METHOD}")
    before = of_object(target)
    assert {"mine_e", "mine_e.helper", "mine_e.deep", "mine_e.deep.low", "mine_e.method"} <= set(before.text)
    package("mine_e/deep/low.py", "weight = 2\n")
    package("mine_e/__init__.py", "import math\n")
    assert changed(before, target) == ["mine_e", "mine_e.deep.low"]


def test_code_that_is_not_installed_is_part_of_it_and_libraries_are_not(package):
    package("beside_f.py", "weight = 1\n")
    target = package("mine_f.py", f"    import json, numpy, beside_f\n    from bench.errors import BenchError\n{METHOD}")
    before = of_object(target)
    assert set(before.text) == {"mine_f", "beside_f"}
    package("beside_f.py", "weight = 2\n")
    assert changed(before, target) == ["beside_f"]


def test_a_method_on_top_of_a_built_in_one_is_made_of_both(package):
    target = package("mine_g.py", f"    from methods.closed_form.simplecil import SimpleCIL\n{METHOD}")
    assert {"mine_g", "methods", "methods.closed_form.simplecil"} <= set(of_object(target).text)


def test_circles_of_imports_and_modules_that_do_not_exist_are_no_trouble(package):
    package("mine_h/one.py", "from mine_h import method, absent\n")
    target = package("mine_h/method.py", f"    from mine_h import one\n    import not_there_at_all\n{METHOD}")
    assert set(of_object(target).text) == {"mine_h", "mine_h.one", "mine_h.method"}


def test_broken_source_and_a_module_that_is_gone(package):
    target = package("mine_i.py", METHOD)
    before = of_object(target)
    package("mine_i.py", "def (:\n")
    assert changed(before, target) == ["mine_i"]
    assert changed(before, "mine_never:Mine") == ["its module is not to be found"]
    assert of_object("mine_never:Mine") is None


def test_line_ends_are_no_change_and_another_object_is_one(package, tmp_path):
    target = package("mine_j.py", METHOD)
    before = of_object(target)
    path = tmp_path / "work" / "mine_j.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert of_object(target).text == before.text
    assert changed_modules(before, of_object("mine_j:Method"))[0] == "another object is registered under the name"


def test_reading_the_source_of_every_method_imports_none_of_them():
    before = set(sys.modules)
    for name in registry.names("method"):
        assert of_object(registry.target("method", name), syntax=False).text
    assert not {name for name in set(sys.modules) - before if name.startswith("methods.")}


def test_every_built_in_method_names_its_own_module_and_its_parts():
    source = of_object(registry.target("method", "clap"))
    assert {"methods.clap.clap", "methods.clap.head", "methods.shared.rehearsal"} <= set(source.text)
    assert set(source.text) == set(source.syntax) and source.python == method_source.PYTHON
    assert Source.from_json(source.to_json()) == source
    assert Source.from_json({"target": 1}) is None and Source.from_json(None) is None


def test_a_module_that_is_imported_by_a_written_name_is_part_of_it(package):
    package("lazy_k.py", "SIGN = 1\n")
    target = package("mine_k.py", f"    import importlib\n    lazy = importlib.import_module('lazy_k')\n{METHOD}")
    before = of_object(target)
    package("lazy_k.py", "SIGN = -1\n")
    assert changed(before, target) == ["lazy_k"]


def test_a_docstring_that_code_reads_is_code(package):
    text = METHOD + "\n    def scale():\n        '1'\n        return float(scale.__doc__)\n"
    target = package("mine_l.py", text)
    before = of_object(target)
    package("mine_l.py", text.replace("'1'", "'-1'"))
    assert changed(before, target) == ["mine_l"]


def test_data_files_beside_a_module_that_asks_where_it_lies_are_part_of_it(package, tmp_path):
    target = package("mine_m/method.py", f"    from pathlib import Path\n    HERE = Path(__file__).parent\n{METHOD}")
    (tmp_path / "work" / "mine_m" / "conf.json").write_text("{}")
    before = of_object(target)
    assert "mine_m.method: conf.json" in before.text
    (tmp_path / "work" / "mine_m" / "conf.json").write_text("[]")
    assert changed(before, target) == ["mine_m.method: conf.json"]


SEARCHED = """
    from bench import Method, setting

    class Settings:
        rate: float = setting(0.1, "a rate")

    class Mine(Method):
        Settings = Settings
"""
SPACE = ('"a rate")', '"a rate", search=Range(0.01, 1.0))'), ("import Method, setting", "import Method, Range, setting")


def edited(text: str, *changes: tuple[str, str]) -> str:
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return text


def test_what_a_search_tries_is_no_part_of_the_source(package):
    target = package("mine_s/method.py", SEARCHED)
    before = of_object(target)
    package("mine_s/method.py", edited(SEARCHED, *SPACE))
    assert changed(before, target) == []
    package("mine_s/method.py", edited(SEARCHED, *SPACE, ("setting(0.1", "setting(0.2")))
    assert changed(before, target) == ["mine_s.method"]


@pytest.mark.parametrize(
    "change",
    [
        ("class Mine", "def setting(default, help, search=None):\n        return search\n\n    class Mine"),  # another function
        ("class Mine", "FACTOR = Range(1, 2).high\n\n    class Mine"),  # it is used for something else
        ("class Mine", "WHERE = 'metadata'\n\n    class Mine"),  # it may be looked at
        ("from bench import", "from mine_t.other import"),  # it is not the harness's
    ],
)
def test_a_search_space_that_code_may_look_at_is_code(package, change):
    package("mine_t/other.py", "from bench import Method, Range, setting\n")
    whole = edited(SEARCHED, *SPACE, change)
    target = package("mine_t/method.py", whole)
    before = of_object(target)
    package("mine_t/method.py", whole.replace("search=Range(0.01, 1.0)", "search=Range(0.02, 1.0)"))
    later = changed(before, target)
    package("mine_t/method.py", whole.replace(", search=Range(0.01, 1.0)", "").replace("Range, setting", "setting"))
    assert "mine_t.method" in later + changed(before, target)
