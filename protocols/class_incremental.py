"""Class-incremental streams over one data set: how such a protocol is made, and the names that need no entry.

    <dataset>-<tasks>x<classes>               cifar100-5x20: five tasks of twenty classes
    <dataset>-b<base>-<tasks>x<classes>       cifar100-b50-10x5: fifty classes first, then ten tasks of five

for any registered data set. All classes are learned. Without options the classes are shuffled by the order seed, and no
exemplars are kept.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import BenchError, Dataset, Protocol, unknown_name
from bench.system import registry
from protocols.orders import class_orders

# bump when the rule that turns a name into a stream changes
VERSION = "1"
SOURCE = "no paper: the data set is cut as the name says"
# names that papers, and the listed protocols, use for a data set
ALSO_CALLED = {"cars196": "stanford-cars", "imagenet1000": "imagenet", "tinyimagenet": "tiny-imagenet", "vtab": "vtab50"}
# the classes of VTAB's five domains follow each other; shuffled, its tasks would be something else
DEFAULT_ORDERS = {"vtab50": "natural"}


@dataclass(frozen=True)
class Shape:
    """How many classes each task has: `tasks` x `classes`, after a first task of `base` classes if there is one."""

    base: int
    tasks: int
    classes: int

    @property
    def sizes(self) -> list[int]:
        equal = [self.classes] * self.tasks
        return [self.base, *equal] if self.base else equal

    def __str__(self) -> str:
        equal = f"{self.tasks}x{self.classes}"
        return f"b{self.base}-{equal}" if self.base else equal


def split(name: str) -> tuple[str, Shape] | None:
    """A name of the grammar taken apart; None for any other.

    >>> split("tinyimagenet-b100-5x20")
    ('tinyimagenet', Shape(base=100, tasks=5, classes=20))
    """
    found = re.fullmatch(r"(?P<dataset>.+?)(?:-b(?P<base>[1-9]\d*))?-(?P<tasks>[1-9]\d*)x(?P<classes>[1-9]\d*)", name)
    if found is None:
        return None
    return found["dataset"], Shape(int(found["base"] or 0), int(found["tasks"]), int(found["classes"]))


def protocol(
    name: str,
    dataset: str,
    sizes: Sequence[int],
    version: str,
    summary: str,
    order: str = "shuffled",
    datasets: Mapping[str, Dataset] | None = None,
    **facts: Any,
) -> Protocol:
    """The class-incremental protocol over one data set, with all its orders.

    sizes: classes of each task. datasets: the data set, where it is not registered. facts: further fields of Protocol.
    """
    orders = class_orders(dataset, sizes)
    return Protocol(
        name=name,
        version=version,
        kind="class-incremental",
        summary=summary,
        tasks=orders[order].tasks,
        fixed_order=orders[order].fixed,
        order=order,
        orders=orders,
        datasets=datasets or {},
        **facts,
    )


def family(name: str) -> Protocol | None:
    """<dataset>-<tasks>x<classes> and <dataset>-b<base>-<tasks>x<classes>: any data set, its classes cut into tasks"""
    parts = split(name)
    if parts is None:
        return None
    prefix, shape = parts
    if not re.fullmatch(r"[\w.-]+", prefix):  # a path, for instance
        return None
    dataset, known = ALSO_CALLED.get(prefix, prefix), registry.names("dataset")
    if dataset not in known:
        raise BenchError(f"unknown protocol {name!r}: {unknown_name('data set', prefix, known)}")
    info = registry.load("dataset", dataset).info
    refuse_other_counts(name, prefix, shape, len(info.class_names))
    summary = f"{len(info.class_names)} classes of {info.name}, {in_words(shape)}"
    order = DEFAULT_ORDERS.get(dataset, "shuffled")
    return protocol(name, dataset, shape.sizes, f"{VERSION}.{info.version}", summary, order, source=SOURCE)


def in_words(shape: Shape) -> str:
    """
    >>> in_words(Shape(50, 10, 5))
    'first 50, then 10 tasks of 5'
    """
    tasks = f"{shape.tasks} {'task' if shape.tasks == 1 else 'tasks'} of {shape.classes}"
    return f"first {shape.base}, then {tasks}" if shape.base else tasks


def refuse_other_counts(name: str, prefix: str, shape: Shape, classes: int) -> None:
    """A stream learns every class once: refuse a shape for another number of classes, and offer the closest that fit."""
    asked = sum(shape.sizes)
    if asked == classes:
        return
    offers = " or ".join(f"{prefix}-{one}" for one in _fitting(shape, classes)) or f"{prefix}-1x{classes}"
    raise BenchError(f"unknown protocol {name!r}; did you mean {offers}? {shape} makes {asked} classes, there are {classes}")


def _fitting(shape: Shape, classes: int) -> list[Shape]:
    """Shapes close to the given one that make exactly so many classes: as many tasks, tasks as large, or another first task.

    >>> [str(one) for one in _fitting(Shape(0, 5, 10), 60)]
    ['5x12', '6x10', 'b10-5x10']
    """
    found = []
    if not shape.base and classes % shape.tasks == 0:
        found.append(Shape(0, shape.tasks, classes // shape.tasks))
    if not shape.base and classes % shape.classes == 0:
        found.append(Shape(0, classes // shape.classes, shape.classes))
    rest = classes - shape.tasks * shape.classes
    if rest > 0:
        found.append(Shape(rest, shape.tasks, shape.classes))
    return found
