"""Options of a protocol: what may differ from its definition, as a part of its name.

    cifar100-10x10+order=natural+replay-free

An option is joined to the name by "+", so that records, run ids, recipes and tables keep the streams apart. Every
protocol takes the options that mean something for it:

    VARIANT                    the same stream as another paper runs it: other class names, templates, order, exemplars
    template="a photo of a {}."  other words: of several the first one trains, evaluation averages all
    order=NAME                 another order of the classes
    agnostic                   the task of a test image is not given: all classes seen compete, and for an image of a task that
                               is not learned yet its task's own classes, too
    replay-free                no exemplars
    exemplars=N-per-class      another exemplar budget; or exemplars=N-total, which all classes seen share
    budgeted                   training on a task may go through as many images as the first task has
    tasks=K                    the first K tasks alone: of later ones neither images nor class names exist
    validation=N%              that part of the training images of every class is held out and scored; the test images are not
                               opened; or validation=N-per-class (bench/streams/validation.py)

The name is canonical: options stand in this order, and one that changes nothing disappears. Templates stand in it as the digest
that records have of them, for a name is that of a folder.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from bench.errors import BenchError
from bench.images.templates import complaint
from bench.streams import validation
from bench.streams.protocol import Protocol, TaskPlan
from bench.streams.validation import Validation

TEMPLATE = "template="
EXEMPLARS = re.compile(r"exemplars=(?P<number>[1-9]\d*)-(?P<unit>per-class|total)")
FIRST_TASKS = re.compile(r"tasks=(?P<number>[1-9]\d{0,5})")


def with_options(protocol: Protocol, options: Sequence[str]) -> Protocol:
    """The protocol with these options, under its canonical name."""
    chosen: dict[str, str] = {}
    templates = tuple(option.removeprefix(TEMPLATE) for option in options if option.startswith(TEMPLATE))
    for option in [one for one in options if not one.startswith(TEMPLATE)]:
        what = _what(protocol, option)
        if chosen.setdefault(what, option) != option:
            raise BenchError(f"{protocol.name}: +{chosen[what]} and +{option} exclude each other")
    start = protocol.variants[chosen["variant"]] if "variant" in chosen else protocol
    suffixes = [chosen["variant"]] if "variant" in chosen else []
    changed = start
    if templates:
        changed = _with_templates(changed, protocol.name, templates)
        suffixes += [f"{TEMPLATE}{changed.templates_digest()}"] if changed is not start else []
    if "order" in chosen:
        changed = _in_order(changed, protocol.name, chosen["order"].removeprefix("order="))
        suffixes += [chosen["order"]] if changed.order != start.order else []
    if "label space" in chosen:
        changed = replace(changed, kind="task-agnostic", label_space="seen")
        suffixes += ["agnostic"]
    if "exemplars" in chosen:
        changed = _with_exemplars(changed, chosen["exemplars"])
        suffixes += [chosen["exemplars"]] if changed.exemplars != start.exemplars else []
    if "budget" in chosen:
        changed = replace(changed, budgeted=True)
        suffixes += ["budgeted"] if not start.budgeted else []
    if "number of tasks" in chosen:
        cut = _cut(changed, protocol.name, chosen["number of tasks"])
        suffixes += [chosen["number of tasks"]] if cut is not changed else []
        changed = cut
    if "validation" in chosen:
        part = Validation.parse(chosen["validation"])
        changed = replace(changed, validation=part)
        suffixes += [f"{validation.OPTION}{part.text}"] if part != start.validation else []
    whole = [suffix for suffix in suffixes if not FIRST_TASKS.fullmatch(suffix)]  # random numbers go on where a cut stream ends
    like = "+".join([protocol.like or protocol.name, *whole]) if protocol.like or whole != suffixes else ""
    return replace(changed, name="+".join([protocol.name, *suffixes]), like=like)


def _what(protocol: Protocol, option: str) -> str:
    """What the option decides about."""
    if option in protocol.variants:
        return "variant"
    if option.startswith("order=") and protocol.orders:
        return "order"
    if option == "agnostic" and protocol.kind == "task-incremental":
        return "label space"
    if option == "replay-free" or EXEMPLARS.fullmatch(option):
        return "exemplars"
    if option == "budgeted":
        return "budget"
    if FIRST_TASKS.fullmatch(option):
        return "number of tasks"
    if option.startswith("validation"):
        Validation.parse(option)
        return "validation"
    known = ", ".join(f"+{name}" for name in options_of(protocol))
    raise BenchError(f"unknown option +{option} of {protocol.name}; known: {known}")


def _with_templates(protocol: Protocol, name: str, templates: tuple[str, ...]) -> Protocol:
    """The protocol with these words, itself if they are its own."""
    if protocol.embeddings is not None:
        raise BenchError(f"{name}: +{TEMPLATE} needs CLIP's text tower; write the file of embeddings with these templates")
    for place, template in enumerate(templates):
        if wrong := complaint(template):
            raise BenchError(f"{name}: +{TEMPLATE}{wrong}")
        if template in templates[:place]:
            raise BenchError(f"{name}: +{TEMPLATE}{template!r} was given twice")
    changed = replace(protocol, templates=templates)
    return protocol if changed.scenario(0).templates == protocol.scenario(0).templates else changed


def _in_order(protocol: Protocol, name: str, order: str) -> Protocol:
    if order not in protocol.orders:
        raise BenchError(f"unknown order {order!r} of {name}; known: {', '.join(protocol.orders)}")
    chosen = protocol.orders[order]
    return replace(protocol, order=order, tasks=chosen.tasks, fixed_order=chosen.fixed)


def _with_exemplars(protocol: Protocol, option: str) -> Protocol:
    found = EXEMPLARS.fullmatch(option)
    number = {found["unit"]: int(found["number"])} if found else {}
    return replace(protocol, exemplars_per_class=number.get("per-class"), exemplars_total=number.get("total"))


def _cut(protocol: Protocol, name: str, option: str) -> Protocol:
    """Its first tasks alone; itself where these are all."""
    count, every = int(option.removeprefix("tasks=")), len(protocol.tasks(0))
    if count > every:
        raise BenchError(f"{name}: +{option} asks for more tasks than there are ({every})")
    return replace(protocol, tasks=partial(_first_tasks, protocol.tasks, count)) if count < every else protocol


def _first_tasks(tasks: Callable[[int], Sequence[TaskPlan]], count: int, order_seed: int) -> list[TaskPlan]:
    return list(tasks(order_seed)[:count])


def options_of(protocol: Protocol) -> dict[str, str]:
    """Every option that changes something, and what it does."""
    found = {name: variant.summary for name, variant in protocol.variants.items()}
    found |= {f"order={name}": order.summary for name, order in protocol.orders.items() if name != protocol.order}
    if protocol.kind == "task-incremental":
        found["agnostic"] = "no task identity: all classes seen compete, and for a task not learned yet its own, too"
    if protocol.exemplars != "none":
        found["replay-free"] = "no exemplars"
    found["exemplars=N-per-class"] = "N exemplars of every class"
    found["exemplars=N-total"] = "N exemplars in all, shared by the classes seen"
    if not protocol.budgeted:
        found["budgeted"] = "compute budget: training on a task goes through as many images as the first task has, and no more"
    if len(protocol.tasks(0)) > 1:
        found["tasks=K"] = "the first K tasks alone: nothing is known of later ones"
    if not protocol.validation:
        found["validation=20%"] = "20% (or 1% to 99%) of the training images of every class are scored; no test image is opened"
        found["validation=N-per-class"] = "the same with N training images of every class"
    found['template="..."'] = "a prompt of your own, {} for the class's name; of several the first trains and all score"
    return found
