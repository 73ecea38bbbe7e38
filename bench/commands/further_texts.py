"""The texts on which a method's own text rests, so that its page is complete: of the classes that it extends, of the methods
whose page it names (`bench show NAME`), and of the files with equations that it names (methods/clap/head.py).

Nothing is imported: docstrings are read from the sources.
"""

import ast
import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from bench.learning.stated import is_built_in
from bench.system import registry
from bench.system.written_classes import Unreadable, written_class

PACKAGES = Path(__file__).parents[2]  # the folder that bench/ and methods/ are installed in
NAMED_METHOD = re.compile(r"`bench show ([\w.-]+)`")
NAMED_FILE = re.compile(r"\b[\w/]+\.py\b")
FEW_LINES = 4  # of a file's docstring, which then says no more than what the file is for


def further_texts(method: Any) -> list[tuple[str, str]]:
    """(where it is from, text) of each, the nearest class first."""
    classes = [method, *_extended(method)]
    found = [(f"{_called(base)}, which it extends", _text(base)) for base in classes[1:] if _text(base)]
    if not is_built_in(method):
        return found
    known = {_called(one) for one in classes} | {_called_file(_file_of(one.__module__)) for one in classes}
    waiting = [(_text(one), _file_of(one.__module__)) for one in classes]
    for text, written_in in waiting:  # grows while it is gone through
        for source, named, file in _named_in(text, written_in):
            if source not in known:
                known.add(source)
                found.append((f"{source}, which is named above", named))
                waiting.append((named, file))
    return found


def _extended(method: Any) -> list[Any]:
    """The methods and their common parts that it extends; of a plug-in those of its own, for others explain themselves."""
    bases = [base for base in method.__mro__[1:] if _is_method(base) and base.__module__ != "bench.learning.method"]
    return [base for base in bases if is_built_in(base) == is_built_in(method)]


def _is_method(kind: Any) -> bool:
    return any((base.__module__, base.__qualname__) == ("bench.learning.method", "Method") for base in kind.__mro__)


def _named_in(text: str, written_in: Path) -> Iterator[tuple[str, str, Path]]:
    """(where it is from, text, file) of the methods and files that a text names."""
    for name in NAMED_METHOD.findall(text):
        module, _, attribute = registry.target("method", name).partition(":")
        try:
            other = written_class(module, attribute)
        except Unreadable:
            continue
        yield _called(other), _text(other), _file_of(module)
    for name in NAMED_FILE.findall(text):
        places = (PACKAGES / name, PACKAGES / "methods" / name, written_in.parent / name)
        file = next((place for place in places if place.is_file() and place.is_relative_to(PACKAGES / "methods")), None)
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file else None
        if file and said and len(said.splitlines()) > FEW_LINES:
            yield _called_file(file), said, file


def _called(kind: Any) -> str:
    """A class as a reader can find it: by the method's name, if it is one, and its file."""
    target = f"{kind.__module__}:{kind.__qualname__}"
    name = next((name for name in registry.names("method") if registry.target("method", name) == target), kind.__qualname__)
    return f"{name} ({_called_file(_file_of(kind.__module__))})" if is_built_in(kind) else name


def _called_file(file: Path) -> str:
    return file.relative_to(PACKAGES).as_posix() if file.is_relative_to(PACKAGES) else str(file)


def _file_of(module: str) -> Path:
    return PACKAGES.joinpath(*module.split(".")).with_suffix(".py")


def _text(kind: Any) -> str:
    """Its own docstring, not an inherited one."""
    return cleandoc(vars(kind).get("__doc__") or "")
