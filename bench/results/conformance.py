"""With whose code methods were compared, and how far apart the numbers were: two tables that ship with the package.

`results/conformance/sources.csv` names the repository and the commit behind every directory of vectors. What is feared of the
errors is a number that somebody typed, or that was true of other vectors: `results/conformance/worst_errors.csv` is written by
the conformance tests alone (`pytest tests/conformance --write-errors FILE`), and holds a digest of what was compared.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

METHODS_APART = " "  # between the names in the column `methods`


@dataclass(frozen=True)
class AuthorsCode:
    """The published code whose run is stored in a directory of vectors."""

    vectors: str  # the directory
    repository: str  # owner/name on GitHub
    commit: str
    commit_date: str  # empty where it is not known
    note: str  # which part of the code, and whatever else there is to know


@dataclass(frozen=True)
class WorstError:
    """The largest error in a file of vectors, computed in one precision, as a fraction of its limit."""

    vectors: str  # the directory
    file: str
    computed_in: str
    methods: tuple[str, ...]  # registered names of those that were compared; empty for metrics
    arrays: int  # compared
    worst: float
    worst_array: str
    limits: str  # in words
    measured: str  # date
    made_with: str  # versions of what computed it
    digest: str  # of the file and of its part of params.json

    @property
    def key(self) -> tuple[str, str, str]:
        return self.vectors, self.file, self.computed_in


@cache
def authors_code() -> Mapping[str, AuthorsCode]:
    """Directory of vectors -> the code that they come from."""
    with _shipped("sources.csv").open(encoding="utf-8") as file:
        return {row["vectors"]: AuthorsCode(**row) for row in csv.DictReader(file)}


@cache
def worst_errors() -> Sequence[WorstError]:
    """Those that ship, in the order of directories, files and precisions."""
    with _shipped("worst_errors.csv").open(encoding="utf-8") as file:
        return _rows(csv.DictReader(file))


def errors_of(method: str) -> Sequence[WorstError]:
    """The errors of the comparisons in which a built-in method took part."""
    return [error for error in worst_errors() if method in error.methods]


def read_errors(path: Path) -> Sequence[WorstError]:
    """What `write_errors` has written; nothing if there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return _rows(csv.DictReader(file))


def write_errors(path: Path, errors: Sequence[WorstError]) -> None:
    """One row each, sorted, so that two people's measurements of different files can be merged."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(WorstError)])
        for error in sorted(errors, key=lambda error: error.key):
            values = {field.name: getattr(error, field.name) for field in fields(WorstError)}
            text = {"methods": METHODS_APART.join(error.methods), "worst": f"{error.worst:.3g}"}
            writer.writerow((values | text).values())


def _shipped(name: str) -> Traversable:
    return files("bench.shipped") / "conformance" / name


def _rows(reader: "csv.DictReader[str]") -> list[WorstError]:
    return [
        WorstError(
            vectors=row["vectors"],
            file=row["file"],
            computed_in=row["computed_in"],
            methods=tuple(row["methods"].split(METHODS_APART)) if row["methods"] else (),
            arrays=int(row["arrays"]),
            worst=float(row["worst"]),
            worst_array=row["worst_array"],
            limits=row["limits"],
            measured=row["measured"],
            made_with=row["made_with"],
            digest=row["digest"],
        )
        for row in reader
    ]
