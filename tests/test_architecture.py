"""The order of the packages, read from the source: who may import whom, and what must be there without torch.

Every import counts, also one inside a function and one that only type checkers see: what a module knows of, it depends on.
"""

import ast
import functools
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bench", "methods", "protocols")
HEAVY = {"open_clip", "safetensors.torch", "torch", "torchvision"}
# who may import whom: each may import what stands here for it, and itself. Whoever needs another arrow writes it down here
# and says in docs/architecture.md why.
GROUND = {"bench.errors", "bench.system"}
MAY_IMPORT = {
    "bench.errors": set(),
    "bench.system": {"bench.errors"},
    # left column: from images to a learner
    "bench.images": GROUND,
    "bench.clip": GROUND | {"bench.images"},
    "bench.streams": GROUND | {"bench.images", "bench.clip"},
    "bench.learning": GROUND | {"bench.clip", "bench.streams"},
    # right column: from stored results to a page
    "bench.results": GROUND,
    "bench.reports": GROUND | {"bench.results"},
    "bench.gate": GROUND | {"bench.results", "bench.reports"},
    "bench.pictures": GROUND | {"bench.results", "bench.reports"},
    # the roof
    "bench.runs": GROUND | {"bench.images", "bench.clip", "bench.streams", "bench.learning", "bench.results"},
    "bench.checks": GROUND | {"bench.images", "bench.clip", "bench.streams", "bench.learning", "bench.results", "bench.runs"},
    "bench.commands": GROUND
    | {"bench.images", "bench.clip", "bench.streams", "bench.learning", "bench.results", "bench.reports", "bench.gate"}
    | {"bench.pictures", "bench.runs", "bench.checks"},
    "bench.__main__": {"bench.commands"},
    # plug-ins: the public names, CLIP's towers, and single modules
    "methods": {"bench", "bench.clip", "bench.system.parallel", "bench.system.offline", "bench.system.former_names"}
    | {"bench.system.progress"}  # marks in training loops
    | {"bench.system.memory"},  # to stop before a system does it
    "protocols": {"bench", "bench.clip", "bench.images", "bench.streams", "bench.errors"}
    | {"bench.system.registry", "bench.system.files", "bench.system.digests", "bench.system.text_files"},
}
# what plans runs and tells of them answers without waiting for torch, as does whatever reads finished runs
WITHOUT_TORCH = ("bench.results", "bench.reports", "bench.gate", "bench.pictures", "bench.commands")
PLANNERS = ("runs.assignments", "runs.estimate", "runs.facts", "runs.launch", "runs.plan", "runs.request", "streams.names")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(source: str, module: str, path: Path, modules=MODULES) -> Iterator[tuple[str, bool]]:
    """(name of an imported module, is it imported as soon as this one is?)"""

    def visit(nodes: list[ast.stmt], at_once: bool) -> Iterator[tuple[str, bool]]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, at_once) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = _base(node, module, path)
                yield from ((f"{start}.{a.name}" if f"{start}.{a.name}" in modules else start, at_once) for a in node.names)
            else:
                later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
                yield from visit(getattr(node, "body", []), at_once and not later and not for_types)
                inner = [getattr(node, "orelse", []), getattr(node, "finalbody", [])]
                inner += [part.body for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]]
                for nodes_inside in inner:
                    yield from visit(nodes_inside, at_once and not later)

    yield from visit(ast.parse(source).body, at_once=True)


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


def package_of(module: str) -> str:
    """bench.runs of bench.runs.plan; methods and protocols are one package each."""
    first, *rest = module.split(".")
    return ".".join([first, *rest[:1]]) if first == "bench" else first


def may_import(package: str, module: str) -> bool:
    return package_of(module) in {package, *MAY_IMPORT[package]} or module in MAY_IMPORT[package]


@functools.cache
def way_to_torch(module: str) -> tuple[str, ...]:
    """The chain of imports by which importing this module imports torch; empty if it does not."""
    at_once = [name for name, now in imports_of(module) if now]
    for name in at_once:
        if name in HEAVY or name.split(".")[0] in HEAVY:
            return module, name
    for name in at_once:
        if name in MODULES and (way := way_to_torch(name)):
            return module, *way
    return ()


def test_the_source_is_read_as_python_reads_it():
    source = (
        "from typing import TYPE_CHECKING\nimport numpy.random\nfrom bench.results import records\nfrom .parts import replay\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import c\ntry:\n    import a\nexcept ImportError:\n    import b\n"
        "def later():\n    with open('x'):\n        from bench.results.records import load\n"
    )
    known = dict.fromkeys(["bench.results.records", "methods.parts.replay"])
    found = list(imported(source, "methods.one", Path("methods/one.py"), known))
    assert found == [
        ("typing", True), ("numpy.random", True), ("bench.results.records", True), ("methods.parts.replay", True),
        ("torch", False), ("c", True), ("a", True), ("b", True), ("bench.results.records", False),
    ]  # fmt: skip


def test_every_arrow_is_allowed():
    wrong = []
    for module in set(MODULES) - {"bench"}:  # the public names are of every package; nothing in bench imports them
        for name, _ in imports_of(module):
            ours = name.split(".")[0] in (*PACKAGES, "tests", "docs")
            if ours and not may_import(package_of(module), name):
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_every_allowed_arrow_is_needed():
    """An arrow that nobody needs any more is taken out of the list, so that nobody leans on it."""
    for package, others in MAY_IMPORT.items():
        names = {name for module in MODULES if package_of(module) == package for name, _ in imports_of(module)}
        used = names | {package_of(name) for name in names}
        assert others - GROUND <= used, (package, others - GROUND - used)


def test_packages_of_bench_stand_in_an_order():
    names = {name for name in MAY_IMPORT if name.startswith("bench.")}
    assert names == {package_of(module) for module in MODULES if module.startswith("bench.")}
    graphlib.TopologicalSorter({name: MAY_IMPORT[name] & names for name in names}).prepare()


def test_no_module_imports_itself_through_others():
    graph = {module: [name for name, _ in imports_of(module) if name in MODULES and name != "bench"] for module in MODULES}
    assert len(graph) > 200 and sum(map(len, graph.values())) > 1000  # the source was found
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_nothing_in_bench_imports_the_public_names():
    assert not [module for module in MODULES if module.startswith("bench.") for name, _ in imports_of(module) if name == "bench"]


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_packages_that_read_results_do_not_import_torch(package):
    modules = [module for module in MODULES if package_of(module) == package]
    assert len(modules) > 4 and not [way for module in modules if (way := way_to_torch(module))]


@pytest.mark.parametrize("module", PLANNERS)
def test_planners_do_not_import_torch(module):
    assert not way_to_torch(f"bench.{module}")
    assert way_to_torch("bench.runs.runner")  # the question can be answered with yes


def test_a_reader_who_opens_bench_sees_few_names():
    """Packages, each saying whose it is, and the ground that all stand on."""
    seen = [path for path in (ROOT / "bench").iterdir() if path.name != "__pycache__"]
    assert len(seen) <= 16 and sum(path.is_file() for path in seen) <= 8


def test_packages_import_nothing_heavy_by_themselves():
    """The registry imports the packages around a plug-in's module: what is imported there, `bench list` would wait for."""
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module != "bench":
            others = {name for name, _ in imports_of(module)} - {"bench.system.former_names"}
            assert {name.split(".")[0] for name in others} <= sys.stdlib_module_names, module
            assert ast.get_docstring(ast.parse(path.read_text())), module
