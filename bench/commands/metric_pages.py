"""What `bench show` says of a metric: its formula, which classes compete, and an example that is computed."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from bench.results import worked_examples
from bench.results.formulas import FORMULAS
from bench.results.metrics import Metric

NEEDS = {
    "records": "accuracies (records.csv)",
    "samples": "scores of single images (samples.safetensors)",
    "zero-shot": "accuracies, and the run of zero-shot on the same stream",
}


def page(name: str, metric: Metric) -> str:
    """A metric of that name."""
    formula, example = FORMULAS[name], worked_examples.of(name)
    facts = [
        ("in tables", metric.title),
        ("unit", f"{metric.unit}, {'higher' if metric.higher_is_better else 'lower'} is better"),
        ("formula", formula.text),
        *_rows("where", formula.meanings),
        *_rows("among", formula.among),
        ("needs", NEEDS[metric.needs]),
    ]
    lines = [line for line in (example.cells, example.numbers, f"{example.value:.2f} percent") if line]
    parts = [
        f"metric {name}: {metric.meaning}",
        tabulate(facts, tablefmt="plain", disable_numparse=True),
        "",
        f"example, {example.given}:" if example.given else "example, a stream of three tasks, in percent:",
        *([] if example.given else [_matrix()]),
        "",
        *(f"  {sign} {line}" for sign, line in zip([" ", "=", "="], lines)),
        "",
        "docs/metrics.md has what papers call it, where they disagree, and when it is not available",
    ]
    return "\n".join(parts) + "\n"


def _rows(name: str, said: Sequence[str]) -> list[tuple[str, str]]:
    """The name stands before the first line alone."""
    return list(zip([name, *[""] * len(said)], said))


def _matrix() -> str:
    """What the example's A, b and n are."""
    found = np.vstack([worked_examples.ZERO_SHOT, worked_examples.MATRIX]) * 100
    names = ["zero-shot CLIP, b", *(f"after task {t + 1}, A[{t + 1}, k]" for t in range(3))]
    rows = [[name, *(f"{value:g}" for value in row)] for name, row in zip(names, found)]
    rows.append(["test images, n", *(f"{number}" for number in worked_examples.IMAGES)])
    return tabulate(rows, ["", "k = 1", "k = 2", "k = 3"], tablefmt="simple", colalign=("left", "right", "right", "right"))
