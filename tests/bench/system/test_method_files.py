"""Methods that no package brings: in a file of the user's, or classes of this process."""

import json
import sys
import textwrap

import pytest

from bench import Method
from bench.errors import BenchError
from bench.learning.stated import is_built_in
from bench.runs.questions import OfMethod, OfSettings
from bench.system import method_classes, registry
from bench.system.method_files import MethodFile

METHOD = '''\
"""A file of somebody's."""

from bench import Method
from beside_it import SCALE


class MyMethod(Method):
    """Scores nothing."""

    def logits(self, batch, classes):
        return SCALE * batch[:, : len(classes)]
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(text, name="my_method.py"): a file in a folder that is not on the import path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_it.py").write_text("SCALE = 1.0\n")

    def make(text: str = METHOD, name: str = "my_method.py") -> str:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return str(tmp_path / name)

    yield make
    sys.modules.pop("beside_it", None)


def test_a_class_in_a_file_is_a_method(write, monkeypatch, tmp_path):
    path = write()
    monkeypatch.chdir(tmp_path)
    for given in (f"{path}:MyMethod", "my_method.py:MyMethod", "./my_method.py:MyMethod"):
        assert registry.knows("method", given) and registry.name_of(given) == "my-method"
        assert registry.from_anywhere(given) == f"{path}:MyMethod"
        assert registry.load("method", given).__doc__ == "Scores nothing."
    assert "my-method" not in registry.names("method") and not is_built_in(registry.load("method", given))


def test_its_source_is_that_of_the_file_and_of_what_lies_beside_it(write, tmp_path):
    given = f"{write()}:MyMethod"
    registry.load("method", given)
    source = registry.source_of_method(given)
    assert source.target == "my_method.py:MyMethod" and set(source.text) == {"my_method.py", "beside_it"}
    assert str(tmp_path) not in json.dumps(source.to_json())
    assert registry.changes_since(given, source) == []
    write(METHOD + "# a comment\n")
    assert registry.changes_since(given, source) == []
    write(METHOD.replace("SCALE *", "2 * SCALE *"))
    assert registry.changes_since(given, source) == ["my_method.py"]
    (tmp_path / "beside_it.py").write_text("SCALE = 20.0\n")
    assert registry.changes_since(given, source) == ["beside_it", "my_method.py"]


def test_an_edited_file_is_run_again(write):
    given = f"{write()}:MyMethod"
    first = registry.load("method", given)
    assert registry.load("method", given) is first
    write(METHOD.replace("Scores nothing.", "Scores nothing, either."))
    assert registry.load("method", given).__doc__ == "Scores nothing, either."


def test_what_was_edited_beside_a_file_is_imported_again(write, tmp_path):
    given = f"{write()}:MyMethod"
    assert registry.load("method", given).logits.__globals__["SCALE"] == 1
    (tmp_path / "beside_it.py").write_text("SCALE = 2.25\n")
    assert registry.load("method", given).logits.__globals__["SCALE"] == 2.25
    assert registry.changes_since(given, registry.source_of_method(given)) == []


def test_the_class_may_give_itself_a_name(write):
    named = METHOD.replace("    def logits", '    name = "other"\n\n    def logits')
    assert registry.name_of(f"{write(named)}:MyMethod") == "other"


@pytest.mark.parametrize(
    ("text", "attribute", "complaint"),
    [
        (METHOD, "MyMethd", "unknown class 'MyMethd'; did you mean MyMethod"),
        (METHOD, "", "write FILE.py:CLASS, so that the class is named; it defines MyMethod"),
        ("class A(:\n    pass", "A", "my_method.py, line 1: SyntaxError"),
        ("import os\n\nimport not_there\nclass A: pass", "A", "my_method.py, line 3: ModuleNotFoundError: No module"),
        ("class A: pass\nimport beside_it\nbeside_it.f()", "A", "my_method.py, line 3: AttributeError"),
        ("class A: pass\nraise SystemExit('done')", "A", "my_method.py, line 2: SystemExit: done"),
        ("class A: pass", "A", "no class of that name that extends bench.Method"),
        ("from bench import Method\nclass ZeroShot(Method): pass", "ZeroShot", "a method 'zero-shot' is registered already"),
        ("class A:\n    name = 'A B'", "A", "'A B' cannot be the name of a method"),
        ("class All: pass", "All", "'all' cannot be the name of a method"),
        ("class A:\n    name = 'a' + 'b'", "A", "line 2: name = "),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(write, text, attribute, complaint):
    given = f"{write(text)}:{attribute}" if attribute else write(text)
    with pytest.raises(BenchError, match=complaint) as refused:
        registry.name_of(given)
        registry.load("method", given)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(BenchError, match="nowhere.py: no file that can be read"):
        registry.name_of(f"{tmp_path}/nowhere.py:A")


def test_two_methods_of_one_name_are_not_run_together(write):
    one, other = f"{write()}:MyMethod", f"{write(name='other.py')}:MyMethod"
    registry.refuse_one_name_twice([one, one, "zero-shot"])
    with pytest.raises(BenchError, match="are both called 'my-method'"):
        registry.refuse_one_name_twice([one, other])


def test_no_answer_about_a_file_is_kept(write):
    given = f"{write()}:MyMethod"
    for question in (OfMethod(given), OfSettings(given, "mini60-6x10", ())):
        assert not question.lasts(question.answer())


def test_a_class_of_this_process_is_a_method_here_alone():
    class Novel(Method):
        """Of a notebook."""

    given = method_classes.given(Novel)
    assert registry.load("method", given) is Novel and registry.name_of(given) == "novel"
    source = registry.source_of_method(given)
    Novel.scale = 2.0
    assert registry.changes_since(given, source) == []  # a class of a test's module is known by the file
    with pytest.raises(BenchError, match=r"is a class of another process; put it into a file and name it as FILE.py:Gone"):
        registry.load("method", "<__main__.Gone>")
    with pytest.raises(BenchError, match="classes that extend bench.Method are wanted"):
        method_classes.given(MethodFile)


@pytest.mark.thorough
def test_runs_of_a_file_go_through_workers_and_are_found_again(write, bench, tmp_path):
    cosines = "batch @ self.backbone.classifier(self.scenario.prompts_of(classes)).T"
    text = METHOD.replace("batch[:, : len(classes)]", cosines)
    write(text.replace("    def logits", "    def learn(self, task):\n        pass\n\n    def logits"))
    line = ["run", "--protocol", "mini-letters-2x10", "--limit-train", "1", "--limit-test", "1", "--out", "results"]
    line += ["--methods", "./my_method.py:MyMethod", "--jobs", "2"]
    first = bench(*line)
    assert first.returncode == 0, first.stderr
    [one] = (tmp_path / "results/mini-letters-2x10/my-method").iterdir()
    for file in (one / "manifest.json", one / "records.csv"):
        assert str(tmp_path) not in file.read_text()
    assert json.loads((one / "manifest.json").read_text())["source"]["target"] == "my_method.py:MyMethod"
    (tmp_path / "beside_it.py").write_text("SCALE = 3.0\n")
    again = bench(*line, "--dry-run")
    assert "finished, by other code" in again.stdout and "(beside_it)" in again.stdout
