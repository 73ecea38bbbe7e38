"""The source of a method: which files it is made of, and digests that tell whether it has changed since a run was made.

A method's files are its own module and whatever that imports, at any depth, from the same package, from the methods that
ship here, and from code that is not installed but lies where its author works on it. bench itself and installed libraries are
known by their versions. A module that asks where it lies (__file__, importlib.resources) may read the data files beside it, which
then count too. Sources are read and never run, so a plan needs no torch. What a module finds by a name that it computes is not
seen.
"""

import ast
import copy
import functools
import hashlib
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BUILT_IN_METHODS = "methods"
READS_DOCSTRINGS = (b"__doc__", b"getdoc")  # code for which a docstring is more than words
READS_SEARCHES = (b"metadata", b"search_space")  # code for which the search space of a hyper-parameter may be more than advice
SEARCHES = ("Choices", "Range")  # what search spaces are made of
OF_SETTINGS = ("bench", "bench.learning.method", "bench.learning.settings")  # the modules that give `setting`
SOURCES = (".py", ".pyc", ".pyi", ".cfg", ".toml", ".md", ".rst")  # and what says something about sources
LARGEST_DATA = 64 << 20  # bytes; a larger file is not read for a plan
KNOWN_BY_VERSION = ("bench", "protocols")
PYTHON = ".".join(platform.python_version_tuple()[:2])


@dataclass(frozen=True)
class Source:
    """A method's source: the object that is registered, and two digests of every module that it is made of.

    `text` are those of the files, `syntax` those of what Python reads in them: without comments, docstrings, layout, and what
    `bench tune` tries for a hyper-parameter (`search=` of a `setting`), which no run ever looks at. A
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
    return changes_now(functools.partial(of_object, target), since)


def changes_now(find: Callable[[bool], "Source | None"], since: Source) -> list[str]:
    """The same for a source that is found now, with its syntax or without."""
    now = find(False)
    if now is None:
        return ["its module is not to be found"]
    if now.target == since.target and now.text == since.text:
        return []
    return changed_modules(since, find(True) or now)


def of_object(target: str, syntax: bool = True) -> Source | None:
    """The source of module:object; syntax=False: only the digests of the files, which take less time."""
    module = target.partition(":")[0].strip()
    if _file(module) is None:
        return None
    return _of_files(target, dict(sorted(_modules([module], module.partition(".")[0]))), syntax)


def of_file(path: Path, attribute: str, syntax: bool = True) -> Source | None:
    """The source of an object in a file that is no module of a package, under the file's own name, wherever it lies."""
    if not path.is_file():
        return None
    files = dict(sorted(_modules(_imports(path.stem, path), "")))
    return _of_files(f"{path.name}:{attribute}", {path.name: path.resolve()} | files, syntax)


def _of_files(target: str, files: Mapping[str, Path], syntax: bool) -> Source:
    text = {name: _digest(_text(path)) for name, path in files.items()}
    for name, path in files.items():
        text |= {f"{name}: {beside.name}": _digest(beside.read_bytes()) for beside in _data_files(path)}
    trees = {name: digest for name, path in files.items() if (digest := _syntax_digest(path))} if syntax else {}
    return Source(target, text, trees, PYTHON)


def _modules(start: Sequence[str], own: str) -> Iterator[tuple[str, Path]]:
    """(name, file) of these modules and of all that they are made of; own: the package all of which belongs to them."""
    waiting, known = list(start), set()
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
    if not any(word in path.read_bytes() for word in READS_SEARCHES):
        tree = _WithoutSearches(tree).visit(tree)
    return _digest(ast.dump(_WithoutDocstrings().visit(tree)).encode("utf-8", "surrogatepass"))


class _WithoutSearches(ast.NodeTransformer):
    """Takes search spaces away: `search=` of `setting(...)`, and the imports of what they are made of, where these names are
    the harness's and stand for nothing else in the file.
    """

    def __init__(self, tree: ast.Module):
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in OF_SETTINGS]
        given = {alias.name for node in imports for alias in node.names if not alias.asname}
        self._setting = "setting" in given and "setting" not in set(_bound_otherwise(tree))
        others = {node.id for node in ast.walk(_without_keyword(tree)) if isinstance(node, ast.Name)}
        self._spare = (given & set(SEARCHES)) - others - set(_bound_otherwise(tree)) if self._setting else set()

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        if self._setting and isinstance(node.func, ast.Name) and node.func.id == "setting":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "search"]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if node.module in OF_SETTINGS:
            node.names = [alias for alias in node.names if alias.asname or alias.name not in self._spare]
        return node if node.names else None


def _without_keyword(tree: ast.Module) -> ast.Module:
    """A copy without what stands behind `search=`."""
    copied = copy.deepcopy(tree)
    for node in ast.walk(copied):
        if isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "search"]
    return copied


def _bound_otherwise(tree: ast.Module) -> Iterator[str]:
    """Names that something else than an import binds anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


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
