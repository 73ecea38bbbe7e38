"""MTIL, multi-domain task-incremental learning (ZSCL, arXiv 2303.06628): eleven data sets, one task each.

After every task all eleven test sets are scored, each among its own classes. Class names and templates are the data
sets' own: training uses a data set's first template, evaluation averages all of them. Splits are those of the authors'
loaders; three are random 80/20 splits with seed 42.

The few-shot forms are used by later papers in the same orders; ZSCL does not define them, and which images are the shots
differs between papers. Here they are drawn once for each class (bench.streams.shots.few_shots), equal for all methods and
seeds, and the 5 are among the 16. Test sets are whole.
"""

from functools import partial

from bench import Protocol, one_task_per_dataset

# bump when a change of the order, names, templates or splits moves numbers
VERSION = "2"  # 1: SUN397 had its labels 206 and 207 exchanged
SOURCE = "ZSCL, arXiv 2303.06628 and its code"
FEW_SHOT_SOURCE = SOURCE + "; number of shots as in later papers, the draw is this package's"

# task -> data set; the task names are those of ZSCL's scripts in lower case
DATASETS = {
    "aircraft": "fgvc-aircraft",
    "caltech101": "caltech101",
    "cifar100": "cifar100",
    "dtd": "dtd",
    "eurosat": "eurosat",
    "flowers": "flowers102",
    "food": "food101",
    "mnist": "mnist",
    "oxford-pet": "oxford-pets",
    "stanford-cars": "stanford-cars",
    "sun397": "sun397",
}
ORDER_1 = tuple(DATASETS)  # alphabetical
ORDER_2 = (
    "stanford-cars", "food", "mnist", "oxford-pet", "flowers", "sun397", "aircraft", "caltech101", "dtd", "eurosat", "cifar100",
)  # fmt: skip


def _in_order(tasks: tuple[str, ...]):
    return one_task_per_dataset({task: DATASETS[task] for task in tasks})


_few_shots = partial(Protocol, version=VERSION, kind="task-incremental", fixed_order=True, source=FEW_SHOT_SOURCE)

order1 = Protocol(
    name="mtil-order1",
    version=VERSION,
    kind="task-incremental",
    summary="eleven data sets, one task each, in ZSCL's Order I (alphabetical)",
    tasks=_in_order(ORDER_1),
    fixed_order=True,
    source=SOURCE,
)

order2 = Protocol(
    name="mtil-order2",
    version=VERSION,
    kind="task-incremental",
    summary="eleven data sets, one task each, in ZSCL's Order II",
    tasks=_in_order(ORDER_2),
    fixed_order=True,
    source=SOURCE,
)

order1_16shot = _few_shots(
    name="mtil-order1-16shot",
    summary="mtil-order1 with 16 training images of every class",
    tasks=_in_order(ORDER_1),
    shots=16,
)

order1_5shot = _few_shots(
    name="mtil-order1-5shot",
    summary="mtil-order1 with 5 training images of every class",
    tasks=_in_order(ORDER_1),
    shots=5,
)

order2_16shot = _few_shots(
    name="mtil-order2-16shot",
    summary="mtil-order2 with 16 training images of every class",
    tasks=_in_order(ORDER_2),
    shots=16,
)

order2_5shot = _few_shots(
    name="mtil-order2-5shot",
    summary="mtil-order2 with 5 training images of every class",
    tasks=_in_order(ORDER_2),
    shots=5,
)
