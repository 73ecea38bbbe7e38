"""A class as its source states it: read from the syntax tree, without importing what its module imports (torch takes seconds).

What is feared is a class that says something else than the imported one would. So only what can mean one thing is read: plain
values, names that a module binds once and at its top, bases of the same kind, fields of dataclasses, and functions and properties
that are made of nothing else. Everything else is Unreadable, and whoever asks imports the class instead. A module that does more
at its top than define things is not read at all, because it may change what it has defined.
"""

import ast
import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import Any

from bench.system import written_values
from bench.system.public_names import MODULE_OF
from bench.system.written_values import FUNCTIONS

OUTSIDE: dict[str, type] = {"torch.nn.Module": object}  # bases that say nothing of what is read here
CALLED = (  # nothing else of a module is
    *(f"bench.learning.settings.{name}" for name in ("setting", "Range", "Choices")),
    "dataclasses.fields",
    "pathlib.Path",
)
READ = ("bench", "methods")  # packages whose modules are read
FROZEN = (["dataclass(frozen=True)"], ["dataclasses.dataclass(frozen=True)"])  # the decorators of a class that are known
PLAIN = (type(None), bool, int, float, str)
NOT_MADE = (ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.ClassDef, ast.AsyncFunctionDef)  # inside of functions


class Unreadable(Exception):
    """Only importing it would say what it is."""


def written_class(module: str, name: str) -> type:
    """A stand-in for a class of a module: its name, docstring, bases, values and fields; its functions do nothing."""
    found = _module(module).value_of(name)
    if not isinstance(found, type):
        raise Unreadable(f"{module}:{name} is no class")
    return found


class WrittenFunction:
    """In the place of a function of a class that was read; not of a property that asks for nothing but the object itself."""


@functools.cache
def _module(name: str) -> "_Module":
    return _Module(name)


class _Module:
    """The top of a module's source: which statement binds which name."""

    def __init__(self, name: str):
        spec = find_spec(name)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            raise Unreadable(f"{name} has no source")
        self.name, self.file = name, spec.origin
        self.bound: dict[str, ast.stmt] = {}
        self.values: dict[str, Any] = {}
        for statement in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            for bound in _names_bound_by(statement):
                if bound in self.bound:
                    raise Unreadable(f"{name} binds {bound} more than once")
                self.bound[bound] = statement

    def value_of(self, name: str) -> Any:
        """What the name stands for: a plain value, or the stand-in for a class."""
        if name not in self.values:
            if name not in self.bound:
                raise Unreadable(f"{self.name} does not bind {name}")
            self.values[name] = self._value_bound_by(self.bound[name], name)
        return self.values[name]

    def _value_bound_by(self, statement: ast.stmt, name: str) -> Any:
        match statement:
            case ast.ClassDef():
                return self._class(statement)
            case ast.FunctionDef(decorator_list=[]):
                return self._function(statement)
            case ast.ImportFrom(module=str(module)) if _is_read(module):
                original = _imported(statement, name)
                return _module(_home(module, original)).value_of(original)
            case ast.Assign(targets=[ast.Name()], value=value) | ast.AnnAssign(value=ast.expr() as value):
                return self.evaluate(value, {}, sets=True)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                return self.evaluate(value, {})[[ast.unparse(target) for target in targets].index(name)]
        raise Unreadable(f"{self.name}: {name}")

    def place_of(self, expression: ast.expr) -> str:
        """Where a name or a dotted name comes from, written in full: "torch.nn.Module"."""
        if isinstance(expression, ast.Attribute):
            return f"{self.place_of(expression.value)}.{expression.attr}"
        if not isinstance(expression, ast.Name):
            raise Unreadable(f"{self.name}: {ast.unparse(expression)}")
        match self.bound.get(expression.id):
            case ast.Import() as statement:
                return _imported(statement, expression.id)
            case ast.ImportFrom(module=str(module)) as statement:
                original = _imported(statement, expression.id)
                if not _is_read(module):
                    return f"{module}.{original}"
                return _module(_home(module, original)).place_of(ast.Name(original))
        return f"{self.name}.{expression.id}"

    def _class(self, written: ast.ClassDef) -> type:
        if written.keywords:
            raise Unreadable(f"{self.name}: {written.name} has a metaclass")
        values: dict[str, Any] = {"__module__": self.name, "__doc__": ast.get_docstring(written, clean=False)}
        annotated: dict[str, object] = {}
        for statement in written.body:
            self._read_into(values, annotated, statement)
        bases = tuple(self._base(base) for base in written.bases)
        made = type(written.name, bases, {**values, "__annotations__": annotated})
        for statement in written.body:
            if isinstance(statement, ast.FunctionDef) and (found := _property_of(made, statement)):
                setattr(made, statement.name, found)
        return self._decorated(made, written.decorator_list)

    def _read_into(self, values: dict[str, Any], annotated: dict[str, object], statement: ast.stmt) -> None:
        """One statement of a class's body."""
        match statement:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                return
            case ast.FunctionDef(name=name) if name != "__init_subclass__":  # that one may change the classes below
                values[name] = WrittenFunction()
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = self.evaluate(value, values)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                if "ClassVar" not in ast.unparse(annotation):
                    annotated[name] = object  # of a field, nobody reads the type here
                if value is not None:
                    values[name] = self.evaluate(value, values)
            case _:
                raise Unreadable(f"{self.name}: {ast.unparse(statement)}")

    def _function(self, written: ast.FunctionDef) -> Callable[..., Any]:
        """A function of the module that is made of plain values: it is made anew, among those alone."""
        if _does_more(written):
            raise Unreadable(f"{self.name}: {written.name}")
        names = {name: self._value_or_setting(ast.Name(name)) for name in _names_asked_by(written) - set(FUNCTIONS)}
        made: dict[str, Any] = {"__builtins__": FUNCTIONS, **names}
        exec(ast.unparse(_bare(written)), made)
        return made[written.name]

    def _base(self, expression: ast.expr) -> type:
        outside = OUTSIDE.get(self.place_of(expression))
        found = outside or self.evaluate(expression, {})
        if not isinstance(found, type):
            raise Unreadable(f"{self.name}: {ast.unparse(expression)} is no class")
        return found

    def _decorated(self, made: type, decorators: list[ast.expr]) -> type:
        if not decorators:
            return made
        if [ast.unparse(decorator) for decorator in decorators] in FROZEN:
            return dataclasses.dataclass(frozen=True)(made)
        raise Unreadable(f"{self.name}: a decorator of {made.__name__}")

    def evaluate(self, expression: ast.expr, names: Mapping[str, Any], sets: bool = False) -> Any:
        """The value of an expression; `names` holds what the class around it has bound so far. sets: it may be one, which has no
        order of its own when it is shown.

        Only plain expressions have one (bench/system/written_values.py), made of nothing but values that have been read.
        """

        def look(name: str) -> Any:
            return names[name] if name in names else self._value_or_setting(ast.Name(name))

        try:
            value = written_values.value_of(expression, look)
        except Exception as error:  # what has been read lacks something that the imported value has
            raise Unreadable(f"{self.name}: {ast.unparse(expression)}") from error
        if not _is_plain(value) and not (sets and isinstance(value, frozenset) and _is_plain(list(value))):
            raise Unreadable(f"{self.name}: {ast.unparse(expression)}")
        return value

    def _value_or_setting(self, name: ast.Name) -> Any:
        if name.id == "__file__":
            return self.file
        place = self.place_of(name)
        if place not in CALLED:
            return self.value_of(name.id)
        module, _, called = place.rpartition(".")
        return functools.partial(getattr(import_module(module), called))  # a class is called as a function is


def _property_of(made: type, written: ast.FunctionDef) -> property | None:
    """A property that asks for nothing but the object itself, as `needs` is, works in the stand-in as in the class."""
    if [ast.unparse(decorator) for decorator in written.decorator_list] != ["property"]:
        return None
    if not _names_asked_by(written) <= {"super", *FUNCTIONS} or _does_more(written):
        return None
    # super() looks for the class under the name __class__ in what is around the function
    source = f"def around(__class__):\n{indent(ast.unparse(_bare(written)), '    ')}\n    return {written.name}\n"
    names: dict[str, Any] = {"__builtins__": {**FUNCTIONS, "super": super}}
    exec(source, names)
    return property(names["around"](made))


def _does_more(function: ast.FunctionDef) -> bool:
    """Does it change names outside of itself, or define classes?"""
    return any(isinstance(node, NOT_MADE) for node in ast.walk(function))


def _bare(written: ast.FunctionDef) -> ast.FunctionDef:
    """The function without decorators and annotations, whose names nobody has here."""
    function = copy.deepcopy(written)
    function.decorator_list, function.returns = [], None
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return function


def _names_asked_by(written: ast.FunctionDef) -> set[str]:
    """The names in a function that it does not bind itself."""
    function = _bare(written)
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    return {node.id for node in names} - bound


def _names_bound_by(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):
            return
        case ast.Import(names=aliases):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
        case ast.ImportFrom(names=aliases, level=0):
            yield from (alias.asname or alias.name for alias in aliases)
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Assign(targets=[ast.Name(id=name)]):
            yield name
        case ast.Assign(targets=[ast.Tuple(elts=parts)]) if all(isinstance(part, ast.Name) for part in parts):
            yield from (part.id for part in parts if isinstance(part, ast.Name))
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=[]):
            for inner in body:
                yield from _names_bound_by(inner)
        case _:
            raise Unreadable(ast.unparse(statement))


def _imported(statement: ast.Import | ast.ImportFrom, name: str) -> str:
    """What a name that an import binds is called where it comes from."""
    for alias in statement.names:
        if alias.asname == name:
            return alias.name
        if not alias.asname and name in (alias.name, alias.name.partition(".")[0]):
            return name
    raise Unreadable(f"{name} of {ast.unparse(statement)}")


def _home(module: str, name: str) -> str:
    """The module that defines a name, for one of the public names of `bench`."""
    return MODULE_OF.get(name, module) if module == "bench" else module


def _is_read(module: str) -> bool:
    return module.partition(".")[0] in READ


def _is_plain(value: Any) -> bool:
    """Nothing but numbers, texts and what is made of them; or a class that was read, or a field of one."""
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(_is_plain(part) for pair in value.items() for part in pair)
    return isinstance(value, (*PLAIN, type, dataclasses.Field))
