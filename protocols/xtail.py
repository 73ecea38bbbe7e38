"""X-TAIL, cross-domain task-agnostic incremental learning (RAIL, arXiv 2406.18868; also LADA, arXiv 2505.23271).

Ten data sets, one task each. No data set is named at test: every image competes against all 1100 classes of the ten, learned
or not, so the names of classes to come are known from the start. One template, "a photo of a {}.", for all.

The data sets are MTIL's by name only: CoOp's split files (protocols/datasets/coop.py) have other training and test images
and names, and full-shot means their part "train"; Aircraft and MNIST have the same images. CIFAR-100 is left out, since it
overlaps the others. Accuracies here and in MTIL are not comparable.

Four names stand in two data sets: lotus and sunflower (Caltech-101, Flowers), pizza (Caltech-101, Food), pagoda (Caltech-101,
SUN397). Whichever is learned first wins where the scores are equal, as in the authors' code: for zero-shot CLIP always. The
number of such images is in the manifest of every run.

Order I is RAIL's and LADA's, alphabetical. Order II is LADA's, and not MTIL's. The 16 shots are LADA's: Python's random
numbers, seeded with 0 for each data set, choose among the images of one class after the other, with repetition where
a class has fewer. RAIL's depend on everything that its program has drawn before, and cannot be made without it.

Transfer is the mean over the nine data sets that are not the first. The 57.7 that papers print as zero-shot's Transfer is the
mean over all ten: tables here print zero-shot's own Transfer beside it.
"""

from functools import partial

from bench import Protocol, one_task_per_dataset

# bump when a change of the order, names, templates or splits moves numbers
VERSION = "1"
SOURCE = "RAIL (arXiv 2406.18868) and LADA (arXiv 2505.23271) and their code"

# task -> data set; the task names are those of MTIL
DATASETS = {
    "aircraft": "fgvc-aircraft",
    "caltech101": "caltech101-coop",
    "dtd": "dtd-coop",
    "eurosat": "eurosat-xtail",
    "flowers": "flowers102-coop",
    "food": "food101-coop",
    "mnist": "mnist-xtail",
    "oxford-pet": "oxford-pets-coop",
    "stanford-cars": "stanford-cars-coop",
    "sun397": "sun397-coop",
}
ORDER_1 = tuple(DATASETS)  # alphabetical
ORDER_2 = (
    "stanford-cars", "aircraft", "oxford-pet", "food", "sun397", "mnist", "flowers", "dtd", "caltech101", "eurosat",
)  # fmt: skip


def _in_order(tasks: tuple[str, ...]):
    return one_task_per_dataset({task: DATASETS[task] for task in tasks})


_stream = partial(
    Protocol,
    version=VERSION,
    kind="task-agnostic",
    fixed_order=True,
    templates=("a photo of a {}.",),
    source=SOURCE,
    shot_rule="seed-0",
)

order1 = _stream(
    name="xtail-order1",
    summary="ten data sets, one task each, among all 1100 classes from the start, in X-TAIL's Order I (alphabetical)",
    tasks=_in_order(ORDER_1),
)

order2 = _stream(
    name="xtail-order2",
    summary="ten data sets, one task each, among all 1100 classes from the start, in X-TAIL's Order II",
    tasks=_in_order(ORDER_2),
)

order1_16shot = _stream(
    name="xtail-order1-16shot",
    summary="xtail-order1 with 16 training images of every class, as LADA draws them",
    tasks=_in_order(ORDER_1),
    shots=16,
)

order2_16shot = _stream(
    name="xtail-order2-16shot",
    summary="xtail-order2 with 16 training images of every class, as LADA draws them",
    tasks=_in_order(ORDER_2),
    shots=16,
)
