"""A method as a class of this process, which a notebook has defined: nothing but this process can find it.

In the place of a name goes a text that no name looks like, "<__main__.MyMethod>". A class of a notebook's cell is known by the
text of its functions, as far as Python still has it; one of a module by the module's file and what that imports.
"""

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.system import method_source
from bench.system.method_files import METHOD, from_class, sound_name
from bench.system.method_source import PYTHON, Source

_CLASSES: dict[str, "MethodClass"] = {}


@dataclass(frozen=True)
class MethodClass:
    """A class that extends bench.Method."""

    kind: type

    def __str__(self) -> str:
        return f"<{self.kind.__module__}.{self.kind.__qualname__}>"

    @property
    def name(self) -> str:
        stated = vars(self.kind).get("name")
        return sound_name(stated if isinstance(stated, str) and stated else from_class(self.kind.__name__), str(self))

    @property
    def file(self) -> Path | None:
        """Where other processes find it by itself: not in a notebook's cell, nor in the script at work."""
        if self.kind.__module__ == "__main__" or self.kind.__qualname__ != self.kind.__name__:
            return None
        path = getattr(sys.modules.get(self.kind.__module__), "__file__", None)
        return Path(path).absolute() if path and path.endswith(".py") else None

    def load(self) -> type:
        return self.kind

    def source(self, syntax: bool = True) -> Source | None:
        """Of a module: its file as it lies on disk now; else the text of the class, None if Python has not kept that."""
        if "." in self.kind.__module__:
            return method_source.of_object(f"{self.kind.__module__}:{self.kind.__qualname__}", syntax)
        if self.file:
            return method_source.of_file(self.file, self.kind.__name__, syntax)
        text = "\n".join(_written(self.kind))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return Source(self.kind.__name__, {self.kind.__name__: digest}, {}, PYTHON) if "def " in text else None


def given(kind: Any, elsewhere: bool = False) -> str:
    """The text that stands for a class from now on; BenchError for anything but a method. elsewhere: for other processes too."""
    if not (isinstance(kind, type) and any((base.__module__, base.__name__) == METHOD for base in kind.__mro__)):
        raise BenchError(f"methods: names, FILE.py:CLASS or classes that extend bench.Method are wanted, not {kind!r}")
    own = MethodClass(kind)
    if elsewhere and own.file is None:
        raise BenchError(f"{own} is a class of this process, which other processes cannot find; put it into a file of its own")
    if elsewhere:
        return f"{own.file}:{kind.__name__}"
    _CLASSES[str(own)] = own
    return str(own)


def find(text: str) -> MethodClass | None:
    """The class that a text stands for, in the process in which it was given."""
    if not (text.startswith("<") and text.endswith(">")):
        return None
    if text not in _CLASSES:
        name = text[1:-1].rpartition(".")[2]
        raise BenchError(f"{text} is a class of another process; put it into a file and name it as FILE.py:{name}")
    return _CLASSES[text]


def _written(kind: type) -> Iterator[str]:
    """The text of every function of a class and of those that it extends in the same place, and their plain values; of a class in
    a notebook's cell Python itself cannot be asked for the whole."""
    for base in kind.__mro__:
        for name, value in vars(base).items() if base.__module__ == kind.__module__ else ():
            if not name.startswith("__") and isinstance(value, bool | int | float | str | tuple):
                yield f"{name} = {value!r}"
            function = getattr(value, "fget", getattr(value, "__func__", value))
            if inspect.isfunction(function):
                with contextlib.suppress(OSError, TypeError):
                    yield inspect.getsource(function)
