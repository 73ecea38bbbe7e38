"""A worked example of every metric: its arithmetic carried out by itself and held against what the harness computes.

Metrics of accuracies share one matrix, a stream of three tasks (docs/examples/three-tasks.csv); those of single images have a
few images each. Where arithmetic and harness disagree there is no example but an error. Of single images only tests and the page
ask the harness: scikit-learn, which it asks, takes seconds to import.
"""

import ast
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.errors import BenchError
from bench.results.formulas import OF_MATRICES
from bench.results.metrics import METRICS
from bench.results.run_data import CLASS_INCREMENTAL, RunData

MATRIX = np.array([[0.90, 0.72, 0.50], [0.92, 0.70, 0.56], [0.80, 0.74, 0.86]])  # after task 1, 2, 3 on task 1, 2, 3
ZERO_SHOT = np.array([0.60, 0.66, 0.55])
IMAGES = np.array([100, 100, 200])
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@dataclass(frozen=True)
class Example:
    """Of one metric; the value is in percent."""

    cells: str  # the formula in cells; empty for metrics of single images
    numbers: str  # the same in numbers
    value: float
    given: str = ""  # the images, of metrics of single images


@dataclass(frozen=True)
class Images:
    """Test images of a small stream, and the arithmetic of a metric of them, in fractions."""

    given: str
    numbers: str
    run: RunData


def of(name: str) -> Example:
    """The example of a metric.

    >>> of("bwt").numbers, of("bwt").value
    ('((80 - 90) + (74 - 70)) / 2', -3.0)
    """
    if name in OF_MATRICES:
        return of_matrix(MATRIX, IMAGES, ZERO_SHOT)[name]
    images = OF_IMAGES[name]
    return Example("", images.numbers, rounded(100 * value_of(images.numbers)), images.given)


def held_against_the_harness(name: str) -> Example:
    """The same, or an error if the harness says otherwise."""
    example = of(name)
    if images := OF_IMAGES.get(name):
        agreed(name, 100 * value_of(images.numbers), 100 * METRICS[name].function(images.run))
    return example


def of_matrix(matrix: np.ndarray, images: np.ndarray, zero_shot: np.ndarray) -> dict[str, Example]:
    """The metrics of accuracies on a matrix of three tasks: (3, 3) and (3,) as fractions, (3,) test images."""
    same = dict.fromkeys(("seen", "task", "all", "future"), matrix)
    every_moment = np.tile(zero_shot, (3, 1))  # the same classes compete at every moment
    run = RunData(CLASS_INCREMENTAL, same, images, baseline=zero_shot, zero_shot=every_moment)
    numbers = {f"A{t + 1}{k + 1}": f"{100 * matrix[t, k]:g}" for t in range(3) for k in range(3)}
    numbers |= {f"n{k + 1}": f"{images[k]:g}" for k in range(3)}
    numbers |= {f"b{k + 1}": f"{100 * zero_shot[k]:g}" for k in range(3)}
    found = {}
    for name, formula in OF_MATRICES.items():
        arithmetic = re.sub(r"\b[Anb]\d+\b", lambda cell: numbers[cell[0]], formula.cells)
        value = agreed(name, value_of(arithmetic), 100 * METRICS[name].function(run))
        found[name] = Example(formula.cells, arithmetic, value)
    return found


def agreed(name: str, by_hand: float, measured: float) -> float:
    """What both say, rounded."""
    if not abs(by_hand - measured) < 1e-9:
        raise BenchError(f"{name}: the arithmetic gives {by_hand}, the harness {measured}")
    return rounded(measured)


def rounded(percent: float) -> float:
    """To two digits; no -0.0."""
    return round(percent, 2) + 0.0


def value_of(arithmetic: str) -> float:
    """The value of + - * / and max over numbers.

    >>> value_of("(max(90, 92) - 80) / 2")
    6.0
    """

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp():
                return OPERATORS[type(node.op)](value(node.left), value(node.right))
            case ast.Call(func=ast.Name(id="max")):
                return max(map(value, node.args))
        raise BenchError(f"{arithmetic!r} is not plain arithmetic")

    return value(ast.parse(arithmetic, mode="eval").body)


# -- single images ----------------------------------------------------------------------------------------------


def _stream(tasks: int, samples: Mapping[str, np.ndarray]) -> RunData:
    return RunData(CLASS_INCREMENTAL, {}, np.full(tasks, np.nan), samples)


def _predictions(confidences: list[list[float]], right: list[list[bool]]) -> RunData:
    """Images of each task after the last one: how sure the predictions are, and which are right."""
    last, samples = len(right) - 1, {}
    for k, (sure, hits) in enumerate(zip(confidences, right)):
        samples[f"confidence/{last}/{k}/seen"] = np.array(sure)
        samples[f"prediction/{last}/{k}/seen"] = np.array(hits, dtype=int)
        samples[f"labels/{k}"] = np.ones(len(hits), dtype=int)
    return _stream(len(right), samples)


def _seen_and_novel(name: str, seen: list[float], novel: list[float]) -> RunData:
    """Images of the first of two tasks and of the second, after the first."""
    return _stream(2, {f"{name}/0/0/seen": np.array(seen), f"{name}/0/1/seen": np.array(novel)})


_PREDICTED = "four predictions, confidences 0.95, 0.95, 0.55, 0.55, the second is wrong"
_CALIBRATION = {
    "ece": Images(
        _PREDICTED,
        "2 / 4 * (0.95 - 1 / 2) + 2 / 4 * (2 / 2 - 0.55)",
        _predictions([[0.95, 0.95, 0.55, 0.55]], [[True, False, True, True]]),
    ),
    "ece_batch32": Images(
        f"{_PREDICTED}; the first is of task 1, the others are of task 2",
        "((1 / 1 - 0.95) + (1 / 3 * (0.95 - 0 / 1) + 2 / 3 * (2 / 2 - 0.55))) / 2",
        _predictions([[0.95], [0.95, 0.55, 0.55]], [[True], [False, True, True]]),
    ),
}
_SCORES = {  # end of a metric's name -> (stored name, scores of seen images, of novel ones); their order is always the same
    "": ("energy", [3.0, 2.0, 1.0], [1.5, 0.5]),
    "_max_softmax": ("confidence", [0.9, 0.8, 0.6], [0.7, 0.5]),
    "_entropy": ("entropy", [0.1, 0.4, 0.9], [0.6, 1.3]),
}
_NOVELTY = {"auroc": "(2 + 2 + 1) / (3 * 2)", "aupr": "(1 / 1 + 2 / 2 + 3 / 4) / 3", "fpr95": "1 / 2"}
OF_IMAGES = _CALIBRATION | {
    f"{metric}{suffix}": Images(
        f"three seen images, {stored} {', '.join(map(str, seen))}; two novel ones, {', '.join(map(str, novel))}",
        numbers,
        _seen_and_novel(stored, seen, novel),
    )
    for suffix, (stored, seen, novel) in _SCORES.items()
    for metric, numbers in _NOVELTY.items()
}
