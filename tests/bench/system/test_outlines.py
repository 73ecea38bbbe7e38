"""What is listed of an object is read from the beginning of its statement, and is what the whole file says."""

from importlib.util import find_spec

import pytest

from bench.system import outlines, registry


def of_object(tmp_path, source: str, name: str, whole: bool = False) -> tuple[str, str]:
    path = tmp_path / "some.py"
    path.write_text(source)
    outlines._text.cache_clear()
    outlines._parse.cache_clear()
    return outlines.of_object(str(path), name, "some", whole)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_of_every_built_in_the_beginning_says_what_the_whole_file_says(kind):
    for name in registry.names(kind):
        module, _, attribute = registry.target(kind, name).partition(":")
        path = find_spec(module).origin
        whole = outlines.of_object(path, attribute, module, whole=True)
        assert whole[1] == "", name
        assert outlines._in_statements(outlines._beginning(outlines._text(path), attribute), attribute) == whole[0], name


@pytest.mark.parametrize(
    ("source", "summary"),
    [
        ('class A:\n    """A line.\n\n    More."""\n\n    def f(self): ...\n', "A line."),
        ('@decorated\nclass A(B):\n    """A line."""\n', "A line."),
        ('class A:\n    """A line.\n\n    def f: an example\n    """\n', "A line."),
        ('class A:\n    """A line.\n\nat the margin\n    """\n', "A line."),
        ('A = made(\n    summary="A line",\n)\nB = 2\n', "A line"),
        ('A: Kind = changed(made(summary="A line"), 2)\n', "A line"),
        ('def A():\n    """A line."""\n    return [\n]\n', "A line."),
        ("from elsewhere import B as A\n", ""),
        ("class Amber: ...\nclass A: ...\n", ""),
    ],
)
def test_every_way_to_define_an_object_is_read(tmp_path, source, summary):
    for whole in (False, True):
        assert of_object(tmp_path, source, "A", whole) == (summary, "")


def test_what_a_file_does_not_define_is_said(tmp_path):
    assert of_object(tmp_path, "B = 1\n", "A") == ("", "module 'some' does not define 'A'")


def test_a_mistake_far_below_is_seen_where_the_whole_file_counts(tmp_path):
    source = 'class A:\n    """A line."""\n\n    def f(self): ...\n\nclass B(:\n'
    assert of_object(tmp_path, source, "A") == ("A line.", "")
    with pytest.raises(SyntaxError):
        of_object(tmp_path, source, "A", whole=True)


def test_a_file_that_is_not_python_source_says_nothing():
    assert outlines.of_object("some.so", "A", "some", whole=True) == ("", "")
