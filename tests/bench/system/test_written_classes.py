"""A class read from its source says what the imported one would, or is not read."""

import dataclasses
import sys

import pytest

from bench.learning.settings import search_space
from bench.system import written_classes
from bench.system.written_classes import Unreadable, WrittenFunction, written_class

HEAD = """
import torch
from dataclasses import dataclass
from bench.learning.method import Method, setting
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    """read(source, name): the class of that name in a module with this source, which is never imported."""

    def make(source: str, name: str = "Some") -> type:
        (tmp_path / "methods_of_a_test.py").write_text(HEAD + source)
        monkeypatch.syspath_prepend(str(tmp_path))
        written_classes._module.cache_clear()
        return written_class("methods_of_a_test", name)

    yield make
    assert "methods_of_a_test" not in sys.modules
    written_classes._module.cache_clear()


def test_values_bases_docstring_and_functions(read):
    found = read(
        """
LOW, HIGH = 1, 2.5
SHARED = {"rate": LOW}

class Base(Method):
    recipes = {"mini*": SHARED}
    inputs = "pixels"

class Some(Base):
    '''A line.'''
    recipes = {pattern: {**recipe, "steps": LOW * 10, "seq": tuple(range(3))} for pattern, recipe in Base.recipes.items()}
    paper = "folk" "lore"
    trains = -HIGH
    zero_shot: bool = False

    @property
    def other_towers(self):
        return ("clip",)
"""
    )
    assert found.__doc__ == "A line." and found.__module__ == "methods_of_a_test"
    assert [base.__name__ for base in found.__mro__] == ["Some", "Base", "Method", "object"]
    assert found.__mro__[2].__module__ == "bench.learning.method"
    assert found.recipes == {"mini*": {"rate": 1, "steps": 10, "seq": (0, 1, 2)}}
    assert (found.paper, found.trains, found.zero_shot, found.inputs) == ("folklore", -2.5, False, "pixels")
    assert found.__new__(found).other_towers == ("clip",)
    assert isinstance(found.learn, WrittenFunction)


def test_fields_are_those_of_the_dataclass(read):
    found = read(
        """
@dataclass(frozen=True)
class Earlier:
    rate: float = setting(0.1, "of SGD", "a paper")

@dataclass(frozen=True)
class Settings(Earlier):
    steps: int = setting(7, "how many")
    rate: float = 0.2

class Some(Method):
    Settings = Settings
"""
    )
    rate, steps = dataclasses.fields(found.Settings)
    assert (rate.name, rate.default, dict(rate.metadata)) == ("rate", 0.2, {})
    assert (steps.default, steps.metadata["help"], steps.metadata["source"]) == (7, "how many", "")


@pytest.mark.parametrize(
    "source",
    [
        "class Some(Method):\n    paper = open('paper.txt').read()\n",
        "class Some(Method):\n    paper = str(torch.zeros(1))\n",
        "class Some(Method):\n    inputs = Method.learn\n",
        "class Some(Method):\n    names = {'a', 'b'}\n",  # printed in an order of its own
        "class Some(Method):\n    if torch.cuda.is_available():\n        paper = ''\n",
        "class Some(Method, metaclass=type):\n    pass\n",
        "class Some(torch.nn.Linear):\n    pass\n",
        "class Some(Method):\n    def __init_subclass__(cls): ...\n",
        "@registered\nclass Some(Method):\n    pass\n",
        "@dataclass\nclass Some:\n    pass\n",
        "class Some(Method):\n    pass\n\nSome.paper = 'changed below'\n",
        "class Some(Method):\n    pass\n\nfor name in ('paper', 'trains'):\n    setattr(Some, name, name)\n",
        "class Some(Method):\n    pass\n\nclass Some(Method):\n    pass\n",
        "try:\n    import clip\nexcept ImportError:\n    clip = None\n\nclass Some(Method):\n    pass\n",
        "def made():\n    import clip\n    return clip\n\nclass Some(Method):\n    paper = made()\n",
        "def made():\n    return torch.zeros(1)\n\nclass Some(Method):\n    paper = made()\n",
        "import os\n\nclass Some(Method):\n    paper = os.getcwd()\n",
        "Some = 3\n",
        "Other = Method\n",
        "def Some(): ...\n",
        "from somewhere import Some\n",
    ],
)
def test_what_could_mean_something_else_is_not_read(read, source):
    with pytest.raises(Unreadable):
        read(source)


def test_a_module_without_source_is_not_read():
    with pytest.raises(Unreadable, match="no source"):
        written_class("math", "sqrt")


def test_a_property_answers_from_what_it_is_given_and_from_the_class_below(read):
    found = read(
        """
class Base(Method):
    @property
    def needs(self) -> tuple[str, ...]:
        settings = self.settings
        return ("pooled",) if settings["feature"] == "pooled" else ("features",)

class Some(Base):
    @property
    def needs(self) -> tuple[str, ...]:
        return ("towers",) if self.settings["adapter"] else super().needs

    @property
    def other_towers(self):
        return torch.zeros(3)
"""
    )
    asked = found.__new__(found)
    for adapter, feature, needs in [(True, "pooled", "towers"), (False, "pooled", "pooled"), (False, "projected", "features")]:
        asked.settings = {"adapter": adapter, "feature": feature}
        assert asked.needs == (needs,)
    assert isinstance(found.other_towers, WrittenFunction)


def test_functions_files_beside_the_module_and_fields_are_read(read, tmp_path):
    found = read(
        """
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

CONCEPTS = str(Path(__file__).parent / "concepts.json")

@dataclass(frozen=True)
class SomeSettings:
    rate: float = setting(0.1, "a rate")

SHARED = {field.name for field in fields(SomeSettings)}

def recipes_with(more: Mapping[str, int]) -> dict[str, dict[str, int]]:
    recipes = {"mini*": {"steps": 1}}
    for pattern in ("cifar*", "mini*"):
        if pattern.startswith("cifar"):
            recipes[pattern] = {**more, "shared": len(SHARED)}
    return recipes

class Some(Method):
    recipes = recipes_with(more={"steps": 9})
    paper = CONCEPTS
    trains = "rate" if "rate" in SHARED else "nothing"
"""
    )
    assert found.recipes == {"mini*": {"steps": 1}, "cifar*": {"steps": 9, "shared": 1}}
    assert (found.paper, found.trains) == (str(tmp_path / "concepts.json"), "rate")


def test_search_spaces_are_read_too(read):
    source = """
from bench import Choices, Range

@dataclass(frozen=True)
class Some:
    rate: float = setting(0.1, "a rate", search=Range(1e-3, 1.0, log=True))
    kind: str = setting("a", "a kind", search=Choices("a", "b"))
"""
    assert {name: str(one) for name, one in search_space(read(source)).items()} == {
        "rate": "0.001 to 1.0, logarithmic", "kind": "a, b",
    }  # fmt: skip
