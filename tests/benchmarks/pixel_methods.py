"""Training speed and memory of the methods that train on images: steps per second, peak memory, trained parameters.

    python -m tests.benchmarks.pixel_methods --out pixels.md                     # CPU: batch 2, 3 steps; CUDA: batch 64, 20 steps
    python -m tests.benchmarks.pixel_methods --methods zscl,slca --batch 16 --steps 5

Each method gets a process of its own, so that the peak is its own, and two tasks of stand-in images: a first one of a
single batch, so that teachers, memories and old weights are there, and a second one of as many batches as steps are wanted
(both at least an image of every class, so there may be more steps). Time is that of the second, memory that of both. The
recipe is the protocol's with one epoch or so many updates; weights are random, which changes no shape.
"""

import argparse
import csv
import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone
from bench.images.dataset import Folders, ImageSource
from bench.images.stand_ins import stand_in
from bench.streams import names
from bench.streams.features import FeatureStore
from bench.streams.reference import STAND_IN, Reference
from bench.streams.stream import Split, Stream, Task
from bench.system import registry
from bench.system.randomness import Draws
from tests.benchmarks.measuring import MEASURED, optimiser_steps, show_table, write_table

METHODS = (
    *("finetune", "zscl", "zscl-star", "zscl-minus", "lwf", "lwf-vr", "wise-ft", "icarl", "l2-wc", "we", "maple", "clap-maple"),
    *("l2p", "dualprompt", "coda-prompt", "icarl-nme", "er", "derpp", "slca", "moe-adapters", "star-prompt", "joint"),
    *("magmax", "condu", "cca-cl", "coleclip", "diki", "dpw", "mg-clip", "engine", "lada"),
)
ROOT = Path(__file__).parents[2]
DEFAULTS = {"cpu": {"batch": 2, "steps": 3, "sentences": 16}, "cuda": {"batch": 64, "steps": 20, "sentences": 13_000}}


# -- one method, in this process --------------------------------------------------------------------------------


def images_in_memory(info, count: int, labels: list[int]) -> ImageSource:
    """So many stand-in images of these classes, in turn. Drawn beforehand: drawing them takes as long as a step on a GPU."""
    source = stand_in(dataclasses.replace(info, train_images=len(info.class_names) * count), "train", Folders(Path(), Path()))
    rows = [np.flatnonzero(source.labels == label) for label in labels]
    chosen = np.array([rows[k % len(labels)][k // len(labels)] for k in range(count)])
    return ImageSource.from_arrays(np.stack(source.read(chosen)), source.labels[chosen])


def two_tasks(protocol_name: str, store: FeatureStore, counts: tuple[int, int]) -> Stream:
    """The first two tasks of a protocol, with so many training images each but one of every class, of the backbone's size."""
    protocol = names.find(protocol_name)
    scenario, size = protocol.scenario(0), store.backbone.image_size
    n = sum(owner < 2 for owner in scenario.task_of_class)
    scenario = dataclasses.replace(
        scenario, class_names=scenario.class_names[:n], templates=scenario.templates[:n], task_of_class=scenario.task_of_class[:n]
    )
    tasks, first = [], 0
    for index, (plan, count) in enumerate(zip(protocol.tasks(0), counts)):
        info = dataclasses.replace(protocol.dataset(plan.dataset).info, image_size=(size, size))
        source = images_in_memory(info, max(count, len(plan.labels)), list(plan.labels))
        position = {label: first + k for k, label in enumerate(plan.labels)}
        labels = torch.tensor([position[int(label)] for label in source.labels])
        split = Split([(source, np.arange(len(source)))], labels, store)
        tasks.append(Task(index, plan.name, tuple(position.values()), split, split).for_training())
        first += len(plan.labels)
    return Stream(scenario, tuple(tasks))


def stand_in_reference(store: FeatureStore, images: int, sentences: int) -> Reference:
    size = store.backbone.image_size
    source = images_in_memory(dataclasses.replace(STAND_IN, image_size=(size, size)), images, [0])
    split = Split([(source, np.arange(images))], torch.zeros(images, dtype=torch.long), store)
    return Reference(split, tuple(f"stand-in sentence number {k} of reference data" for k in range(sentences)))


def short_settings(method: type, protocol: str, batch: int, steps: int):
    """The protocol's recipe with `quick`'s short training, in batches of `batch`: `steps` steps on `steps` batches."""
    fields = {field.name for field in dataclasses.fields(method.Settings)}
    changes = {"batch_size": batch, "replay_batch_size": batch, "epochs": 1, "iterations": steps - 1}
    if "iterations" in fields:  # then epochs stay off: `iterations` + 1 updates, whatever the images
        changes["epochs"] = 0
    settings = method.settings_for(protocol, {**method.quick, **{k: v for k, v in changes.items() if k in fields}})
    if "batch_size" not in fields:
        raise SystemExit(f"{method.__name__} has no setting batch_size: it cannot be measured at a chosen batch")
    return settings


class MemoryStore(FeatureStore):
    """Features are computed when asked for, and kept for this process only."""

    def __init__(self, backbone: Backbone):
        super().__init__(backbone, Path())

    def _open_or_encode(self, key, facts, source, view, layer) -> np.ndarray:
        return self._encode(source, view, layer)


def process_memory(what: str) -> int:
    """Bytes of this process: its peak "VmHWM" or what it has now "VmRSS". Linux only."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 1024


def forget_peak(device: torch.device) -> None:
    """Start the peak anew: loading the backbone takes more than a small method's training."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def measure(
    name: str, protocol: str, architecture: str, device: str, precision: str, batch: int, steps: int, sentences: int
) -> dict:
    """Learn two tasks; the facts about the second."""
    backbone = backbones.load(architecture, None if architecture == "mini" else "none", device, precision)
    cuda = backbone.device.type == "cuda"
    forget_peak(backbone.device)
    idle = torch.cuda.memory_allocated(backbone.device) if cuda else process_memory("VmRSS")
    wait = partial(torch.cuda.synchronize, backbone.device) if cuda else lambda: None
    store = MemoryStore(backbone)
    stream = two_tasks(protocol, store, (batch, batch * steps))
    method_class = registry.load("method", name)
    settings = short_settings(method_class, protocol, batch, steps)
    method = method_class(settings, backbone, stream.scenario, Draws(protocol, name, 0)).eval()
    if method.reference_names:
        method.use_reference(stand_in_reference(store, 4 * batch, sentences))

    def now() -> float:
        wait()
        return perf_counter()

    optimised: dict[int, int] = {}  # parameters of the task's optimisers, some in modules that end with the task

    def note_parameters(optimiser, arguments, keywords) -> None:
        optimised.update({id(p): p.numel() for group in optimiser.param_groups for p in group["params"]})

    first, second = stream.tasks
    for task in (first, second):
        optimised.clear()
        with optimiser_steps(now) as loops, register_optimizer_step_post_hook(note_parameters):
            started = now()
            method.train()
            method.grow(task)
            method.learn(task)
            method.eval()
            seconds = now() - started
    phases = [
        {"steps": len(moments), "seconds": (moments[-1] - moments[0]) / (len(moments) - 1)}  # the first is not like the others
        for moments in loops
        if len(moments) > 1
    ]
    return {
        "method": name,
        "phases": phases,
        "task_seconds": seconds,
        "idle_bytes": idle,
        "peak_bytes": torch.cuda.max_memory_allocated(backbone.device) if cuda else process_memory("VmHWM"),
        "trained": sum(p.numel() for p in method.parameters() if p.requires_grad) or sum(optimised.values()),
        "precision": backbone.precision,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(backbone.device) if cuda else f"CPU, {torch.get_num_threads()} threads",
    }


# -- all methods, each in a process of its own ------------------------------------------------------------------


def in_own_process(name: str, options: dict, timeout: float) -> dict:
    command = [sys.executable, "-m", "tests.benchmarks.pixel_methods", "--only", name]
    command += [f"--{option}={value}" for option, value in options.items()]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"method": name, "failure": f"not done after {timeout:.0f} s"}
    if done.returncode:
        return {"method": name, "failure": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def row(facts: dict) -> dict[str, str]:
    if "failure" in facts:
        return {"method": facts["method"], "loops of the second task": f"failed: {facts['failure']}"}
    slowest = max(facts["phases"], key=lambda phase: phase["seconds"], default=None)
    loops = [f"{phase['steps']} steps at {1 / phase['seconds']:.3g}/s" for phase in facts["phases"]]
    return {
        "method": facts["method"],
        "steps/s": f"{1 / slowest['seconds']:.3g}" if slowest else "-",
        "peak memory (MB)": f"{facts['peak_bytes'] / 1e6:.0f}",
        "before training (MB)": f"{facts['idle_bytes'] / 1e6:.0f}",
        "trainable parameters": str(facts["trained"]),
        "second task (s)": f"{facts['task_seconds']:.1f}",
        "loops of the second task": "; ".join(loops),
    }


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="names, separated by commas")
    parser.add_argument("--protocol", default="cifar100-10x10", help="whose recipes, class names and templates are taken")
    parser.add_argument("--backbone", default="ViT-B-16", help="an open_clip architecture, or mini")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="of the towers' blocks: float32, bfloat16, float16")
    parser.add_argument("--batch", type=int, help="images per step: 2 on the CPU, 64 on CUDA")
    parser.add_argument("--steps", type=int, help="steps of the second task: 3 on the CPU, 20 on CUDA")
    parser.add_argument("--sentences", type=int, help="reference sentences of distillation: 16 on the CPU, 13000 on CUDA")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that one method may take")
    parser.add_argument("--out", type=Path, help="file for the table: .csv or .md")
    parser.add_argument("--only", metavar="METHOD", help="measure one method in this process and print its facts as JSON")
    parser.add_argument("--show", metavar="NAME", help="print a table of tests/benchmarks/measured and measure nothing")
    chosen = parser.parse_args(arguments)
    if chosen.show:
        show_table(MEASURED / f"{chosen.show}.csv")
        return []
    device = backbones.resolve_device(chosen.device)
    options = {"protocol": chosen.protocol, "backbone": chosen.backbone, "device": device, "precision": chosen.precision}
    for option, default in DEFAULTS[torch.device(device).type].items():
        options[option] = getattr(chosen, option) or default
    if options["steps"] < 2:
        parser.error("--steps: at least 2 are needed, since time is taken from one step to the next")
    if chosen.only:
        facts = measure(chosen.only, architecture=options.pop("backbone"), **options)
        print(json.dumps(facts))
        return [facts]

    found = []
    for name in chosen.methods.split(","):
        found.append(in_own_process(name, options, chosen.timeout))
        print(" ".join(f"{key}: {value};" for key, value in row(found[-1]).items()), flush=True)
    done = next((facts for facts in found if "device" in facts), None)
    where = f"{done['device']}, {done['precision']}, torch {done['torch']}" if done else device
    heading = f"{chosen.backbone}, batch {options['batch']}, {options['steps']} steps on {where}; recipes of {chosen.protocol}"
    if torch.device(device).type == "cuda":
        heading += "; peak of the device's memory"
    else:
        heading += "; peak of the process's memory"
    rows = {facts["method"]: row(facts) for facts in found}
    if chosen.out and chosen.out.suffix == ".csv" and chosen.out.exists():  # rows of methods not measured now stay
        with open(chosen.out, newline="") as file:
            rows = {old["method"]: old for old in csv.DictReader(file)} | rows
    write_table(list(rows.values()), chosen.out, heading)
    return found


if __name__ == "__main__":
    main()
