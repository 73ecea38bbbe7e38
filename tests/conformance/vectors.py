"""Stored numbers of an author's run, and the rule by which ours are compared with them."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Vectors:
    """One .npz file with its part of params.json.

    `vectors["name"]` is a stored array, `vectors.tensor("name")` the same as float32; `params` are the run's settings.
    `check` takes everything a test has computed and compares it with every expected array.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], methods: Sequence[str] = ()):
        self.path = path
        self.methods = methods  # those that are compared, as they are registered
        with np.load(path, allow_pickle=False) as file:
            self.arrays = dict(file)
        self.facts = facts
        self.params = _resolved(facts["params"], self.arrays)
        self.computed_in: str = facts["dtype"]
        self.ratios: dict[str, float] = {}  # array -> largest error / limit, filled by `check`
        self.limits: dict[str, Mapping[str, float]] = {}  # array -> what its limit is made of

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name].astype(np.float32))

    @property
    def tasks(self) -> list[list[int]]:
        """The fixture's classes of each task in learning order. A stream need not have all of the fixture's classes.

        Files state them task by task (the row of a smaller task may end in -1), or in one row with the sizes of the tasks.
        Where there is a `class_order` too, only the sizes count of the other, which may be all that is stated.
        """
        names = ("tasks", "task_classes", "task_classes_flat", "class_order")
        places = (self.params.get("tasks"), *(self.arrays.get(name) for name in names))
        stated = next(place for place in places if place is not None)
        in_one_row = np.ravel(self.arrays.get("task_sizes", self.params.get("task_sizes"))).tolist()
        sizes = [sum(c >= 0 for c in row) for row in stated] if np.ndim(stated[0]) else in_one_row
        flat = [int(c) for row in stated for c in np.atleast_1d(row) if c >= 0]
        order = self.arrays["class_order"].tolist() if "class_order" in self else flat
        ends = np.cumsum(sizes).tolist()
        assert len(set(order)) == len(order) >= ends[-1], f"{self.path}: tasks of {sizes} classes, but the order is {order}"
        return [order[end - size : end] for end, size in zip(ends, sizes)]

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The arrays whose names start with a prefix, without it."""
        return {name[len(prefix) :]: self.tensor(name) for name in self.arrays if name.startswith(prefix)}

    def expected(self, dtype: str = "float32", faithful: bool = True) -> Iterator[tuple[str, Mapping[str, float]]]:
        """Arrays to compare, with their limits, for an implementation that computes in `dtype`.

        `faithful=False` leaves out what only a reproduced defect of the released code can match.
        """
        limits = self.facts["tolerances"]
        if dtype != self.facts["dtype"]:
            limits = self.facts.get(f"tolerances_{dtype}", limits)
        for name in self.arrays:
            if _first_match(name, self.facts["not_compared"]) or _first_match(name, self.facts["inputs"]):
                continue
            if not faithful and _first_match(name, self.facts["faithful_only"]):
                continue
            pattern = _first_match(name, limits)
            if pattern is not None:
                yield name, limits[pattern]
            elif limits is self.facts["tolerances"]:
                raise AssertionError(f"{self.path}: params.json says nothing about array {name}")

    def check(self, actual: Mapping[str, Any], dtype: str = "float32", faithful: bool = True) -> None:
        """Compare every expected array; a missing one is an error too."""
        problems, self.computed_in = [], dtype
        for name, limit in self.expected(dtype, faithful):
            if name not in actual:
                problems.append(f"{name}: not computed by the test")
                continue
            try:
                self.compare(name, actual[name], self.arrays[name], limit)
            except ValueError as error:
                problems.append(f"{name}: {error}")
                continue
            if not self.ratios[name] <= 1:
                problems.append(f"{name}: error is {self.ratios[name]:.3g} times its limit")
        assert not problems, f"{self.path}:\n  " + "\n  ".join(problems)
        assert self.ratios, f"{self.path}: nothing was compared"

    def compare(self, name: str, actual: Any, expected: np.ndarray, limit: Mapping[str, float]) -> None:
        """Note how far apart the two are; whether that is too far, `check` says."""
        self.limits[name] = limit
        self.ratios[name] = error_ratio(actual, expected, limit)


def error_ratio(actual: Any, expected: np.ndarray, limit: Mapping[str, float]) -> float:
    """Largest |actual - expected| / limit over all elements, where

        limit = abs + rel_to_max * M + rel * max(|expected|, floor_rel_to_max * M),   M = max of the finite |expected|

    and missing terms are 0.
    NaN equals NaN, infinity the same infinity, and with a limit of 0 only equal numbers pass.

    >>> error_ratio([1.0, 2.0], np.array([1.0, 2.5]), {"abs": 1.0})
    0.5
    """
    actual = actual.detach().cpu().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    if actual.shape != expected.shape:
        raise ValueError(f"shape {actual.shape} instead of {expected.shape}")
    if expected.dtype.kind in "US":
        return 0.0 if (actual == expected).all() else float("inf")
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    size = np.maximum(np.abs(expected), limit.get("floor_rel_to_max", 0.0) * largest)
    allowed = limit.get("abs", 0.0) + limit.get("rel_to_max", 0.0) * largest + limit.get("rel", 0.0) * size
    equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(equal, 0.0, np.abs(actual - expected) / allowed)
    return float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0))


def _first_match(name: str, patterns) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def _resolved(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Replace names of arrays ("hp_lr") by what they hold."""
    if isinstance(value, dict):
        return {key: _resolved(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, arrays) for item in value]
    if isinstance(value, str) and value.startswith("hp_") and value in arrays:
        return arrays[value].tolist()
    return value
