"""What every method would cost with 1,000 and 20,000 classes and 10^8 images, and what breaks first: arithmetic.

    python docs/scale_table.py

Nothing of that size has been run. Seconds come from tests/benchmarks/measured/ (growth.csv, pixel_methods_cpu.csv), measured on
one thread of a CPU, and go on as they grew there; bytes are the sums of bench/runs/memory_sums.py. docs/scale.md says which is
which.
"""

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.clip.tower_sizes import TowerSizes, tower_sizes
from bench.reports.formats import Table, TableCell, write
from bench.runs.estimate import size
from bench.runs.memory_sums import terms_of
from bench.runs.memory_terms import Scale, Term
from bench.system import registry

MEASURED = Path(__file__).parent.parent / "tests" / "benchmarks" / "measured"
BACKBONE, LIKE = "ViT-B-16", "imagenet1000-10x100"  # whose towers, and whose recipes
IMAGES, CLASSES_OF_A_TASK, TESTS_OF_A_CLASS, EXEMPLARS_OF_A_CLASS = 10**8, 100, 50, 20
CLASSES = (1_000, 20_000)
GPU, HOST, DISK, DAYS = 80e9, 256e9, 1e12, 30  # the machine: bytes of a GPU, of the host, for embeddings; and patience
THREAD = 73e9  # operations a second, about, of a thread that was measured on (machine.csv says what the last one had: up to 99e9)
FASTER = 1_000  # so many times as fast as that thread the GPU is taken to be: 73 TFLOP/s
GROWN_FROM, IMAGES_THEN = 200, 200  # growth.csv: seconds of a task of so many images when so many classes have been seen
TRAIN_THEN = 20  # images of a class there
PIXEL_BATCH, PIXELS_OF_A_TASK = 2, 10  # pixel_methods_cpu.csv: images of a step, and of the second task

# what grew in growth.csv is the change from few images to all columns, whose matrices stay as large from then on
FEW_IMAGES_FIRST = ("cca-cl-frozen", "rail-primal", "ranpac")


@dataclass(frozen=True)
class Cost:
    """Of a method at one number of classes. hours: None where nothing was measured."""

    hours: float | None
    gpu: list[Term]
    host: list[Term]
    disk: float  # bytes of embeddings

    @property
    def parts(self) -> dict[str, tuple[float, str]]:
        """What may break -> (share of what there is, the largest part of it in words)."""
        found = {
            "GPU memory": (_total(self.gpu) / GPU, self.gpu[0].what),
            "memory": (_total(self.host) / HOST, self.host[0].what),
            "disk": (self.disk / DISK, "embeddings of all images"),
        }
        if self.hours is not None:
            found["time"] = (self.hours / (24 * DAYS), f"{self.hours / 24:,.0f} days")
        return found

    @property
    def breaks(self) -> str:
        """What exceeds the machine by most."""
        kind, (share, what) = max(self.parts.items(), key=lambda part: part[1][0])
        return f"{kind}: {what}" if share > 1 else "nothing"


def _in_words(hours: float | None) -> str:
    if hours is None:
        return "not measured"
    return f"{hours:,.0f}" if hours >= 1 else "under 1"


def _total(terms: list[Term]) -> float:
    return sum(term.bytes for term in terms)


def _rows(name: str) -> dict[str, dict[str, str]]:
    with open(MEASURED / name, newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def scale(method: str, classes: int) -> Scale:
    settings = dataclasses.asdict(registry.load("method", method).settings_for(LIKE))
    towers = tower_sizes(BACKBONE)
    assert towers is not None
    tasks = classes // CLASSES_OF_A_TASK
    return Scale(
        classes, tasks, IMAGES, IMAGES / tasks, CLASSES_OF_A_TASK, TESTS_OF_A_CLASS * classes, EXEMPLARS_OF_A_CLASS * classes,
        towers, settings,
    )  # fmt: skip


def operations_of_an_image(towers: TowerSizes) -> float:
    """Of one pass through the image tower: two for each weight and token, and attention."""
    attention = 4 * towers.image_tokens**2 * towers.pooled * towers.image_layers
    return 2 * towers.image_parameters * towers.image_tokens + attention


def passes(scale: Scale) -> float:
    """How often a recipe goes through the images; one that counts updates does not grow with them."""
    epochs, updates = scale.setting("epochs"), scale.setting("iterations")
    if epochs or not updates:
        return epochs or 1.0
    return min(1.0, updates * scale.setting("batch_size", 64) * scale.tasks / scale.train)


def seconds(
    method: str, scale: Scale, growth: Mapping[str, dict[str, str]], pixels: Mapping[str, dict[str, str]]
) -> float | None:
    """On the thread that was measured; None where this method was not."""
    of_a_pass = operations_of_an_image(scale.towers) / THREAD
    if method in pixels:
        steps = pixels[method]["steps/s"]
        scoring = scale.tasks * scale.test * of_a_pass  # all test images after every task, by a tower that has changed
        if steps == "-":  # cca-cl trains its tower on the first task alone; later ones are learned in closed form
            return float(pixels[method]["second task (s)"]) * scale.train / PIXELS_OF_A_TASK + scoring
        return passes(scale) * scale.train / (PIXEL_BATCH * float(steps)) + scoring
    if method not in growth:
        return None
    of_a_task, power = float(growth[method][f"{GROWN_FROM} classes"]), max(0.0, float(growth[method]["power"]))
    if method in FEW_IMAGES_FIRST:
        power = 0.0
    # rail-dual grows with the images that it has seen, not with their classes
    times = scale.train / (GROWN_FROM * TRAIN_THEN) if method == "rail-dual" else scale.classes / GROWN_FROM
    encoding = (scale.train + scale.test) * of_a_pass
    mean_of_stream = 1 if registry.load("method", method).joint else 1 / (power + 1)  # of n^power; joint: all classes at once
    return of_a_task * scale.train / IMAGES_THEN * times**power * mean_of_stream + encoding


def cost(method: str, classes: int) -> Cost:
    own, growth, pixels = scale(method, classes), _rows("growth.csv"), _rows("pixel_methods_cpu.csv")
    terms = terms_of(method, own)
    assert terms is not None  # tests say that every built-in method has its sums
    found = seconds(method, own, growth, pixels)
    stored = any("embeddings of" in term.what for term in terms) or method in ("zero-shot", "continual-clip")
    disk = 4.0 * (own.train + own.test) * own.towers.width if stored else 0.0
    hours = None if found is None else found / FASTER / 3600
    return Cost(hours, [term for term in terms if not term.host], [term for term in terms if term.host], disk)


def table() -> Table:
    rows = []
    for entry in registry.entries("method"):
        if entry.package != registry.BUILT_IN:
            continue
        costs = [cost(entry.name, classes) for classes in CLASSES]
        cells = [entry.name]
        for one in costs:
            cells += [_in_words(one.hours), size(_total(one.gpu))]
        rows.append([TableCell(text) for text in (*cells, *(one.breaks for one in costs))])
    sides = [f"{classes:,} classes" for classes in CLASSES]
    measures = [f"{side}, {what}" for side in sides for what in ("hours", "GPU memory")]
    header = ["method", *measures, *(f"{side}: breaks first" for side in sides)]
    caption = f"{IMAGES:,} images in tasks of {CLASSES_OF_A_TASK} classes, {BACKBONE}"
    return Table(caption, "Extrapolated; nothing of this size was run", header, rows)


def main() -> None:
    print(write([table()], "markdown"))


if __name__ == "__main__":
    main()
