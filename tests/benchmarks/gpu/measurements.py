"""What a device makes of the methods: phases and floor of each, steps a second, exact speed-ups, several runs at a time."""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from bench.clip import backbone as backbones
from bench.clip.precision import resolve_precision
from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.learning.setting_values import as_text
from bench.runs import assignments, plan
from bench.runs.assignments import Assignment
from bench.runs.facts import Facts
from bench.runs.profiling import profile
from bench.runs.profiling.operations import matrix_rate
from bench.runs.request import Request
from bench.runs.run import Run
from bench.system import registry
from bench.system.phases import PHASES
from tests.benchmarks import pixel_methods, test_prompt_length, test_vaes_together
from tests.benchmarks.gpu.steps import Conditions, NotApplicable, Rows, Step
from tests.benchmarks.measuring import Phase, first_steps_only

ROOT = Path(__file__).parents[3]
LARGE, SMALL = ("ViT-B-16", "ViT-L-14"), ("mini",)
PRECISIONS = ("float32", "bfloat16", "float16")
AT_A_TIME = (1, 2, 4)  # --jobs
OF_LENGTH = ("epochs", "iterations", "warmup", "milestones", "every")  # words in names of settings
RUNS = "coop,clip-adapter,proof,linear-probe"


def steps(conditions: Conditions) -> list[Step]:
    small, every = conditions.small, registry.names("method")
    towers = SMALL if small else LARGE
    seconds = {"mini": 5, "ViT-B-16": 12, "ViT-L-14": 20}
    return [
        Step("machine", "measurements", "machine", 5, machine),
        Step("generators together", "measurements", "pairs", 10 if small else 60, generators_together),
        *(Step(f"prompts {tower}", "measurements", "pairs", 5 if small else 15, partial(prompts, tower)) for tower in towers),
        *(Step(f"jobs {jobs}", "measurements", "jobs", 30 if small else 60, partial(at_a_time, jobs)) for jobs in AT_A_TIME),
        *(Step(f"phases {tower} {name}", "measurements", "phases", seconds[tower], partial(phases, tower, name))
          for tower in towers for name in every),
        *(Step(f"pixels {name}", "measurements", "pixels", 3 if small else 20, partial(pixels, name)) for name in of_pixels()),
    ]  # fmt: skip


def of_pixels() -> list[str]:
    """Methods that are trained on images in batches of a size that can be chosen."""
    loaded = {name: registry.load("method", name) for name in registry.names("method")}
    return [name for name, method in loaded.items() if method.inputs == "pixels" and hasattr(method.Settings, "batch_size")]


def machine(conditions: Conditions) -> Rows:
    """Rates of a large matrix product, with which all is compared."""
    device = torch.device(conditions.device)
    rows = []
    for precision in PRECISIONS if device.type == "cuda" else PRECISIONS[:1]:
        rate = matrix_rate(device, getattr(torch, precision)) / 1e9
        rows.append({"machine": f"large matrix product in {precision}", "value": f"{rate:.0f} GFLOP/s"})
    rows.append({"machine": "CPU threads", "value": str(torch.get_num_threads())})
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        rows += [
            {"machine": "memory", "value": f"{facts.total_memory / 2**30:.0f} GiB"},
            {"machine": "multiprocessors", "value": str(facts.multi_processor_count)},
            {"machine": "CUDA of torch", "value": str(torch.version.cuda)},
        ]
    return rows


# -- every method -----------------------------------------------------------------------------------------------


def short_run(method: str, tower: str, conditions: Conditions, out: Path, accelerate: str = "none", change: str = "") -> Run:
    """A run of the size of CIFAR-100, 100 classes in ten tasks, on stand-in images; few of every class are enough, since loops
    of training are cut short. Small: 60 classes in two tasks, with the mini CLIP."""
    protocol, images = ("mini60-2x30", 2) if conditions.small else ("cifar100-10x10", 20)
    request = Request(
        protocols=(protocol,),
        methods=(method,),
        backbone=tower,
        pretrained=None if tower == "mini" else "none",
        device=conditions.device,
        precision=resolve_precision("auto", conditions.device),
        data="synthetic",
        limit_train=images,
        limit_test=1 if conditions.small else images,
        out=out,
        accelerate=accelerate,
        set=(*_shortened(method, conditions), *([assignments.parse(f"{method}.{change}")] if change else [])),
    )
    with Facts(folders(conditions), here=True) as facts:
        try:
            [run], _ = plan.build(request, facts)
        except BenchError as error:  # it is not defined for such streams, or needs a file of the user's
            raise NotApplicable(str(error)) from error
    return run


def _shortened(name: str, conditions: Conditions) -> list[Assignment]:
    """The method's shortest training at its full width; so many updates where it counts those, in loops of its own that nothing
    else cuts."""
    method = registry.load("method", name)
    fields = {field.name for field in dataclasses.fields(method.Settings)}
    changes = {field: value for field, value in method.quick.items() if any(word in field for word in OF_LENGTH)}
    if "iterations" in fields:
        changes |= {"iterations": made(conditions) - 1} | ({"epochs": 0} if "epochs" in fields else {})
    if conditions.small and "batch_size" in fields:
        changes["batch_size"] = 4
    return [Assignment(name, field, as_text(value, field), field) for field, value in changes.items()]


def made(conditions: Conditions) -> int:
    """Steps of every loop of training that are made."""
    return 3 if conditions.small else 10


def folders(conditions: Conditions) -> Folders:
    return Folders(conditions.cache / "no-data", conditions.cache)


def phases(tower: str, method: str, conditions: Conditions) -> Rows:
    """As `bench profile` measures it, with some steps of every loop of training."""
    # a mode that sees every operation, as the counter is, meets an assertion inside torch where a device written in Python makes
    # a tensor of Python's numbers
    count = conditions.device != "standin"
    with tempfile.TemporaryDirectory() as folder:
        run = short_run(method, tower, conditions, Path(folder))
        with first_steps_only(made(conditions)) as loops:
            found, [one], _ = profile.profile([run], folders(conditions), None, count)
    floor = sum(one.floor(found.rate).values())

    def utilisation(operations: float, seconds: float) -> str:
        return f"{100 * operations / (found.rate * seconds):.1f} %" if count and seconds else "-"

    return [
        {
            "method": method,
            "backbone": tower,
            "precision": found.precision,
            "steps": made_of(loops[: len(loops) // 2] if count else loops),  # the other half was made to count operations
            "seconds": f"{one.total:.2f}",
            "floor (s)": f"{floor:.3f}" if count else "-",
            "seconds / floor": f"{one.total / floor:.1f}" if floor >= 0.001 else "-",
            "utilisation": utilisation(sum(one.operations.values()), one.total),
            "of training": utilisation(one.operations.get("train", 0.0), one.seconds["train"]),
            **{phase: f"{100 * one.seconds[phase] / one.total:.1f} %" for phase in PHASES},
            "peak memory (MB)": f"{one.memory / 1e6:.0f}" if one.memory else "-",
        }
    ]


def made_of(loops: list[Phase]) -> str:
    """How many steps of all loops were made."""
    total = sum(phase.total for phase in loops)
    return f"{sum(len(phase.seconds) for phase in loops)} of {total}" if total else "none"


def pixels(method: str, conditions: Conditions) -> Rows:
    """Steps a second and the highest memory: ViT-B/16 at batch 64. Small: the mini CLIP at batch 2."""
    sizes = {"batch": 2, "steps": 2, "sentences": 4} if conditions.small else {"batch": 64, "steps": 20, "sentences": 1000}
    protocol, tower = ("mini60-6x10", "mini") if conditions.small else ("cifar100-10x10", "ViT-B-16")
    facts = pixel_methods.measure(method, protocol, tower, conditions.device, "auto", **sizes)
    return [pixel_methods.row(facts) | {"backbone": tower, "batch": str(sizes["batch"]), "precision": facts["precision"]}]


# -- one thing beside another -----------------------------------------------------------------------------------


def pair(what: str, found: dict[str, float], difference: float) -> Rows:
    """A row of two ways that were timed in turn; the first two of what was found are their seconds."""
    (before, slow), (after, fast) = list(found.items())[:2]
    return [
        {"what": what, "before": before, "after": after, "seconds before": f"{slow:.3g}", "seconds after": f"{fast:.3g}",
         "times faster": f"{slow / fast:.1f}", "largest difference": f"{difference:.1e}"}
    ]  # fmt: skip


def generators_together(conditions: Conditions) -> Rows:
    """All auto-encoders of a task as one model, against one after the other."""
    epochs, images, classes = (1, 20, 2) if conditions.small else (20, 500, 20)
    found = test_vaes_together.measured(torch.device(conditions.device), epochs, images, classes)
    if not found["difference"] < test_vaes_together.APART:
        raise AssertionError(f"the two ways end {found['difference']:.1e} of what training changes apart")
    what = f"auto-encoders of {classes} classes x {images} features x {test_vaes_together.WIDTH}, {epochs} epochs"
    return pair(what, found, found["difference"])


def prompts(tower: str, conditions: Conditions) -> Rows:
    """Learned prompts of their own length, against 77 tokens: forward and backward."""
    backbone = backbones.load(tower, None if tower == "mini" else "none", conditions.device, "float32")
    dataset = "mini60" if conditions.small else "cifar100"
    class_names = registry.load("dataset", dataset).info.class_names[: 10 if conditions.small else None]
    rounds = {"at 77 tokens": 1 if conditions.small else 3, "at their own length": 3}
    found = test_prompt_length.measured(backbone, class_names, rounds)
    test_prompt_length.check_results(found)
    return pair(f"prompts of {len(class_names)} classes, {tower}", found, found["difference of features"])


# -- several runs at a time -------------------------------------------------------------------------------------


def at_a_time(jobs: int, conditions: Conditions) -> Rows:
    """The same four runs by `bench run --jobs N` on one device, from the start of the command to its end."""
    if conditions.device == "standin":
        raise NotApplicable("processes of bench run do not know the stand-in device")
    protocol, tower, images = ("mini60-2x30", "mini", 2) if conditions.small else ("cifar100-10x10", "ViT-B-16", 10)
    options = ["--protocol", protocol, "--backbone", tower, "--device", conditions.device, "--data", "synthetic"]
    options += ["--limit-train", str(images), "--limit-test", "2", "--cache-dir", str(conditions.cache)]
    options += [] if tower == "mini" else ["--pretrained", "none"]
    short = ["--set", "coop.epochs=1", "--set", "proof.epochs=1"]
    with tempfile.TemporaryDirectory() as folder:
        features = ["--methods", "zero-shot", "--out", f"{folder}/features"]
        _bench([*options, *features])  # features are stored
        started = time.perf_counter()
        _bench([*options, *short, "--methods", RUNS, "--jobs", str(jobs), "--out", f"{folder}/results"])
        seconds = time.perf_counter() - started
    return [{"runs at a time": str(jobs), "runs": "4", "backbone": tower, "seconds": f"{seconds:.1f}"}]


def _bench(arguments: list[str]) -> None:
    command, environment = [sys.executable, "-m", "bench", "run", *arguments], os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise AssertionError(f"bench run ended with code {done.returncode}: {last}")
