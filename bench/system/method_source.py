"""The source of a method: which files it is made of, and digests that tell whether it has changed since a run was made.

A method's files are its own module and whatever that imports, at any depth, from the same package, from the methods that
ship here, and from code that is not installed but lies where its author works on it. bench itself and installed libraries are
known by their versions. A module that asks where it lies (__file__, importlib.resources) may read the data files beside it, which
then count too. Sources are read and never run, so a plan needs no torch. What a module finds by a name that it computes is not
seen.
"""

import ast
import functools
import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BUILT_IN_METHODS = "methods"
READS_DOCSTRINGS = (b"__doc__", b"getdoc")  # code for which a docstring is more than words
SOURCES = (".py", ".pyc", ".pyi", ".cfg", ".toml", ".md", ".rst")  # and what says something about sources
LARGEST_DATA = 64 << 20  # bytes; a larger file is not read for a plan
KNOWN_BY_VERSION = ("bench", "protocols")
PYTHON = ".".join(platform.python_version_tuple()[:2])


@dataclass(frozen=True)
class Source:
    """A method's source: the object that is registered, and two digests of every module that it is made of.

    `text` are those of the files, `syntax` those of what Python reads in them: without comments, docstrings and layout. A
    syntax tree is written differently by other versions of Python, so `syntax` is compared only where `python` is equal.
    """

    target: str  # module:object
    text: Mapping[str, str]  # module -> 16 hex digits
    syntax: Mapping[str, str]  # empty where nobody has asked for it
    python: str  # version, for instance 3.11

    def to_json(self) -> dict[str, Any]:
        return {"target": self.target, "text": dict(self.text), "syntax": dict(self.syntax), "python": self.python}

    @classmethod
    def from_json(cls, facts: Any) -> "Source | None":
        """What `to_json` gave; None for what a manifest without it, or a damaged one, holds."""
        if not isinstance(facts, dict):
            return None
        target, text, syntax, python = (facts.get(key) for key in ("target", "text", "syntax", "python"))
        if not (isinstance(target, str) and isinstance(text, dict) and isinstance(syntax, dict) and isinstance(python, str)):
            return None
        return cls(target, text, syntax, python)


def changed_modules(since: Source, now: Source) -> list[str]:
    """Where a source differs from what it was, in more than comments, docstrings and layout."""
    found = ["another object is registered under the name"] if now.target != since.target else []
    readable = now.python == since.python
    for module in sorted(set(now.text) | set(since.text)):
        if now.text.get(module) != since.text.get(module):
            syntax = now.syntax.get(module) if readable else None
            if not syntax or syntax != since.syntax.get(module):
                found.append(module)
    return found


def changes_on_disk(target: str, since: Source) -> list[str]:
    """The same for the source of module:object as it lies on disk now."""
    now = of_object(target, syntax=False)
    if now is None:
        return ["its module is not to be found"]
    if now.target == since.target and now.text == since.text:
        return []
    return changed_modules(since, of_object(target) or now)


def of_object(target: str, syntax: bool = True) -> Source | None:
    """The source of module:object; syntax=False: only the digests of the files, which take less time."""
    module = target.partition(":")[0].strip()
    if _file(module) is None:
        return None
    files = dict(sorted(_modules(module)))
    text = {name: _digest(_text(path)) for name, path in files.items()}
    for name, path in files.items():
        text |= {f"{name}: {beside.name}": _digest(beside.read_bytes()) for beside in _data_files(path)}
    trees = {name: digest for name, path in files.items() if (digest := _syntax_digest(path))} if syntax else {}
    return Source(target, text, trees, PYTHON)


def _modules(start: str) -> Iterator[tuple[str, Path]]:
    """(name, file) of the module and of all modules that it is made of."""
    waiting, known = [start], set()
    own = start.partition(".")[0]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        path = _file(name)
        if path is None or not _belongs(name, path, own):
            continue
        yield name, path
        parent = name.rpartition(".")[0]
        waiting += [parent] if parent else []  # a package's __init__ is run before its modules
        waiting += _imports(name, path)


def _belongs(name: str, path: Path, own: str) -> bool:
    package = name.partition(".")[0]
    if package in (own, BUILT_IN_METHODS):
        return True
    return package not in KNOWN_BY_VERSION and package not in sys.stdlib_module_names and not installed(path)


def installed(path: Path) -> bool:
    """Does the file lie where packages are installed, or Python itself?"""
    return any(path.is_relative_to(place) for place in _installation())


@functools.cache
def _installation() -> tuple[Path, ...]:
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    places |= {entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    return tuple(Path(place).resolve() for place in places if place)


def _file(module: str) -> Path | None:
    """The file of a module, found without importing its package; None for a folder without __init__.py, or nothing."""
    package, *below = module.split(".")
    spec: ModuleSpec | None
    try:
        spec = find_spec(package)
        for name in below:
            if spec is None:
                return None
            spec = PathFinder.find_spec(name, [*(spec.submodule_search_locations or ())])
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.has_location or not spec.origin:
        return None
    return Path(spec.origin).resolve()


def _imports(module: str, path: Path) -> Sequence[str]:
    """What a module may import, anywhere in its source: modules, and names that may be modules."""
    if path.suffix != ".py":
        return ()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _imports_of_file(path, package, *_stamp(path))


@functools.lru_cache(maxsize=1024)
def _imports_of_file(path: Path, package: str, changed_ns: int, size: int) -> Sequence[str]:
    tree = _tree(path)
    found = []
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and (name := _imported_by_name(node)):
            found.append(name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
    return found


def _imported_by_name(call: ast.Call) -> str:
    """The module that importlib.import_module("...") or __import__("...") names; empty for any other call."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    named = isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith(".")
    return first.value if named and function in ("import_module", "__import__") else ""  # type: ignore[union-attr]


def _data_files(module: Path) -> list[Path]:
    """What a module may read from the folder in which it lies, if it asks for that."""
    if module.suffix != ".py" or not any(word in module.read_bytes() for word in (b"__file__", b"resources")):
        return []
    beside = (path for path in sorted(module.parent.iterdir()) if path.suffix not in SOURCES and path.name[0] != ".")
    return [path for path in beside if path.is_file() and path.stat().st_size <= LARGEST_DATA]


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


def _text(path: Path) -> bytes:
    """The file with the line ends of one system, so that a checkout on another one is the same source."""
    data = path.read_bytes()
    return data.replace(b"\r\n", b"\n") if path.suffix == ".py" else data


def _tree(path: Path) -> ast.Module | None:
    """None for what is not sound Python source."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return None


def _syntax_digest(path: Path) -> str:
    """Empty for what is not sound Python source."""
    return _syntax_digest_of_file(path, *_stamp(path)) if path.suffix == ".py" else ""


@functools.lru_cache(maxsize=1024)
def _syntax_digest_of_file(path: Path, changed_ns: int, size: int) -> str:
    tree = _tree(path)
    if tree is None or any(word in path.read_bytes() for word in READS_DOCSTRINGS):
        return ""
    return _digest(ast.dump(_WithoutDocstrings().visit(tree)).encode("utf-8", "surrogatepass"))


class _WithoutDocstrings(ast.NodeTransformer):
    """Takes the first text out of modules, classes and functions."""

    def _strip(self, node: Any) -> Any:
        self.generic_visit(node)
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _strip


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
