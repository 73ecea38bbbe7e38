"""What a source file says of one of its objects, in a line: read without running it, and quickly.

`bench list` reads a line of every plug-in. Parsing whole files took most of its time, and the line stands at the beginning of the
object; so only that is parsed, and the file where that fails.
"""

import ast
import functools
import re
from pathlib import Path


def of_object(path: str, name: str, module: str, whole: bool) -> tuple[str, str]:
    """(summary, why broken) of a top-level object of a source file.

    whole: the file has to be Python from its first to its last line; otherwise that is asked only of what is read.
    """
    if not path.endswith(".py"):
        return "", ""
    if not whole:
        found = _in_statements(_beginning(_text(path), name), name)
        if found is not None:
            return found, ""
    found = _in_statements(_parse(path).body, name)
    return ("", f"module {module!r} does not define {name!r}") if found is None else (found, "")


@functools.cache
def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


@functools.cache
def _parse(path: str) -> ast.Module:
    return ast.parse(_text(path))


def _beginning(text: str, name: str) -> list[ast.stmt]:
    """The statement that defines a name, a class only up to its first method; nothing where that cannot be cut out.

    >>> [ast.unparse(one) for one in _beginning("class A:\\n    x = 1\\n\\n    def f(self): ...\\n\\ny = 2", "A")]
    ['class A:\\n    x = 1']
    """
    start = re.search(rf"^(?:class|def) {re.escape(name)}\b|^{re.escape(name)} *[:=]", text, re.MULTILINE)
    if start is None:
        return []
    # the next line that begins at the margin, unless it only closes a bracket; in a class, its first method too
    end = r"^[^\s)\]}#]|^    (?:def |@)" if start[0].startswith("class") else r"^[^\s)\]}#]"
    stop = re.compile(end, re.MULTILINE).search(text, start.end())
    try:
        return ast.parse(text[start.start() : stop.start() if stop else None]).body
    except SyntaxError:  # it goes on behind that line
        return []


def _in_statements(statements: list[ast.stmt], name: str) -> str | None:
    """The summary of the object of that name; None if these statements do not define it."""
    for node in statements:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n")[0]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return _summary_argument(node.value)
        if isinstance(node, ast.Import | ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            return ""
    return None


def _summary_argument(value: ast.expr | None) -> str:
    """The literal `summary=...` of a constructor call or of one inside it: how protocols and data sets describe themselves."""
    for node in ast.walk(value) if isinstance(value, ast.Call) else ():
        if isinstance(node, ast.keyword) and node.arg == "summary" and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    return ""
