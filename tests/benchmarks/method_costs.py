"""The table of relative costs that `bench run --dry-run` judges methods by which have not been run: bench/runs/method_costs.csv.

    python -m tests.benchmarks.method_costs                 # every method, an hour on one core
    python -m tests.benchmarks.method_costs lada engine     # these; the other rows stay

A run of each method on mini60-6x10, ten images of every class to learn from and ten to be scored, on one thread. Seconds of the
processor, not of the wall clock, and divided by what a loop of bench/runs/machine_speed.py takes: another machine gives nearly
the same numbers, also a busy one.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from platformdirs import user_cache_path

from bench.images.dataset import Folders
from bench.runs import launch, machine_speed, method_costs, plan
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.runs.run import Run
from bench.system import registry
from bench.system.phases import recorded

IMAGES = 10  # of every class


def measured(run: Run, folders: Folders) -> method_costs.Row:
    loops = machine_speed.loops_per_second(time.process_time)
    with tempfile.TemporaryDirectory() as out, recorded(time.process_time) as seconds:
        outcome = launch.carry_out(replace(run, out=Path(out)), folders)
    if outcome.reason:
        sys.exit(f"{run.method}: {outcome.reason}")
    length = {name: int(run.settings.get(name) or 0) for name in ("epochs", "iterations")}
    return method_costs.Row(run.method, seconds.spent["train"] * loops, seconds.spent["evaluate"] * loops, **length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=registry.names("method"))
    methods = parser.parse_args().methods
    request = Request(
        (method_costs.PROTOCOL,), tuple(methods), device="cpu", precision="float32", limit_train=IMAGES, limit_test=IMAGES
    )
    folders = Folders(data=Path("no-data"), cache=Path(os.environ.get("BENCH_CACHE") or user_cache_path("continual-clip-bench")))
    with Facts(folders, here=True) as facts:
        runs, _ = plan.build(request, facts)
    rows = method_costs.read()
    with launch.limited_threads(1):
        for run in runs:
            rows[run.method] = measured(run, folders)
            method_costs.write(rows)
            print(rows[run.method], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
