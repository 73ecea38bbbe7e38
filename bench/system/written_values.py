"""Values of plain expressions, from their syntax trees: Python's own evaluator would also carry out what is not plain."""

import ast
import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

FUNCTIONS: dict[str, Callable[..., Any]] = {
    one.__name__: one for one in (dict, len, list, max, min, range, round, sorted, str, sum, tuple, zip)
}
ATTRIBUTES: dict[type, tuple[str, ...]] = {dataclasses.Field: ("name",), PurePath: ("parent",)}
METHODS: dict[type, tuple[str, ...]] = {dict: ("get", "items", "keys", "values"), str: ("endswith", "startswith")}
OPERATORS: dict[type[ast.operator] | type[ast.unaryop], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.BitOr: operator.or_,
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda one, every: one in every,
    ast.NotIn: lambda one, every: one not in every,
}

Look = Callable[[str], Any]  # what a name stands for


class NotPlain(Exception):
    """An expression of another kind."""


def value_of(node: ast.expr, look: Look) -> Any:
    """What a plain expression is: constants, names, containers, arithmetic, comprehensions, calls of a few functions.

    >>> value_of(ast.parse("{k: 2 * k for k in range(start, 3)}", mode="eval").body, {"start": 1}.__getitem__)
    {1: 2, 2: 4}
    """

    reader = READERS.get(type(node))
    if reader is None:
        raise NotPlain(ast.unparse(node))
    return reader(node, look)


def _name(node: ast.Name, look: Look) -> Any:
    return FUNCTIONS[node.id] if node.id in FUNCTIONS else look(node.id)


def _dictionary(node: ast.Dict, look: Look) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values):
        found = value_of(value, look)
        made.update(found if key is None else {value_of(key, look): found})
    return made


def _operation(node: ast.BinOp, look: Look) -> Any:
    if type(node.op) not in OPERATORS:
        raise NotPlain(ast.unparse(node))
    return OPERATORS[type(node.op)](value_of(node.left, look), value_of(node.right, look))


def _sign(node: ast.UnaryOp, look: Look) -> Any:
    if type(node.op) not in OPERATORS:
        raise NotPlain(ast.unparse(node))
    return OPERATORS[type(node.op)](value_of(node.operand, look))


def _comparison(node: ast.Compare, look: Look) -> bool:
    if len(node.ops) != 1 or type(node.ops[0]) not in COMPARISONS:
        raise NotPlain(ast.unparse(node))
    return COMPARISONS[type(node.ops[0])](value_of(node.left, look), value_of(node.comparators[0], look))


def _choice(node: ast.IfExp, look: Look) -> Any:
    return value_of(node.body if value_of(node.test, look) else node.orelse, look)


def _part(node: ast.Subscript, look: Look) -> Any:
    return value_of(node.value, look)[value_of(node.slice, look)]


def _attribute(node: ast.Attribute, look: Look) -> Any:
    """Of a class, or one of ATTRIBUTES."""
    owner = value_of(node.value, look)
    known = any(node.attr in names for kind, names in ATTRIBUTES.items() if isinstance(owner, kind))
    if not isinstance(owner, type) and not known:
        raise NotPlain(ast.unparse(node))
    return getattr(owner, node.attr)


def _call(node: ast.Call, look: Look) -> Any:
    named = {one.arg: value_of(one.value, look) for one in node.keywords if one.arg is not None}
    if len(named) < len(node.keywords):
        raise NotPlain(ast.unparse(node))
    return _function(node.func, look)(*_unpacked(node.args, look), **named)


def _function(node: ast.expr, look: Look) -> Callable[..., Any]:
    """One of FUNCTIONS, a method of a plain value that changes nothing, or what `look` gives for a name, if that is no class."""
    if isinstance(node, ast.Name):
        found = _name(node, look)
        if found in FUNCTIONS.values() or (callable(found) and not isinstance(found, type)):
            return found
    if isinstance(node, ast.Attribute):
        owner = value_of(node.value, look)
        if node.attr in METHODS.get(type(owner), ()):
            return getattr(owner, node.attr)
    raise NotPlain(ast.unparse(node))


def _made_dictionary(node: ast.DictComp, look: Look) -> dict[Any, Any]:
    return {value_of(node.key, inner): value_of(node.value, inner) for inner in _rounds(node.generators, look)}


def _made_list(node: ast.ListComp | ast.GeneratorExp, look: Look) -> list[Any]:
    return [value_of(node.elt, inner) for inner in _rounds(node.generators, look)]


def _made_set(node: ast.SetComp, look: Look) -> frozenset[Any]:
    return frozenset(value_of(node.elt, inner) for inner in _rounds(node.generators, look))


def _unpacked(parts: list[ast.expr], look: Look) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, ast.Starred):
            yield from value_of(part.value, look)
        else:
            yield value_of(part, look)


READERS: dict[type[ast.expr], Callable[[Any, Look], Any]] = {
    ast.Constant: lambda node, look: node.value,
    ast.Name: _name,
    ast.Tuple: lambda node, look: tuple(_unpacked(node.elts, look)),
    ast.List: lambda node, look: list(_unpacked(node.elts, look)),
    ast.Dict: _dictionary,
    ast.BinOp: _operation,
    ast.UnaryOp: _sign,
    ast.Compare: _comparison,
    ast.IfExp: _choice,
    ast.Subscript: _part,
    ast.Attribute: _attribute,
    ast.Call: _call,
    ast.DictComp: _made_dictionary,
    ast.ListComp: _made_list,
    ast.GeneratorExp: _made_list,
    ast.SetComp: _made_set,
}


def _rounds(generators: list[ast.comprehension], look: Look) -> Iterator[Look]:
    """What names stand for in every round of a comprehension."""
    if not generators:
        yield look
        return
    first, *others = generators
    for item in value_of(first.iter, look):
        bound = dict(_bound(first.target, item))
        inner = _with(bound, look)
        if all(value_of(condition, inner) for condition in first.ifs):
            yield from _rounds(others, inner)


def _with(bound: Mapping[str, Any], look: Look) -> Look:
    return lambda name: bound[name] if name in bound else look(name)


def _bound(target: ast.expr, item: Any) -> Iterator[tuple[str, Any]]:
    match target:
        case ast.Name(id=name):
            yield name, item
        case ast.Tuple(elts=parts):
            for part, own in zip(parts, item, strict=True):
                yield from _bound(part, own)
        case _:
            raise NotPlain(ast.unparse(target))
