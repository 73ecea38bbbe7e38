"""Cross-dataset continual learning (CDCL): ImageNet-100, then CIFAR-100, 10 tasks of 10 each, all 200 classes jointly.

AttriCLIP's setting (arXiv 2305.11488), taken over by CLAP4CLIP (arXiv 2403.19137), whose driver for it is not public.
What they leave open is decided here:

- the list of ImageNet classes is CLAP4CLIP's (the first 100); AttriCLIP's other list is the option +attriclip, and
  +attriclip-as-published is that list with the 18 class names that do not fit their folders;
- each data set has its own class order, `clap` on both;
- 20 exemplars of every class. CLAP4CLIP's code counts CIFAR-100's 2000 in all by that set's own tasks, which ends at the same
  20 of each class but allows more on the way there;
- templates are each data set's own.

Results: accuracy over all images of both test sets is the metric last_samples; all tasks of a data set are equally large, so
the mean over its tasks is its accuracy.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from bench import Protocol, TaskPlan, class_incremental
from protocols import orders

# bump when a change of orders, budgets, templates or splits moves numbers
VERSION = "1"
EXEMPLARS_PER_CLASS = 20


def _tasks(datasets: tuple[str, ...], order_seed: int) -> Sequence[TaskPlan]:
    """The streams of several data sets of 100 classes, one after another."""
    plans = [
        plan for name in datasets for plan in class_incremental(name, [10] * 10, partial(orders.clap, 100))(order_seed)
    ]
    return [TaskPlan(f"{plan.dataset} {plan.name}", plan.dataset, plan.labels) for plan in plans]


def _protocol(
    name: str, datasets: tuple[str, ...], summary: str, variants: Mapping[str, Protocol] | None = None
) -> Protocol:
    return Protocol(
        name=name,
        version=VERSION,
        kind="class-incremental",
        summary=summary,
        tasks=partial(_tasks, datasets),
        exemplars_per_class=EXEMPLARS_PER_CLASS,
        source="AttriCLIP, arXiv 2305.11488; CLAP4CLIP, arXiv 2403.19137",
        variants=variants or {},
    )


_LIST = "with AttriCLIP's list of 100 ImageNet classes"
_LIST_AS_PUBLISHED = "with AttriCLIP's list of 100 ImageNet classes, wrong class names included"

imagenet100_cifar100 = _protocol(
    "cdcl-imagenet100-cifar100",
    ("imagenet100", "cifar100"),
    summary="ImageNet-100 (10 x 10), then CIFAR-100 (10 x 10), evaluated on all classes jointly",
    variants={
        "attriclip": _protocol("cdcl-imagenet100-cifar100", ("imagenet100-attriclip", "cifar100"), _LIST),
        "attriclip-as-published": _protocol(
            "cdcl-imagenet100-cifar100", ("imagenet100-attriclip-as-published", "cifar100"), _LIST_AS_PUBLISHED
        ),
    },
)

cifar100_imagenet100 = _protocol(
    "cdcl-cifar100-imagenet100",
    ("cifar100", "imagenet100"),
    summary="CIFAR-100 (10 x 10), then ImageNet-100 (10 x 10), evaluated on all classes jointly",
    variants={
        "attriclip": _protocol("cdcl-cifar100-imagenet100", ("cifar100", "imagenet100-attriclip"), _LIST),
        "attriclip-as-published": _protocol(
            "cdcl-cifar100-imagenet100", ("cifar100", "imagenet100-attriclip-as-published"), _LIST_AS_PUBLISHED
        ),
    },
)
