"""The worst error of each file of vectors, in the form in which it is stored and shipped."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from bench.results.conformance import WorstError, read_errors, write_errors
from tests.conformance.vectors import Vectors

LIBRARIES = ("torch", "numpy", "open_clip_torch", "scikit-learn")
TERMS = {"abs": "{}", "rel_to_max": "{} of the largest", "rel": "{} of each"}  # of a limit


def store(path: Path, checked: Sequence[Vectors]) -> None:
    """Write the errors of these comparisons into the file; what it says of other files of vectors stays."""
    measured = worst_errors(checked)
    compared = {(error.vectors, error.file) for error in measured}
    kept = [error for error in read_errors(path) if (error.vectors, error.file) not in compared]
    write_errors(path, [*kept, *measured])


def worst_errors(checked: Sequence[Vectors]) -> list[WorstError]:
    """One for each file and precision. A file that several tests have read, or one in several ways, counts with all of them."""
    found = []
    ordered = sorted((one for one in checked if one.ratios), key=_place)
    for (directory, file, computed_in), same in groupby(ordered, key=_place):
        together = list(same)
        ratios: dict[str, float] = {}
        for one in together:
            ratios |= {array: max(ratio, ratios.get(array, 0.0)) for array, ratio in one.ratios.items()}
        worst = max(ratios, key=lambda array: ratios[array])
        error = WorstError(
            vectors=directory,
            file=file,
            computed_in=computed_in,
            methods=tuple(dict.fromkeys(method for one in together for method in one.methods)),
            arrays=len(ratios),
            worst=ratios[worst],
            worst_array=worst,
            limits=in_words({array: limit for one in together for array, limit in one.limits.items()}),
            measured=date.today().isoformat(),
            made_with=versions(),
            digest=digest(together[0].path, together[0].facts),
        )
        found.append(error)
    return found


def _place(vectors: Vectors) -> tuple[str, str, str]:
    return vectors.path.parent.name, vectors.path.name, vectors.computed_in


def in_words(limits: Mapping[str, Mapping[str, float]]) -> str:
    """Limits of the same kind together, with their range and the number of arrays that they hold for.

    >>> in_words({"labels": {"abs": 0}, "loss": {"abs": 1e-8}, "logits": {"abs": 1e-6}, "weights": {"rel_to_max": 1e-5}})
    'equal (1), 1e-08 to 1e-06 (2), 1e-05 of the largest (1)'
    >>> in_words({"a": {"rel": 0.001, "floor_rel_to_max": 0.01}, "b": {"abs": 1e-9, "rel_to_max": 1e-6}})
    '0.001 of each or of 0.01 of the largest (1), 1e-09 + 1e-06 of the largest (1)'
    """
    kinds: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for limit in limits.values():
        kinds.setdefault(tuple(term for term in (*TERMS, "floor_rel_to_max") if limit.get(term)), []).append(limit)
    parts = []
    for terms in sorted(kinds, key=len):
        ranges = {term: _range([limit[term] for limit in kinds[terms]]) for term in terms}
        text = " + ".join(words.format(ranges[term]) for term, words in TERMS.items() if term in ranges) or "equal"
        floor = f" or of {ranges['floor_rel_to_max']} of the largest" if "floor_rel_to_max" in ranges else ""
        parts.append(f"{text}{floor} ({len(kinds[terms])})")
    return ", ".join(parts)


def _range(numbers: Sequence[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def versions() -> str:
    libraries = [f"{library} {version(library)}" for library in LIBRARIES]
    return ", ".join([f"Python {platform.python_version()}", *libraries, f"{platform.system()} {platform.machine()}"])


def digest(path: Path, facts: Mapping) -> str:
    """Of all that decides what is compared: a stored error of other vectors, or of other limits, says nothing of these."""
    parts = [path.read_bytes(), json.dumps(facts, sort_keys=True).encode()]
    if named := facts["params"].get("expected_file"):
        parts.append((path.parent / named).read_bytes())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
