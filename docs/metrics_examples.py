"""The worked examples of docs/metrics.md, each computed twice: by its arithmetic and by the harness.

    python docs/metrics_examples.py worked FILE.csv     every metric of an accuracy matrix of three tasks
    python docs/metrics_examples.py scores              calibration and novelty detection, on a few images
    python docs/metrics_examples.py empty               which metric is not available in which kind of run

It stops with an error if arithmetic and harness disagree.
"""

import argparse
import ast
import operator
import re
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.results import calibration, novelty
from bench.results.foreign import accuracy_files
from bench.results.metrics import METRICS, of_run
from bench.results.run_data import CLASS_INCREMENTAL, OWN_CANDIDATES, TASK_AGNOSTIC, TASK_INCREMENTAL, RunData

# T = 3; A32 is the accuracy on task 2 after task 3, n2 the test images of task 2, b2 zero-shot CLIP's accuracy on it
WORKED = {
    "last": "(A31 + A32 + A33) / 3",
    "last_samples": "(n1 * A31 + n2 * A32 + n3 * A33) / (n1 + n2 + n3)",
    "last_task": "(A31 + A32 + A33) / 3",
    "avg": "(A11 + (A21 + A22) / 2 + (A31 + A32 + A33) / 3) / 3",
    "avg_samples": "(A11 + (n1 * A21 + n2 * A22) / (n1 + n2) + (n1 * A31 + n2 * A32 + n3 * A33) / (n1 + n2 + n3)) / 3",
    "avg_task": "(A11 + (A21 + A22) / 2 + (A31 + A32 + A33) / 3) / 3",
    "avg_cells": "(A11 + A21 + A22 + A31 + A32 + A33) / 6",
    "bwt": "((A31 - A11) + (A32 - A22)) / 2",
    "bwt_all_moments": "((A21 - A11) + (A31 - A11) + (A32 - A22)) / 3",
    "forgetting": "((max(A11, A21) - A31) + (A22 - A32)) / 2",
    "forgetting_from_start": "((max(A11, A21) - A31) + (max(A12, A22) - A32)) / 2",
    "forgetting_nonnegative": "((max(A11, A21, A31) - A31) + (max(A22, A32) - A32)) / 2",
    "forward_transfer": "((A12 - b2) + (A23 - b3)) / 2",
    "ci_transfer": "((A12 + A13) / 2 + A23) / 2",
    "ci_transfer_future": "((A12 + A13) / 2 + A23) / 2",
    "ci_transfer_task": "((A12 + A13) / 2 + A23) / 2",
    "column_mean_transfer": "(A12 + (A13 + A23) / 2) / 2",
    "flat_mean_transfer": "(A12 + A13 + A23) / 3",
    "image_pooled_transfer": "((n2 * A12 + n3 * A13) / (n2 + n3) + A23) / 2",
    "mtil_transfer": "(A12 + (A13 + A23) / 2) / 2",
    "mtil_avg": "(A11 + A12 + A13 + A21 + A22 + A23 + A31 + A32 + A33) / 9",
    "mtil_last": "(A31 + A32 + A33) / 3",
    "agnostic_transfer": "(A12 + (A13 + A23) / 2) / 2",
    "zero_shot_transfer": "(b2 + (b3 + b3) / 2) / 2",
    "agnostic_avg": "(A11 + A12 + A13 + A21 + A22 + A23 + A31 + A32 + A33) / 9",
}
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


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


def worked(path: Path) -> list[list[str]]:
    """A row for each metric: name, direction, its arithmetic in cells, the same in numbers, the value."""
    (one,) = accuracy_files.read(path)
    if one.matrix.shape != (3, 3) or one.images is None or one.baseline is None:
        raise BenchError(f"{path}: three tasks, their test images and the zero-shot accuracies are needed")
    same = dict.fromkeys(("seen", "task", "all", "future"), one.matrix)
    zero_shot = np.tile(one.baseline, (3, 1))  # the same classes compete at every moment
    measured = of_run(RunData(CLASS_INCREMENTAL, same, one.images, baseline=one.baseline, zero_shot=zero_shot), WORKED)
    numbers = {f"A{t + 1}{k + 1}": f"{100 * one.matrix[t, k]:g}" for t in range(3) for k in range(3)}
    numbers |= {f"n{k + 1}": f"{one.images[k]:g}" for k in range(3)}
    numbers |= {f"b{k + 1}": f"{100 * one.baseline[k]:g}" for k in range(3)}
    rows = []
    for name, formula in WORKED.items():
        arithmetic = re.sub(r"\b[Anb]\d+\b", lambda cell: numbers[cell[0]], formula)
        rows.append([name, better(name), formula, arithmetic, agreed(name, value_of(arithmetic), 100 * measured[name])])
    return rows


def scores() -> list[list[str]]:
    """Calibration of four predictions, novelty detection among five images: name, direction, arithmetic, value."""
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    seen, novel = np.array([3.0, 2.0, 1.0]), np.array([1.5, 0.5])
    found = {  # arithmetic over fractions, and what the harness says
        "ece": ("2 / 4 * (0.95 - 1 / 2) + 2 / 4 * (2 / 2 - 0.55)", calibration.ece(confidence, correct)),
        "auroc": ("(2 + 2 + 1) / (3 * 2)", novelty.auroc(seen, novel)),
        "aupr": ("(1 / 1 + 2 / 2 + 3 / 4) / 3", novelty.aupr(seen, novel)),
        "fpr95": ("1 / 2", novelty.fpr95(seen, novel)),
    }
    return [[name, better(name), text, agreed(name, 100 * value_of(text), 100 * value)] for name, (text, value) in found.items()]


def agreed(name: str, by_hand: float, measured: float) -> str:
    if abs(by_hand - measured) > 1e-9:
        raise BenchError(f"{name}: the arithmetic gives {by_hand}, the harness {measured}")
    return f"{round(measured, 2) + 0.0:.2f}"


def better(name: str) -> str:
    return "higher" if METRICS[name].higher_is_better else "lower"


def empty() -> list[list[str]]:
    """A row for each metric that some kind of run does not have: a dash where it is not available."""
    every = {(t, k) for t in range(3) for k in range(3)}
    learned = {(t, k) for t, k in every if k <= t}
    runs = {
        "class-incremental": _run(CLASS_INCREMENTAL, every),
        "method without text side": _run(CLASS_INCREMENTAL, learned),
        "joint method": _run(CLASS_INCREMENTAL, {cell for cell in learned if cell[0] == 2}),
        "stream of one task": _run(CLASS_INCREMENTAL, {(0, 0)}, tasks=1),
        "task-incremental": _run(TASK_INCREMENTAL, every),
        "task-agnostic": _run(TASK_AGNOSTIC, every),
    }
    found = {kind: of_run(run) for kind, run in runs.items()}
    rows = [["metric", *runs]]
    for name in METRICS:
        cells = ["-" if values[name] is None else "yes" for values in found.values()]
        if "-" in cells and not re.search(r"_(max_softmax|entropy)$", name):
            rows.append([name, *cells])
    return rows


def _run(scenario: str, cells: set[tuple[int, int]], tasks: int = 3) -> RunData:
    """A run in which just these cells were scored, among the candidates that the scenario has (bench/learning/evaluation.py)."""
    matrices = {name: np.full((tasks, tasks), np.nan) for name in ("seen", "task", "all", "future")}
    samples = {f"labels/{k}": np.zeros(2, dtype=int) for k in range(tasks)}
    for t, k in cells:
        for name in _candidates(scenario, k <= t):
            matrices[name][t, k] = 0.5
    # among the seen classes future images are scored too, for novelty detection, whatever the method
    moments = {t for t, _ in cells}
    for t, k in cells | {(t, k) for t in moments for k in range(tasks) if scenario == CLASS_INCREMENTAL}:
        for score in ("prediction", "confidence", "entropy", "energy"):
            samples[f"{score}/{t}/{k}/{OWN_CANDIDATES[scenario][0]}"] = np.array([0, 1]) / 2
    zero_shot = np.full((tasks, tasks), 0.5)
    return RunData(scenario, matrices, np.full(tasks, 2.0), samples, baseline=zero_shot[0], zero_shot=zero_shot)


def _candidates(scenario: str, learned: bool) -> set[str]:
    if scenario == CLASS_INCREMENTAL:
        return {"seen", "task"} if learned else {"all", "future", "task"}
    return set(OWN_CANDIDATES[scenario][:1])


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, [":---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["worked", "scores", "empty"])
    parser.add_argument("file", type=Path, nargs="?", default=Path(__file__).parent / "examples" / "three-tasks.csv")
    chosen = parser.parse_args()
    if chosen.what == "worked":
        rows = [
            [f"`{name}`", which, f"`{formula}`", f"`{numbers}`", value]
            for name, which, formula, numbers, value in worked(chosen.file)
        ]
        print(markdown(["metric", "better", "in cells", "in numbers", "percent"], rows))
    elif chosen.what == "scores":
        rows = [[f"`{name}`", which, f"`{text}`", value] for name, which, text, value in scores()]
        print(markdown(["metric", "better", "arithmetic", "percent"], rows))
    else:
        header, *rows = empty()
        print(markdown(header, [[f"`{row[0]}`", *row[1:]] for row in rows]))


if __name__ == "__main__":
    main()
