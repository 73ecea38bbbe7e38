"""What has been compared with authors' code: a table over all methods, and one over the stored vectors.

    python docs/conformance_table.py methods
    python docs/conformance_table.py vectors [DIR]
"""

import argparse
import ast
import json
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.reports.formats import Table, TableCell, write
from bench.system import registry

TESTS = Path(__file__).parent.parent / "tests" / "conformance"
ROLES = ("fed in", "compared", "left out")


def methods() -> Table:
    """A row for each built-in method: what its class says has been checked, and what has not."""
    rows = []
    for entry in registry.entries("method"):
        if entry.package == registry.BUILT_IN:
            checked, _, unchecked = registry.load("method", entry.name).conformance.partition("; not checked: ")
            rows.append([TableCell(entry.name), TableCell(checked.removeprefix("checked: ")), TableCell(unchecked or "")])
    with_vectors = sum(not row[1].text.startswith("no vectors") for row in rows)
    caption = f"{with_vectors} of {len(rows)} methods are compared with numbers of their authors' code"
    return Table(caption, "As bench show METHOD says", ["method", "compared", "not compared"], rows, left=3)


def vectors(folder: Path) -> Table:
    """A row for each file of vectors: how many of its arrays are fed in, compared, left out."""
    readers = tests_of()
    rows = []
    for index in sorted(folder.glob("*/params.json")):
        for name, facts in json.loads(index.read_text())["files"].items():
            if not name.endswith(".npz") or not (index.parent / name).exists():
                continue
            with np.load(index.parent / name, allow_pickle=False) as file:
                roles = [role_of(array, facts) for array in file.files]
            reader = ", ".join(sorted(test for directory, test in readers if directory == index.parent.name))
            counts = [str(roles.count(role)) for role in ROLES]
            rows.append([TableCell(text) for text in (index.parent.name, name, reader, facts["dtype"], *counts)])
    if not rows:
        raise BenchError(f"{folder}: no vectors in it (DIR/<method>/params.json and the files that it lists)")
    header = ["directory", "file", "test", "computed in", *ROLES]
    return Table(f"{sum(int(row[-2].text) for row in rows)} arrays are compared", "Numbers of arrays", header, rows, left=4)


def role_of(array: str, facts: dict) -> str:
    """What an array is for, by the first part of params.json that speaks of it."""
    for role, patterns in (("left out", facts["not_compared"]), ("fed in", facts["inputs"]), ("compared", facts["tolerances"])):
        if any(fnmatchcase(array, pattern) for pattern in patterns):
            return role
    raise BenchError(f"params.json says nothing about array {array}")


def tests_of() -> set[tuple[str, str]]:
    """(directory of vectors, test file) for every `vectors` mark in the tests."""
    found = set()
    for path in TESTS.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.vectors"):
                found.add((ast.literal_eval(node.args[0]), path.name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["methods", "vectors"])
    parser.add_argument("folder", type=Path, nargs="?", default=TESTS / "vectors", metavar="DIR")
    chosen = parser.parse_args()
    print(write([methods() if chosen.what == "methods" else vectors(chosen.folder)], "markdown"))


if __name__ == "__main__":
    main()
