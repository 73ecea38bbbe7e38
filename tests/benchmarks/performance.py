"""The tables of docs/performance.md: measured and kept in tests/benchmarks/measured/, shown with --show.

    python -m tests.benchmarks.performance machine     # what they were measured on
    python -m tests.benchmarks.performance phases      # where the time of each method goes, and how far it is from its floor
    python -m tests.benchmarks.performance growth      # seconds per task against the number of classes seen
    python -m tests.benchmarks.performance speed-ups   # before and after
"""

import argparse
import csv
import io
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from platformdirs import user_cache_path

from bench import backbone as backbones
from bench import launch, plan, profiling, registry
from bench.arithmetic import matrix_rate
from bench.dataset import Folders
from bench.evaluation import candidate_sets, evaluate
from bench.files import write_atomically
from bench.phases import PHASES
from bench.randomness import Draws
from bench.stream import Stream
from tests.benchmarks import test_prompt_length, test_vaes_together
from tests.benchmarks.frozen_methods import cached_stream, measure
from tests.benchmarks.measuring import MEASURED, show_table
from tests.benchmarks.side_by_side import fastest_of

CPU = torch.device("cpu")
PROTOCOL = "mini60-6x10"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header, rows
GROWING, CLASSES = "tinyimagenet-20x10", (10, 20, 50, 100, 200)
GROWING_METHODS = ("zero-shot", "simplecil", "ranpac", "rail-primal", "rail-dual", "clip-adapter", "coop", "clap", "cgil")
TRAIN, TEST, STEPS = 20, 5, 6  # features of every class; steps of every training loop that are made


def machine() -> Table:
    rate = matrix_rate(CPU) / 1e9
    facts = [
        ["processor", profiling.cpu_model()],
        ["system", f"{platform.system()} {platform.machine()}"],
        ["threads", torch.get_num_threads()],
        ["torch", torch.__version__.split("+")[0]],
        ["product of two float32 matrices of 1024 rows", f"{rate:.0f} GFLOP/s"],
    ]
    return ["machine", ""], facts


def phases() -> Table:
    """Features are encoded where a method is the first to ask for them."""
    runs, _ = plan.build([PROTOCOL], registry.names("method"), [0], [0], [], "mini", None, "cpu", None, None, Path())
    found, profiles, failures = profiling.profile(runs, _folders(), torch.get_num_threads())
    rows = []
    for one in profiles:
        floor = sum(one.floor(found.rate).values())
        shares = [f"{100 * one.seconds[phase] / one.total:.0f} %" if one.seconds[phase] else "-" for phase in PHASES]
        rows.append([one.run.method_name, f"{one.total:.1f}", f"{floor:.2f}", f"{one.total / floor:.0f}", *shares])
    if failures:
        raise SystemExit("\n".join(failures))
    return ["method", "seconds", "floor (s)", "seconds / floor", *PHASES], rows


def growth() -> Table:
    """Learning and scoring of a task, and how it grows from 100 to 200 classes: 1 is proportional to the classes."""
    backbone = backbones.load("mini", None, "cpu")
    stream = cached_stream(backbone, GROWING, 20, TRAIN, TEST)
    rows = []
    for name in GROWING_METHODS:
        timing = measure(name, backbone, stream, GROWING, STEPS)
        whole = [learning + scoring for learning, scoring in zip(timing.learning, timing.scoring)]
        places = [seen // 10 - 1 for seen in CLASSES]
        # one task is short: the mean over those around it is steadier
        means = [sum(part) / len(part) for part in (whole[max(0, place - 1) : place + 2] for place in places)]
        power = torch.tensor(means[-1] / means[-2]).log2()
        rows.append([name, *(f"{seconds:.3g}" for seconds in means), f"{power:.1f}"])
    return ["method", *(f"{n} classes" for n in CLASSES), "power"], rows


def speed_ups() -> Table:
    cifar = registry.load("dataset", "cifar100").info.class_names
    mini60 = registry.load("dataset", "mini60").info.class_names
    rounds = {"at 77 tokens": 1, "at their own length": 2}
    mini, large = backbones.load("mini", None, "cpu"), backbones.load("ViT-B-16", "none", "cpu")
    rows = []
    for what, found in (
        ("prompts of 60 classes, mini CLIP, forward and backward", test_prompt_length.measured(mini, mini60, rounds)),
        ("prompts of 100 classes, ViT-B/16's size, forward and backward", test_prompt_length.measured(large, cifar, rounds)),
    ):
        rows.append([what, *_row(found, "at 77 tokens", "at their own length")])
    vaes = test_vaes_together.measured(CPU, epochs=2)
    rows.append(["auto-encoders of 20 classes x 500 features x 512, two epochs", *_row(vaes, "one by one", "together")])
    rows.append(
        ["evaluation after 6 of 10 tasks, 100 classes x 100 images", *_row(_evaluation(mini), "each set apart", "one product")]
    )
    rows.append([f"run of clip-adapter on {PROTOCOL}", *_row(_store(), "empty store", "full store")])
    return ["what", "before", "after", "seconds before", "seconds after", "times faster"], rows


def _row(found: dict[str, float], before: str, after: str) -> list[str]:
    return [before, after, f"{found[before]:.3g}", f"{found[after]:.3g}", f"{found[before] / found[after]:.1f}"]


def _evaluation(backbone: backbones.Backbone) -> dict[str, float]:
    stream = cached_stream(backbone, "cifar100-10x10", 10, 1, 100)
    method_class = registry.load("method", "continual-clip")
    method = method_class(method_class.Settings(), backbone, stream.scenario, Draws("speed", "continual-clip", 0)).eval()
    last = len(stream.tasks) // 2  # half of the tasks are still to come: these have the most candidate sets
    return fastest_of(
        {"each set apart": lambda: _apart(method, stream, last), "one product": lambda: list(evaluate(method, stream, last))}
    )


@torch.inference_mode()
def _apart(method, stream: Stream, last: int) -> None:
    """Every candidate set of every task scored by itself."""
    for task in stream.tasks:
        for classes in candidate_sets(stream, last, task.index, method.zero_shot).values():
            for batch in task.test.batches(method.inputs, 500):
                log_probability = method.logits(batch, classes).log_softmax(dim=-1)
                log_probability.max(dim=-1), -(log_probability.exp() * log_probability).sum(dim=-1)


def _store() -> dict[str, float]:
    """The same run twice: with nothing in the feature store, and with what it left there."""
    with tempfile.TemporaryDirectory() as folder:
        runs, _ = plan.build([PROTOCOL], ["clip-adapter"], [0], [0, 1], [], "mini", None, "cpu", None, None, Path(folder))
        folders = Folders(_folders().data, _folders().cache, Path(folder) / "features")
        launch.carry_out(runs[0], _folders(), _silent)  # images are drawn, modules are imported
        launch.forget(runs)
        taken = [_seconds(lambda run=run: launch.carry_out(run, folders, _silent)) for run in runs]
    return dict(zip(("empty store", "full store"), taken))


def _silent(run, done: int, what: str) -> None:
    pass


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _folders() -> Folders:
    cache = user_cache_path("continual-clip-bench")
    return Folders(cache / "no-data", cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = {"machine": machine, "phases": phases, "growth": growth, "speed-ups": speed_ups}
    parser.add_argument("section", choices=sections)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="what was measured last, instead of measuring")
    chosen = parser.parse_args()
    kept = MEASURED / f"{chosen.section}.csv"
    if not chosen.show:
        with launch.limited_threads(chosen.threads):
            header, rows = sections[chosen.section]()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        write_atomically(kept, text.getvalue())
    show_table(kept)


if __name__ == "__main__":
    main()
