"""Has anything become slow? Small pieces of the product, each against a matrix product of the same process, and commands that
read finished runs, each against importing pandas (tests/benchmarks/reading.py).

    python -m tests.benchmarks.gate             # exit code 1 if a ratio is more than --tolerance times the stored one
    python -m tests.benchmarks.gate --update    # store the present ratios

The ratio of a piece is its time over that of the reference, a product of two float32 matrices of 512 rows, taken in turn with
it. It says nothing about the machine, and little about what else it does: times are of the processor.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from bench.clip import backbone as backbones
from bench.images.dataset import ImageSource
from bench.learning.evaluation import evaluate
from bench.runs import checkpoint
from bench.streams.features import FeatureStore
from bench.streams.stream import Scenario, Split, Stream, Task
from bench.system import registry
from bench.system.files import write_atomically
from bench.system.processor import cpu_model
from bench.system.randomness import Draws
from methods.cgil.vae import VAEs
from methods.shared.prompts import ContextPrompts
from tests.benchmarks import reading
from tests.benchmarks.side_by_side import fastest_of

BASELINE = Path(__file__).parent / "baseline.json"
TOLERANCE = 1.6
SIDE, ROUNDS, REPEATS = 512, 20, 4  # with 5 rounds the shortest piece varied by 1.7 times
CLASSES, PER_CLASS = 20, 10


def pieces(folder: Path) -> dict[str, Callable[[], object]]:
    """What is watched."""
    backbone = backbones.load("mini", None, "cpu")
    names = registry.load("dataset", "mini60").info.class_names[:CLASSES]
    prompts = ContextPrompts(backbone, names, 4)
    stream = _stream(backbone, names, folder)
    zero_shot = registry.load("method", "zero-shot")
    method = zero_shot(zero_shot.Settings(), backbone, stream.scenario, Draws("gate", "zero-shot", 0)).eval()
    features = list(torch.randn(4, 60, 64, generator=torch.Generator().manual_seed(0)))
    pixels = torch.zeros(64, 3, backbone.image_size, backbone.image_size)
    split = stream.tasks[0].train

    def learned_prompts() -> None:
        context = torch.zeros(4, backbone.text_width, requires_grad=True)
        prompts.features(context).sum().backward()

    def auto_encoders() -> None:
        models = VAEs(64, 32, 8, 4, 1e-3, 32)
        models.fit(range(4), features, Draws("gate", "cgil", 0), lambda loss, what: None)

    def one_checkpoint() -> None:
        state = {"weights": torch.zeros(500_000)}
        checkpoint.from_bytes(checkpoint.to_bytes(checkpoint.Journal(), "gate", state))

    return {
        "forward and backward of learned prompts": learned_prompts,
        "a class vector of every class": lambda: backbone.classifier(stream.scenario.prompts_of(range(CLASSES))),
        "encoding of 64 images": lambda: backbone.encode_images(pixels),
        "pixels of 200 images": split.pixels,
        "features out of the store": lambda: FeatureStore(backbone, folder).features(split.pieces[0][0]),
        "evaluation after a task": lambda: list(evaluate(method, stream, 0)),
        "auto-encoders of 4 classes": auto_encoders,
        "a checkpoint written and read": one_checkpoint,
    }


def _stream(backbone, names, folder: Path) -> Stream:
    """Two tasks with noise for images."""
    store, half = FeatureStore(backbone, folder), CLASSES // 2
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    size = backbone.image_size
    images = np.random.default_rng(0).integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    source = ImageSource.from_arrays(images, labels)
    tasks = []
    for index, classes in enumerate((range(half), range(half, CLASSES))):
        rows = np.flatnonzero(np.isin(labels, classes))
        split = Split([(source, rows)], torch.from_numpy(labels[rows]), store)
        tasks.append(Task(index, f"task {index}", tuple(classes), split, split))
    scenario = Scenario("class-incremental", tuple(names), (("a photo of a {}.",),) * CLASSES, (0,) * half + (1,) * half)
    return Stream(scenario, tuple(tasks))


def measure() -> dict[str, float]:
    """The ratios of all pieces and of all commands that read."""
    return measure_pieces() | reading.measure()


def measure_pieces(rounds: int = ROUNDS) -> dict[str, float]:
    """The ratio of every piece: its time over that of the reference, each the shortest of several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = torch.ones(2, SIDE, SIDE)
        with tempfile.TemporaryDirectory() as folder:
            ratios = {}
            for name, work in pieces(Path(folder)).items():
                work()
                found = fastest_of({"reference": repeated(lambda: a @ b), "own": repeated(work)}, rounds)
                ratios[name] = found["own"] / found["reference"]
            return ratios
    finally:
        torch.set_num_threads(threads)


def repeated(work: Callable[[], object]) -> Callable[[], None]:
    def several_times() -> None:
        for _ in range(REPEATS):
            work()

    return several_times


def slower(ratios: dict[str, float], baseline: dict[str, float], tolerance: float) -> list[str]:
    """A sentence for every piece that is slower than it may be, or that is in only one of the two.

    >>> slower({"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 1.0}, 1.4)
    ['a: 3 times the reference, 1.5 times the stored ratio of 2']
    """
    found = [f"{name}: not in the baseline; --update stores it" for name in ratios if name not in baseline]
    found += [f"{name}: in the baseline, but no longer measured; --update forgets it" for name in baseline if name not in ratios]
    for name in ratios.keys() & baseline.keys():
        growth = ratios[name] / baseline[name]
        if growth > tolerance:
            now, before = (f"{values[name]:.3g}" for values in (ratios, baseline))
            found.append(f"{name}: {now} times the reference, {growth:.3g} times the stored ratio of {before}")
    return sorted(found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="store the present ratios")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="so many times the stored ratio are allowed")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    chosen = parser.parse_args(arguments)
    if not chosen.update and not chosen.baseline.exists():
        parser.error(f"{chosen.baseline}: nothing is stored yet; --update does it")
    stored = {} if chosen.update else json.loads(chosen.baseline.read_text())["ratios"]
    ratios = measure()
    if chosen.update:
        facts = {"machine": cpu_model(), "torch": torch.__version__.split("+")[0]}
        rounded = {name: float(f"{value:.3g}") for name, value in ratios.items()}
        write_atomically(chosen.baseline, json.dumps({**facts, "ratios": rounded}, indent=1) + "\n")
        print(f"stored {len(ratios)} ratios in {chosen.baseline}")
        return 0
    rows = [[name, f"{stored.get(name, float('nan')):.3g}", f"{value:.3g}"] for name, value in ratios.items()]
    print(tabulate(rows, ["piece", "stored", "now"], disable_numparse=True, colalign=("left", "right", "right")))
    complaints = slower(ratios, stored, chosen.tolerance)
    print("\n".join(["", *complaints]) if complaints else f"nothing is more than {chosen.tolerance:g} times slower")
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
