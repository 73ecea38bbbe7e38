"""Protocols on the mini world: offline, seconds to a minute per method on two CPU cores."""

from collections.abc import Sequence

from bench import Protocol, TaskPlan, class_incremental, one_task_per_dataset
from protocols.class_incremental import protocol

# bump when a change of the images, the class names or the splits moves numbers
VERSION = "1"
SOURCE = "this package's own, no paper's"

mini60_6x10 = protocol(
    name="mini60-6x10",
    dataset="mini60",
    sizes=[10] * 6,
    version=VERSION,
    source=SOURCE,
    summary="handwritten digits, land use, letters and sketches: 60 classes in 6 tasks of 10, shuffled",
)

mini_objects60_6x10 = protocol(
    name="mini-objects60-6x10",
    dataset="mini-objects",
    sizes=[10] * 6,
    version=VERSION,
    source=SOURCE,
    summary="60 unseen colour-object pairs in 6 tasks of 10: zero-shot is strong, so forgetting it shows",
)

mini_mtil_order1 = Protocol(
    name="mini-mtil-order1",
    version=VERSION,
    source=SOURCE,
    kind="task-incremental",
    summary="nine image domains, one task each, in the stand-in for ZSCL's Order I",
    tasks=one_task_per_dataset(
        [f"mini-{d}" for d in "letters shapes landuse textures digits sketches counts scenes objects".split()]
    ),
    fixed_order=True,
)

mini_mtil_order2 = Protocol(
    name="mini-mtil-order2",
    version=VERSION,
    source=SOURCE,
    kind="task-incremental",
    summary="nine image domains, one task each, in alphabetical order",
    tasks=one_task_per_dataset(
        [f"mini-{d}" for d in "counts digits landuse letters objects scenes shapes sketches textures".split()]
    ),
    fixed_order=True,
)

# one template, as X-TAIL has it: classes of all data sets compete
_TEMPLATES = ("a photo of a {}.",)

mini_xtail_order1 = Protocol(
    name="mini-xtail-order1",
    version=VERSION,
    source=SOURCE,
    kind="task-agnostic",
    summary="nine image domains, one task each, among all their classes from the start: the stand-in for X-TAIL's Order I",
    tasks=mini_mtil_order1.tasks,
    fixed_order=True,
    templates=_TEMPLATES,
)

mini_xtail_order2 = Protocol(
    name="mini-xtail-order2",
    version=VERSION,
    source=SOURCE,
    kind="task-agnostic",
    summary="nine image domains, one task each, among all their classes from the start, in alphabetical order",
    tasks=mini_mtil_order2.tasks,
    fixed_order=True,
    templates=_TEMPLATES,
)

_FIRST_DOMAINS = class_incremental("mini-shapes-objects", [10] * 4)
_SECOND_DOMAINS = class_incremental("mini-sketches-letters", [10] * 4)


def _cross_domain_tasks(order_seed: int) -> Sequence[TaskPlan]:
    """Both streams one after the other, each in its own class order."""
    plans = [*_FIRST_DOMAINS(order_seed), *_SECOND_DOMAINS(order_seed)]
    return [TaskPlan(f"{plan.dataset.removeprefix('mini-')} {plan.name}", plan.dataset, plan.labels) for plan in plans]


mini_cdcl = Protocol(
    name="mini-cdcl",
    version=VERSION,
    source=SOURCE,
    kind="class-incremental",
    summary="coloured shapes and objects (4 x 10), then sketches and letters (4 x 10), evaluated on all classes jointly",
    tasks=_cross_domain_tasks,
)
