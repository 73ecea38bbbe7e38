"""A method says twice what its settings are: to the harness (`Settings`) and to type checkers (`settings: ...`)."""

import inspect
from importlib.metadata import entry_points

import pytest

from bench.learning.method import Method

BUILT_IN = sorted(entry.name for entry in entry_points(group="bench.methods") if entry.value.startswith("methods."))


def said_to_type_checkers(method: type[Method]) -> type | None:
    """The nearest annotation of `settings`, the class's own or an inherited one; None: they may be anything."""
    for cls in method.__mro__:
        own = inspect.get_annotations(cls)
        if "settings" in own:
            return own["settings"]
    return None


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_type_checkers_are_told_is_there(name):
    (entry,) = entry_points(group="bench.methods", name=name)
    method = entry.load()
    said = said_to_type_checkers(method)
    assert said is None or issubclass(method.Settings, said)
