"""The tables of docs/performance.md: measured and kept in tests/benchmarks/measured/, shown with --show.

    python -m tests.benchmarks.performance machine      # what they were measured on
    python -m tests.benchmarks.performance operations   # what every method computes; need not be alone on the machine
    python -m tests.benchmarks.performance phases       # where the time of every method goes, and how far it is from its floor
    python -m tests.benchmarks.performance rest         # what lies between a run and its floor, where that is far
    python -m tests.benchmarks.performance cgil         # the same of cgil's two kinds of training, at the size of ViT-B/16
    python -m tests.benchmarks.performance growth       # seconds per task against the number of classes seen
    python -m tests.benchmarks.performance speed-ups    # before and after
"""

import argparse
import csv
import dataclasses
import io
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from platformdirs import user_cache_path

from bench.clip import backbone as backbones
from bench.images.dataset import Folders
from bench.runs import launch, plan
from bench.runs.facts import Facts
from bench.runs.profiling import profile
from bench.runs.profiling.operations import OperationCounter, matrix_rate
from bench.runs.request import Request
from bench.runs.run import Run
from bench.streams import names
from bench.streams.stream import Stream
from bench.system import registry
from bench.system.files import write_atomically
from bench.system.phases import PHASES
from bench.system.processor import cpu_model
from bench.system.randomness import Draws
from methods.cgil.alignment import ClassPrompts
from methods.cgil.vae import VAEs
from tests.benchmarks import distance_from_floor, pixel_methods, speed_ups
from tests.benchmarks.frozen_methods import cached_stream, measure
from tests.benchmarks.measuring import MEASURED, show_table

CPU = torch.device("cpu")
PROTOCOL, IMAGES = "mini60-6x10", 10  # of every class, for training and for testing
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # header, rows
Wanted = Callable[[str], bool]  # is this row to be measured?
GROWING, CLASSES = "tinyimagenet-20x10", (10, 20, 50, 100, 200)
PER_IMAGE = ("attriclip", "clap-attriclip", "cocoop")  # read a text for every pair of an image and a class
TRAIN, TEST = 20, 2  # features of every class
CONCEPTS = 20  # of every class, for clg-cbm
FAR_FROM_THE_FLOOR = (
    "cgil", "clap", "clap-coop-novi", "clap-novi", "clg-cbm", "coop", "linear-probe", "rail-dual", "rail-primal", "ranpac",
)  # fmt: skip
STEPS, STEPS_PER_IMAGE = 6, 2  # of every training loop that are made


def machine(wanted: Wanted) -> Table:
    rate = matrix_rate(CPU) / 1e9
    facts = [
        ["processor", cpu_model()],
        ["system", f"{platform.system()} {platform.machine()}"],
        ["threads", str(torch.get_num_threads())],
        ["torch", torch.__version__.split("+")[0]],
        ["product of two float32 matrices of 1024 rows", f"{rate:.0f} GFLOP/s"],
    ]
    return ["machine", "value"], facts


def operations(wanted: Wanted) -> Table:
    """Floating-point operations of a run: a number of the method, not of the machine."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for run in _runs(Path(folder) / "results"):
            if not wanted(run.method):
                continue
            counted = profile.counted(run, dataclasses.replace(_folders(), features_apart=Path(folder) / "features"))
            encoding = counted["encode"]
            rows.append([run.method, str(int(encoding)), str(int(sum(counted.values()) - encoding))])
            print(*rows[-1], file=sys.stderr, flush=True)
    return ["method", "encoding", "own"], rows


def phases(wanted: Wanted) -> Table:
    """All methods one after another, as `bench run --methods all`: images are encoded where a method is the first to ask."""
    found, profiles, failures = profile.profile(_runs(Path()), _folders(), torch.get_num_threads(), count=False)
    counted = _counted_before()
    rows = []
    for one in profiles:
        floor = sum(dataclasses.replace(one, operations=counted.get(one.run.method, {})).floor(found.rate).values())
        # a method that only compares features has next to nothing to compute
        ratio = f"{one.total / floor:.0f}" if floor >= 0.01 else "-"
        rows.append([one.run.method, f"{one.total:.1f}", f"{floor:.2f}" if floor else "-", ratio, *_shares(one.seconds)])
    whole = {phase: sum(one.seconds[phase] for one in profiles) for phase in PHASES}
    rows.append(["all", f"{sum(whole.values()):.1f}", "", "", *_shares(whole)])
    print(*failures, sep="\n", file=sys.stderr)
    return ["method", "seconds", "floor (s)", "seconds / floor", *PHASES], rows


def rest(wanted: Wanted) -> Table:
    """Of runs that are far from their floor: what the time is made of."""
    rows = []
    rate = matrix_rate(CPU)
    with tempfile.TemporaryDirectory() as folder:
        for run in _runs(Path(folder), f"{PROTOCOL}+tasks=2"):  # the profiler keeps every operation: a whole run of cgil is 20 GB
            if run.method in FAR_FROM_THE_FLOOR and wanted(run.method):
                own = profile.counted(run, _folders())  # encodes what the next ones find
                found = distance_from_floor.of_a_run(run, _folders())
                rows.append(found.row(run.method, (sum(own.values()) - own["encode"]) / rate))
                print(*rows[-1], file=sys.stderr, flush=True)
    return ("method", *distance_from_floor.HEADER), rows


def parts_of_cgil(wanted: Wanted) -> Table:
    """What cgil's training is made of at the size of ViT-B/16, on random features: its recipe for CIFAR-100, cut short."""
    backbone = backbones.load("ViT-B-16", "none", "cpu")
    [task] = cached_stream(backbone, "cifar100-1x100", 1, TRAIN, TEST).tasks
    scenario = names.find("cifar100-1x100").scenario(0)
    settings = registry.load("method", "cgil").settings_for("cifar100-1x100")
    draws = Draws("benchmark", "cgil", 0)
    prompts = ClassPrompts(backbone, scenario, dataclasses.replace(settings, alignment_epochs=1), draws)
    features, n = task.train.features()[: STEPS * settings.alignment_batch], len(scenario.class_names)
    of_classes = [features.new_empty(500, features.shape[1]).normal_() for _ in range(4)]
    sizes = (features.shape[1], settings.vae_hidden, settings.vae_latent)

    def fit() -> None:
        models = VAEs(*sizes, 2, settings.vae_lr, settings.vae_batch)
        models.fit(range(len(of_classes)), of_classes, draws, lambda loss, what: None)

    def align() -> None:
        prompts.align(n, lambda epoch: features, torch.arange(len(features)) % n, ["benchmark"], lambda loss, what: None)

    rows = []
    for what, work in {
        f"auto-encoders of {len(of_classes)} classes x 500 images, 2 epochs": fit,
        f"alignment of {n} prompts, {STEPS} steps": align,
    }.items():
        with OperationCounter() as counter:
            work()
        rows.append(distance_from_floor.taken_apart(work).row(what, counter.total / matrix_rate(CPU)))
        print(*rows[-1], file=sys.stderr, flush=True)
    return ("part", *distance_from_floor.HEADER), rows


def _counted_before() -> dict[str, dict[str, float]]:
    """The operations of every method, by phase, as far as they have been counted."""
    path = MEASURED / "operations.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        return {row["method"]: {"encode": float(row["encoding"]), "train": float(row["own"])} for row in csv.DictReader(file)}


def _shares(seconds: dict[str, float]) -> list[str]:
    total = sum(seconds.values())
    return [f"{100 * seconds[phase] / total:.1f} %" if seconds[phase] else "-" for phase in PHASES]


def _runs(out: Path, protocol: str = PROTOCOL) -> list[Run]:
    request = Request(
        protocols=(protocol,),
        methods=tuple(registry.names("method")),
        device="cpu",
        precision="float32",
        limit_train=IMAGES,
        limit_test=IMAGES,
        out=out,
    )
    with Facts() as facts:
        return plan.build(request, facts)[0]


def growth(wanted: Wanted) -> Table:
    """Learning and scoring of a task, and how it grows from 100 to 200 classes: 1 is in proportion to the classes seen."""
    backbone = backbones.load("mini", None, "cpu")
    rows = []
    for name in registry.names("method"):
        method = registry.load("method", name)
        if name in pixel_methods.METHODS or not wanted(name):
            continue
        seconds = _of_joint_training(name, backbone) if method.joint else _of_a_task(name, backbone)
        power = torch.tensor(seconds[-1] / seconds[-2]).log2()
        rows.append([name, *(f"{one:.3g}" for one in seconds), f"{power:.1f}"])
        print(*rows[-1], file=sys.stderr, flush=True)
    return ["method", *(f"{n} classes" for n in CLASSES), "power"], rows


def _of_a_task(name: str, backbone: backbones.Backbone) -> list[float]:
    """Seconds of a task when so many classes have been seen."""
    places, slow = [seen // 10 - 1 for seen in CLASSES], name in PER_IMAGE
    stream = cached_stream(backbone, GROWING, 20, TRAIN, TEST)
    with tempfile.TemporaryDirectory() as folder:
        changes = {"concepts": _stand_in_concepts(Path(folder), stream)} if name == "clg-cbm" else {}
        steps, scored = (STEPS_PER_IMAGE, places) if slow else (STEPS, None)
        timing = measure(name, backbone, stream, GROWING, steps, scored, changes)
    whole = [learning + scoring for learning, scoring in zip(timing.learning, timing.scoring)]
    # one task is short: the mean over those around it is steadier
    around = 0 if slow else 1
    parts = [whole[max(0, place - around) : place + around + 1] for place in places]
    return [sum(part) / len(part) for part in parts]


def _stand_in_concepts(folder: Path, stream: Stream) -> str:
    """A file of sentences for clg-cbm, which keeps half of them."""
    path = folder / "concepts.json"
    of_classes = {name: [f"stand-in trait {k} of {name}" for k in range(CONCEPTS)] for name in stream.scenario.class_names}
    path.write_text(json.dumps(of_classes))
    return str(path)


def _of_joint_training(name: str, backbone: backbones.Backbone) -> list[float]:
    """Seconds for every ten of so many classes that are learned at once."""
    found = []
    for classes in CLASSES:
        timing = measure(name, backbone, cached_stream(backbone, GROWING, classes // 10, TRAIN, TEST), GROWING, STEPS)
        found.append(sum(timing.learning + timing.scoring) / (classes // 10))
    return found


def before_and_after(wanted: Wanted) -> Table:
    rows = []
    for what, measured in speed_ups.measurements(PROTOCOL, _folders()).items():
        if wanted(what):
            rows.append(speed_ups.row(what, measured()))
            print(*rows[-1], file=sys.stderr, flush=True)
    return ["what", "before", "after", "seconds before", "seconds after", "times faster"], rows


def _folders() -> Folders:
    cache = user_cache_path("continual-clip-bench")
    return Folders(cache / "no-data", cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sections = {
        "machine": machine, "operations": operations, "phases": phases, "rest": rest, "cgil": parts_of_cgil, "growth": growth,
        "speed-ups": before_and_after,
    }  # fmt: skip
    parser.add_argument("section", choices=sections)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", metavar="TEXT", help="measure the rows whose names hold this; the others stay (not: phases)")
    parser.add_argument("--show", action="store_true", help="what was measured last, instead of measuring")
    chosen = parser.parse_args()
    kept = MEASURED / f"{chosen.section}.csv"
    if not chosen.show:
        with launch.limited_threads(chosen.threads):
            header, rows = sections[chosen.section](lambda name: not chosen.only or chosen.only in name)
        if chosen.only and kept.exists():
            with open(kept, newline="") as file:
                before = {old[0]: old for old in list(csv.reader(file))[1:]}
            rows = list((before | {new[0]: new for new in rows}).values())
            if header[0] == "method":
                rows.sort(key=lambda row: row[0])
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        write_atomically(kept, text.getvalue())
    show_table(kept)


if __name__ == "__main__":
    main()
