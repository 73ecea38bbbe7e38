"""Which test reads which file of a set of vectors."""

import ast
import functools
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Reader:
    """A test with the mark `vectors(method, *patterns, methods=...)`."""

    module: str
    name: str
    method: str
    patterns: tuple[str, ...]
    compared: tuple[str, ...]  # the methods that it compares, as they are registered

    def function(self) -> Callable:
        return getattr(importlib.import_module(f"tests.conformance.{self.module}"), self.name)

    def reads(self, method: str, file: str) -> bool:
        return method == self.method and any(fnmatchcase(file, pattern) for pattern in self.patterns)


def compared_methods(method: str, *patterns: str, methods: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """The registered methods that a test with these words in its mark compares: the one that the directory is called by."""
    return (method,) if methods is None else methods


@functools.cache
def every_reader() -> Sequence[Reader]:
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.vectors":
                    method, *patterns = map(ast.literal_eval, mark.args)
                    named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in mark.keywords}
                    compared = compared_methods(method, **named)
                    found.append(Reader(path.stem, node.name, method, tuple(patterns) or ("*",), compared))
    return found


def readers(method: str, file: str) -> list[Reader]:
    """The tests that read this file of a method's vectors."""
    return [reader for reader in every_reader() if reader.reads(method, file)]


def indices(folder: Path) -> list[Path]:
    """The params.json of every method in a set."""
    return sorted(folder.glob("*/params.json"))


def files_of(index: Path) -> dict[str, dict]:
    """The files that a params.json lists, with what it says of each."""
    return json.loads(index.read_text())["files"]
