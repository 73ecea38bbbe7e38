"""A method in a file of the user's, without a package: `./my_method.py:MyMethod`.

Its name in results is what the class says (`name = "..."` in its body), else made from the class's own: MyMethod is my-method.
That is read from the source, so a plan waits for no import. The file is run when the class is needed, and again when its source
was edited; whatever it raises becomes one line with file, line and error. What lies beside it can be imported, as by a script.
The file's folder is therefore added to the import path, at its end, where it hides nothing.
"""

import ast
import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import BenchError, one_line, unknown_name
from bench.system import method_source
from bench.system.method_source import Source

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")  # of a plug-in
RESERVED = ("all",)  # `--methods all`
FORM = re.compile(r"(?P<path>.+\.py)(:(?P<class>[^:/\\]*))?")
METHOD = ("bench.learning.method", "Method")

_MODULES: dict[Path, tuple[Mapping[str, str], ModuleType]] = {}  # file -> digests of its source when it was run, the module


@dataclass(frozen=True)
class MethodFile:
    """A class in a file."""

    path: Path
    attribute: str

    def __str__(self) -> str:
        """As it is found from every working folder."""
        return f"{self.path}:{self.attribute}"

    @property
    def name(self) -> str:
        """In results and in `--set NAME.FIELD=VALUE`; BenchError for a file that does not define the class."""
        return sound_name(declared(_parsed(self.path), self), str(self))

    def load(self) -> Any:
        """The class."""
        found = getattr(self._module(), self.attribute, None)
        if not (isinstance(found, type) and any((base.__module__, base.__name__) == METHOD for base in found.__mro__)):
            raise BenchError(f"{self}: there is no class of that name that extends bench.Method")
        return found

    def source(self, syntax: bool = True) -> Source | None:
        """As it lies on disk now; None where it does not."""
        self._beside_on_path()
        return method_source.of_file(self.path, self.attribute, syntax)

    def _module(self) -> ModuleType:
        source = self.source(syntax=False)
        if source is None:
            raise BenchError(f"{self.path}: no file that can be read")
        known = _MODULES.get(self.path)
        if known and known[0] == source.text:
            return known[1]
        for beside in source.text if known else ():  # what was edited beside it is imported again, too
            if known and known[0].get(beside) != source.text[beside] and self._is_beside(beside):
                del sys.modules[beside]
        # a name that no other module has: "methods.py" would count as one of the methods that ship here
        name = f"method_file_{hashlib.sha256(str(self.path).encode()).hexdigest()[:8]}_{self.path.stem}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        assert spec and spec.loader  # of a file that ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and type hints look their module up
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # somebody's file may raise anything, or end like a script
            del sys.modules[name]
            raise BenchError(f"{_place(error, self.path)}: {type(error).__name__}: {one_line(error)}") from error
        _MODULES[self.path] = (source.text, module)
        return module

    def _is_beside(self, module: str) -> bool:
        path = getattr(sys.modules.get(module), "__file__", None)
        return path is not None and Path(path).is_relative_to(self.path.parent)

    def _beside_on_path(self) -> None:
        if str(self.path.parent) not in sys.path:
            sys.path.append(str(self.path.parent))


def find(name: str) -> MethodFile | None:
    """What a text of this form names, with an absolute path; None for any other name."""
    parts = FORM.fullmatch(name)
    if parts is None:
        return None
    path = Path(parts["path"]).expanduser().absolute()
    if not parts["class"]:
        classes = [node.name for node in _parsed(path).body if isinstance(node, ast.ClassDef)]
        there = f"; it defines {', '.join(classes)}" if classes else ""
        raise BenchError(f"{name}: write FILE.py:CLASS, so that the class is named{there}")
    return MethodFile(path, parts["class"])


def is_file(name: str) -> bool:
    """Has a name the form of a file, whether that exists or not?"""
    return FORM.fullmatch(name) is not None


def declared(tree: ast.Module, of: MethodFile) -> str:
    """The name that a class gives itself, or that is made from its own."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if of.attribute not in classes:
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, "names", ())
                  if isinstance(alias, ast.alias)}  # fmt: skip
        if of.attribute not in bound:
            raise BenchError(f"{of.path}: {unknown_name('class', of.attribute, classes)}")
        return from_class(of.attribute)
    for node in classes[of.attribute].body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == "name" for target in targets):
            value = getattr(node, "value", None)
            if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
                raise BenchError(f"{of.path}, line {node.lineno}: name = \"...\" is wanted, a text in quotes")
            return value.value
    return from_class(of.attribute)


def from_class(name: str) -> str:
    """
    >>> from_class("MyMethod"), from_class("L2PPlus"), from_class("nearest_mean")
    ('my-method', 'l2p-plus', 'nearest-mean')
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "-", name)
    return re.sub(r"[-_]+", "-", words).strip("-").lower()


def sound_name(name: str, where: str) -> str:
    """The name, if results can have it: it is that of a folder, and goes before the dot in METHOD.FIELD."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise BenchError(
            f"{where}: {name!r} cannot be the name of a method; give the class one of small letters, digits and hyphens, as in "
            'name = "nearest-mean"'
        )
    return name


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: no file that can be read ({one_line(error)})") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        raise BenchError(f"{_place(error, path)}: {type(error).__name__}: {one_line(error)}") from error


def _place(error: BaseException, path: Path) -> str:
    """File and line of an error: the last line of the file that was at work, or where its text is no Python."""
    if isinstance(error, SyntaxError) and error.lineno and error.filename in (str(path), "<unknown>", None):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)
