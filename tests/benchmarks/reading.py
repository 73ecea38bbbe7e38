"""How long commands that read take: processor time beyond importing pandas, in imports of pandas in the same process.

    python -m tests.benchmarks.reading      # a line for each

An import reads files and runs plain Python, as these commands do, so the ratio says little about the machine.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.results_folder import write_run

METHODS, TASKS, IMAGES = 50, 6, 60
REPEATS = 3
CALLS = {  # what is watched -> the command
    "bench report of 50 runs": "report fifty -o report.html",
    "bench table of 50 runs": "table fifty",
    "bench compare of 9 runs": "compare method-0 method-1 nine",
    "bench show of a method": "show zscl",
    "bench show of a protocol": "show mini60-6x10",
    "bench show of a metric": "show forgetting",
}
# so many imports of pandas at most: 10, 1.5, 2 and 1 seconds where such an import takes 0.4, less that import
AT_MOST = {"report": 24.0, "table": 2.75, "compare": 4.0, "show": 2.5}
TIMED = """
import sys, time
before = time.process_time()
import pandas
imported = time.process_time()
from bench.commands.main import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    assert not done.code, done.code
print((time.process_time() - imported) / (imported - before), file=sys.stderr)
"""


def make_runs(folder: Path) -> None:
    """50 methods with a run each, and three methods with three runs each; nothing was trained."""
    random = np.random.default_rng(0)
    for number in range(METHODS):
        accuracies = np.clip(random.uniform(0.4, 0.9) + random.normal(0, 0.05, (TASKS, TASKS)), 0, 1)
        method = "zero-shot" if number == 0 else f"method-{number}"
        write_run(folder / "fifty", accuracies.tolist(), method=method, images=IMAGES)
        for seed in range(3 if number < 3 else 0):
            varied = np.clip(accuracies + random.normal(0, 0.02, accuracies.shape), 0, 1)
            write_run(folder / "nine", varied.tolist(), method=f"method-{number}", seed=seed, images=IMAGES)


def ratio_of(words: list[str], folder: Path) -> float:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "BENCH_CACHE": str(folder / "cache"), "BENCH_QUIET": "1"}
    call = [sys.executable, "-c", TIMED, *words]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stderr.split()[-1])


def measure(repeats: int = REPEATS) -> dict[str, float]:
    """The ratio of every call, the smallest of several: a first call compiles Python files."""
    with tempfile.TemporaryDirectory() as name:
        make_runs(Path(name))
        return {what: min(ratio_of(call.split(), Path(name)) for _ in range(repeats)) for what, call in CALLS.items()}


if __name__ == "__main__":
    for what, ratio in measure().items():
        print(f"{what}: {ratio:.3g} imports of pandas, at most {AT_MOST[CALLS[what].split()[0]]:g}")
