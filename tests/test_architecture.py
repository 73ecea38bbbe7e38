"""The arrows of docs/architecture.md, read from the source: who may import whom, and what must be there without torch."""

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bench", "methods", "protocols")
HEAVY = {"open_clip", "safetensors.torch", "torch", "torchvision"}
# what reads finished runs, and what plans them, answers without waiting for torch
READERS = (
    "accuracy", "accuracy_files", "accuracy_matrix", "baseline", "calibration", "cli", "compare", "costs", "foreign", "formats",
    "gate", "gate_report", "groups", "metrics", "novelty", "plots", "published", "ranking", "records", "report", "samples",
    "tables",
)  # fmt: skip
PLANNERS = ("assignments", "estimate", "facts", "launch", "listing", "plan", "protocol_names", "registry", "run_command", "study")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(source: str, module: str, path: Path, modules=MODULES) -> Iterator[tuple[str, bool]]:
    """(name of an imported module, is it imported only when a function runs?); not what only type checkers see."""

    def visit(nodes: list[ast.stmt], late: bool) -> Iterator[tuple[str, bool]]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, late) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = _base(node, module, path)
                yield from ((f"{start}.{a.name}" if f"{start}.{a.name}" in modules else start, late) for a in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from visit(node.orelse, late)
            else:
                function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                inner = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
                inner += [part.body for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]]
                for nodes_inside in inner:
                    yield from visit(nodes_inside, late or function)

    yield from visit(ast.parse(source).body, late=False)


def _base(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The module that `from ... import` names, also where dots say where it lies."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


@functools.cache
def imports_of(module: str) -> tuple[tuple[str, bool], ...]:
    path = MODULES[module]
    return tuple(imported(path.read_text(), module, path))


@functools.cache
def way_to_torch(module: str) -> tuple[str, ...]:
    """The chain of imports by which importing this module imports torch; empty if it does not."""
    for name, late in imports_of(module):
        if not late and (name in HEAVY or name.split(".")[0] in HEAVY):
            return module, name
    for name, late in imports_of(module):
        if not late and name in MODULES and (way := way_to_torch(name)):
            return module, *way
    return ()


def test_the_source_is_read_as_python_reads_it(tmp_path):
    source = (
        "from typing import TYPE_CHECKING\nimport numpy.random\nfrom bench import records\nfrom .parts import replay\n"
        "if TYPE_CHECKING:\n    import torch\ntry:\n    import a\nexcept ImportError:\n    import b\n"
        "def later():\n    with open('x'):\n        from bench.results.records import load\n"
    )
    known = dict.fromkeys(["bench.results.records", "methods.parts.replay"])
    found = list(imported(source, "methods.one", Path("methods/one.py"), known))
    assert found == [
        ("typing", False), ("numpy.random", False), ("bench.results.records", False), ("methods.parts.replay", False),
        ("a", False), ("b", False), ("bench.results.records", True),
    ]  # fmt: skip


def test_arrows_between_packages_point_to_bench_only():
    wrong = []
    for module in MODULES:
        for name, _ in imports_of(module):  # also those inside functions
            own, other = module.split(".")[0], name.split(".")[0]
            if other in (*PACKAGES, "tests", "docs") and other not in (own, "bench"):
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_module_imports_itself_through_others():
    graph = {module: [name for name, late in imports_of(module) if not late and name in MODULES] for module in MODULES}
    assert len(graph) > 100 and sum(map(len, graph.values())) > 300  # the source was found
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("module", [*READERS, *PLANNERS])
def test_readers_and_planners_do_not_import_torch(module):
    assert not way_to_torch(f"bench.{module}")
    assert way_to_torch("bench.runs.runner")  # the question can be answered with yes


def test_methods_see_no_test_data_and_no_results():
    """They learn from what the stream gives them; scores, records and the like are none of their business."""
    forbidden = {f"bench.{name}" for name in (*READERS, "evaluation", "runner", "plan", "checkpoint", "doctor")}
    methods = [module for module in MODULES if module.split(".")[0] == "methods"]
    assert len(methods) > 30
    assert not [(module, name) for module in methods for name, _ in imports_of(module) if name in forbidden]
