"""What methods cost compared with each other: a table that ships with the package, for plans of what has not been run yet.

Costs are in loops of bench/runs/machine_speed.py. `python -m tests.benchmarks.method_costs` measures them.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bench.system.files import write_atomically

FILE = Path(__file__).parent / "method_costs.csv"
PROTOCOL, TASKS, IMAGES = "mini60-6x10", 6, 600  # of what they were measured on: tasks, and images to learn from and to score
FIXED = 15_000  # loops for what every run does once: reading weights and data sets, writing results


@dataclass(frozen=True)
class Row:
    """One method."""

    method: str
    training: float  # loops
    scoring: float
    epochs: int  # of its recipe there; 0: it has none of that name
    iterations: int


def read() -> dict[str, Row]:
    """Method -> what it costs."""
    with open(FILE, encoding="utf-8", newline="") as file:
        rows = [
            Row(row["method"], float(row["training"]), float(row["scoring"]), int(row["epochs"]), int(row["iterations"]))
            for row in csv.DictReader(file)
        ]
    return {row.method: row for row in rows}


def write(rows: Mapping[str, Row]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    table.writeheader()
    for _, row in sorted(rows.items()):
        table.writerow(asdict(row) | {"training": f"{row.training:.3g}", "scoring": f"{row.scoring:.3g}"})
    write_atomically(FILE, text.getvalue())
