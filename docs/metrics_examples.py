"""The worked examples of docs/metrics.md, each computed twice: by its arithmetic and by the harness.

    python docs/metrics_examples.py worked FILE.csv     every metric of an accuracy matrix of three tasks
    python docs/metrics_examples.py scores              calibration and novelty detection, on a few images
    python docs/metrics_examples.py empty               which metric is not available in which kind of run

It stops with an error if arithmetic and harness disagree.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.results import worked_examples
from bench.results.foreign import accuracy_files
from bench.results.metrics import METRICS, of_run
from bench.results.run_data import CLASS_INCREMENTAL, OWN_CANDIDATES, TASK_AGNOSTIC, TASK_INCREMENTAL, RunData


def worked(path: Path) -> list[list[str]]:
    """A row for each metric: name, direction, its arithmetic in cells, the same in numbers, the value."""
    (one,) = accuracy_files.read(path)
    if one.matrix.shape != (3, 3) or one.images is None or one.baseline is None:
        raise BenchError(f"{path}: three tasks, their test images and the zero-shot accuracies are needed")
    found = worked_examples.of_matrix(one.matrix, one.images, one.baseline)
    return [[name, better(name), example.cells, example.numbers, f"{example.value:.2f}"] for name, example in found.items()]


def scores() -> list[list[str]]:
    """Calibration of four predictions, novelty detection among five images: name, direction, arithmetic, value."""
    names = ("ece", "ece_batch32", "auroc", "aupr", "fpr95")
    found = {name: worked_examples.held_against_the_harness(name) for name in names}
    return [[name, better(name), example.numbers, f"{example.value:.2f}"] for name, example in found.items()]


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
