"""`bench show`: everything there is to know about one name."""

import dataclasses
import inspect

from tabulate import tabulate

from bench import registry
from bench.errors import unknown_name
from bench.metrics import METRICS


def show(name: str) -> str:
    """A page of text about a method, protocol, data set or metric."""
    pages = []
    for kind, page in (("method", _method), ("protocol", _protocol), ("dataset", _dataset)):
        if name in registry.names(kind):
            pages.append(page(name, registry.load(kind, name)))
    if name in METRICS:
        pages.append(_metric(name))
    if not pages:
        known = [n for kind in registry.KINDS for n in registry.names(kind)]
        raise unknown_name("name", name, [*known, *METRICS])
    return "\n".join(pages)


def _method(name: str, method) -> str:
    facts = [
        ("paper", method.paper),
        ("trains", method.trains),
        ("sees", f"{method.inputs} of the images"),
        ("scores unlearned classes", "yes" if method.zero_shot else "no: its zero-shot cells stay empty"),
        ("learns", "all tasks at once (upper bound)" if method.joint else "task after task"),
        ("scenarios", ", ".join(method.scenarios)),
        ("conformance", method.conformance),
    ]
    rows = [
        [field.name, _value(field.default), field.metadata.get("help", ""), field.metadata.get("source", "")]
        for field in dataclasses.fields(method.Settings)
    ]
    recipes = [
        [pattern, ", ".join(f"{field}={_value(value)}" for field, value in recipe.items())]
        for pattern, recipe in method.recipes.items()
    ]
    parts = [f"method {name}", tabulate(facts, tablefmt="plain"), "", inspect.cleandoc(method.__doc__ or ""), ""]
    if rows:
        parts += ["hyper-parameters:", tabulate(rows, ["name", "default", "what it is", "source"], tablefmt="simple"), ""]
    if recipes:
        parts += ["different on:", tabulate(recipes, tablefmt="plain"), ""]
    return "\n".join(parts)


def _protocol(name: str, protocol) -> str:
    plans = protocol.tasks(0)
    facts = [
        ("version", protocol.version),
        ("scenario", protocol.kind),
        ("class order", "fixed" if protocol.fixed_order else "shuffled by the order seed"),
        ("exemplars", protocol.exemplars),
        ("templates", "; ".join(sorted({t for templates in protocol.scenario(0).templates for t in templates}))),
    ]
    if protocol.source:
        facts.append(("source", protocol.source))
    names = protocol.scenario(0).class_names
    rows, first = [], 0
    for index, plan in enumerate(plans):
        classes = names[first : first + len(plan.labels)]
        first += len(plan.labels)
        shown = ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")
        rows.append([index, plan.name, plan.dataset, len(classes), shown])
    table = tabulate(rows, ["task", "name", "data set", "classes", "which (order seed 0)"], tablefmt="simple")
    return "\n".join([f"protocol {name}: {protocol.summary}", tabulate(facts, tablefmt="plain"), "", table, ""])


def _dataset(name: str, dataset) -> str:
    info = dataset.info
    facts = [
        ("version", info.version),
        ("classes", len(info.class_names)),
        ("templates", "; ".join(info.templates)),
        ("origin", info.origin),
        ("names", ", ".join(info.class_names[:12]) + (", ..." if len(info.class_names) > 12 else "")),
    ]
    return "\n".join([f"data set {name}: {info.summary}", tabulate(facts, tablefmt="plain"), ""])


def _metric(name: str) -> str:
    return f"metric {name}: {METRICS[name].summary}\n\n{inspect.cleandoc(METRICS[name].function.__doc__ or '')}\n"


def _value(value: object) -> str:
    return '""' if value == "" else str(value)
