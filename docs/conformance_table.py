"""What has been compared with authors' code: tables over all methods, over that code, over errors and over the stored vectors.

    python docs/conformance_table.py methods
    python docs/conformance_table.py code
    python docs/conformance_table.py errors
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
from bench.results import conformance
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


def code() -> Table:
    """A row for each directory of vectors: whose code they come from, and the methods that are compared with it."""
    compared: dict[str, dict[str, None]] = {}
    for error in conformance.worst_errors():
        compared.setdefault(error.vectors, {}).update(dict.fromkeys(error.methods))
    rows = []
    for directory, names in compared.items():
        found = conformance.authors_code()[directory]
        texts = (directory, ", ".join(names) or "metrics", found.repository, found.commit)
        rows.append([TableCell(text) for text in (*texts, found.commit_date or "not known", found.note)])
    repositories = len({row[2].text for row in rows})
    header = ["directory", "compared", "repository on GitHub", "commit", "of", "part of it"]
    return Table(f"The code of {repositories} repositories", "Each at one commit", header, rows, left=6)


def errors() -> Table:
    """A row for each file of vectors and each precision: the largest error that was measured."""
    found = conformance.worst_errors()
    rows = []
    for error in found:
        texts = (error.vectors, error.file, error.computed_in, error.limits, error.worst_array)
        rows.append([TableCell(text) for text in (*texts, f"{error.worst:.3g}")])
    worst = max(found, key=lambda error: error.worst)
    caption = f"The largest error is {worst.worst:.3g} of its limit, in {worst.vectors}/{worst.file}"
    made = "; ".join(dict.fromkeys(f"{error.measured} with {error.made_with}" for error in found))
    header = ["directory", "file", "computed in", "limits (arrays)", "array with the largest error", "error"]
    return Table(caption, f"As a fraction of its limit. Measured on {made}", header, rows, left=5)


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
    parser.add_argument("what", choices=["methods", "code", "errors", "vectors"])
    parser.add_argument("folder", type=Path, nargs="?", default=TESTS / "vectors", metavar="DIR")
    chosen = parser.parse_args()
    tables = {"methods": methods, "code": code, "errors": errors, "vectors": lambda: vectors(chosen.folder)}
    print(write([tables[chosen.what]()], "markdown"))


if __name__ == "__main__":
    main()
