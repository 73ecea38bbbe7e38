"""`bench show`: everything there is to know about one name."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from bench.commands.completion import one_of
from bench.commands.further_texts import PACKAGES, further_texts
from bench.commands.options import CACHE_DIR, DATA_DIR, PLURALS, chosen_folders
from bench.errors import BenchError, unknown_name
from bench.learning import recipes as tuned_recipes
from bench.learning.settings import search_space
from bench.learning.stated import UNSTATED, claim, is_built_in, is_stated, may_be_divided, needs_of, scenarios_of, source_of
from bench.results import conformance, paper_tables
from bench.streams import names, validation
from bench.system import registry
from bench.system.written_classes import Unreadable, WrittenFunction, written_class

if TYPE_CHECKING:
    from bench.images.dataset import Dataset, Folders
    from bench.streams.protocol import Protocol, TaskPlan
    from bench.streams.scenario import Scenario

KINDS = ("method", "protocol", "dataset")
LISTS = (*PLURALS, "backbones", "metrics", "tables")  # of bench list
PUBLISHED = "published"  # in the place of a name: the numbers of papers
SHOWN = (  # of a method
    "Settings", "recipes", "paper", "trains", "conformance", "inputs", "needs", "on_embeddings", "zero_shot", "joint",
    "scenarios", "scores_depend_on_list", "several_processes",
)  # fmt: skip
NEEDS = {  # what a method may need of CLIP, in words (bench/learning/method.py)
    "features": "embeddings of images",
    "pooled": "embeddings of images from before the projection",
    "texts": "embeddings of the prompts",
    "projection": "the matrix of the projection",
    "towers": "CLIP's towers: no file of embeddings is enough",
}
EVALUATED = {
    "class-incremental": "after every task: learned tasks among all classes seen so far, tasks to come among all classes",
    "task-incremental": "after every task, on all test sets, each among its own classes",
    "task-agnostic": "after every task, on all test sets, each among all classes of the stream",
}
DEPENDENT = "depend on the other classes asked for: each set of candidates is scored by itself"
USERS_FOLDERS = partial(chosen_folders, None, None)
AMONG_SEEN = "after every task, on all test sets, each among all classes seen so far and, not learned yet, its own as well"


def _further_names() -> list[str]:
    """What is shown beside methods, protocols and data sets."""
    from bench.results.metrics import METRICS

    return [*METRICS, *paper_tables.names(), PUBLISHED]


@click.command("show", short_help="Show all about a method, protocol, data set, metric or paper.")
@click.argument("name", shell_complete=one_of(*KINDS, also=_further_names))
@click.argument("paper", required=False)
@DATA_DIR
@CACHE_DIR
def show_command(name: str, paper: str | None, data_dir: Path | None, cache_dir: Path | None) -> None:
    """Show a method, protocol, data set, metric or table of a paper: what it is, its origin, every number it is run with.

    bench show published names the papers whose numbers ship with the package, bench show published PAPER prints those of one.
    """
    click.echo(show(name, data_dir, cache_dir, paper))


def show(name: str, data_dir: Path | None = None, cache_dir: Path | None = None, paper: str | None = None) -> str:
    """A page of text about a method, protocol, data set, metric or table. In the folders, validation images are counted.

    "published" is about the numbers of all papers, or of one.
    """
    if name == PUBLISHED:
        from bench.commands import published_pages

        return published_pages.page(paper)
    if paper is not None:
        raise BenchError(f"bench show takes one name, not {name} and {paper}; a paper stands behind {PUBLISHED} alone")
    from bench.results.metrics import METRICS

    pages = []
    folders = partial(chosen_folders, data_dir, cache_dir)
    if registry.knows("method", name):
        pages.append(_method(registry.name_of(name), _method_class(name)))
    if name in registry.names("protocol"):
        pages.append(_protocol(name, registry.load("protocol", name), folders))
    if name in registry.names("dataset"):
        pages.append(_dataset(name, registry.load("dataset", name)))
    if name in METRICS:
        from bench.commands import metric_pages

        pages.append(metric_pages.page(name, METRICS[name]))
    if name in paper_tables.names():
        from bench.commands.paper_pages import page

        pages.append(page(name))
    if not pages and names.looks_possible(name):
        pages.append(_made_from_its_name(name, folders))
    if not pages and name in LISTS:
        raise BenchError(f"bench show takes one name; bench list {name} names them")
    if not pages:
        known = [n for kind in KINDS for n in registry.names(kind)]
        raise unknown_name("name", name, [*known, *_further_names()])
    return "\n".join(pages)


def _made_from_its_name(name: str, folders: Callable[[], "Folders"]) -> str:
    """Of a protocol or a data set that has no entry of its own."""
    from bench.streams.protocol import Protocol

    found = names.find_protocol_or_dataset(name)
    return _protocol(found.name, found, folders) if isinstance(found, Protocol) else _dataset(found.info.name, found)


def _method_class(name: str) -> Any:
    """What a method says of itself: read from its source if it is a built-in one, since importing it takes seconds.

    Of a plug-in, or of a file, the class itself: whether it can be imported is worth knowing.
    """
    module, _, written = registry.target("method", name).partition(":")
    if registry.package("method", name) == registry.BUILT_IN:
        try:
            found = written_class(module, written)
            if not any(isinstance(getattr(found, attribute), WrittenFunction) for attribute in SHOWN):
                return found
        except Unreadable:  # it states something by code
            pass
    return registry.load("method", name)


def _method(name: str, method: Any) -> str:
    zero_shot = "yes" if method.zero_shot else "no: its zero-shot cells stay empty"
    learns = "all tasks at once (upper bound)" if method.joint else "task after task"
    facts = [
        ("paper", claim(method, "paper")),
        ("trains", claim(method, "trains")),
        *_extended(method),
        ("sees", f"{method.inputs} of the images{_by_default(method, 'inputs')}"),
        ("needs", f"{_needs(method)}{_by_default(method, 'needs')}"),
        ("scores unlearned classes", f"{zero_shot}{_by_default(method, 'zero_shot')}"),
        *([("scores of a class", DEPENDENT)] if method.scores_depend_on_list else []),
        ("learns", f"{learns}{_by_default(method, 'joint')}"),
        ("scenarios", ", ".join(scenarios_of(method)) + _by_default(method, "scenarios")),
        *([("one run", "may be divided over several processes (--processes)")] if may_be_divided(method) else []),
        ("conformance", claim(method, "conformance")),
    ]
    rows = [
        [field.name, _value(field.default), field.metadata.get("help") or UNSTATED, source_of(method.Settings, field)]
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
    further = [part for source, text in further_texts(method) for part in (f"from {source}:", "", indent(text, "    "), "")]
    return "\n".join([*parts, *_tuning(name, method), *further, *_compared(name, method)])


def _needs(method: Any) -> str:
    """What it needs of CLIP with its default settings, and with those that do with less."""
    defaults = {field.name: field.default for field in dataclasses.fields(method.Settings)}
    usual, less = (needs_of(method, SimpleNamespace(**given)) for given in (defaults, defaults | method.on_embeddings))
    said = _in_words(usual)
    if less == usual:
        return said
    changed = ", ".join(f"{field}={_value(value)}" for field, value in method.on_embeddings.items())
    return f"{said}; with {changed}: {_in_words(less)}"


def _in_words(needs: Sequence[str]) -> str:
    """
    >>> _in_words(("features", "texts"))
    'embeddings of images, embeddings of the prompts; runs on a file of them (embeddings:FILE)'
    """
    said = ", ".join(NEEDS.get(need, need) for need in needs)
    return said if "towers" in needs else f"{said}; runs on a file of them (embeddings:FILE)"


def _tuning(name: str, method: Any) -> list[str]:
    """What bench tune tries for a method, and the recipes that it has found, which ship with the package."""
    parts: list[str] = []
    if space := search_space(method.Settings):
        rows = [[field, str(search)] for field, search in space.items()]
        parts += ["searched by bench tune:", tabulate(rows, tablefmt="plain", disable_numparse=True), ""]
    if found := tuned_recipes.shipped_of(name):
        said = [[one.protocol, ", ".join(f"{field}={_value(value)}" for field, value in one.settings.items())] for one in found]
        how = [[one.protocol, _how_tuned(one.tuned)] for one in found]
        parts += ["tuned on validation, above what is different there:", tabulate([*said, *how], tablefmt="plain"), ""]
    return parts


def _how_tuned(tuned: Mapping[str, Any]) -> str:
    """The budget of a search, its scores, and the digest of its trials."""
    told = {key: tuned.get(key, "not stated") for key in ("trials", "failed", "seconds", "metric", "score", "study", "on")}
    present = tuned.get("score_at_present", "not stated")
    return (
        f"{told['trials']} trials ({told['failed']} failed, {told['seconds']} seconds) on {told['on']}: {told['metric']} "
        f"{told['score']}, before {present}; study {told['study']}"
    )


def _compared(name: str, method: type) -> list[str]:
    """Whose code a built-in method was compared with, and how far apart the numbers were. Of a plug-in nobody has measured it."""
    errors = conformance.errors_of(name) if is_built_in(method) else ()
    if not errors:
        return []
    directories = dict.fromkeys(error.vectors for error in errors)
    code = [conformance.authors_code()[directory] for directory in directories]
    sources = [[one.vectors, one.repository, one.commit, one.commit_date or "date not known", one.note] for one in code]
    rows = [
        [f"{error.vectors}/{error.file}", error.computed_in, error.arrays, f"{error.worst:.3g}", error.worst_array, error.limits]
        for error in errors
    ]
    measured = dict.fromkeys(f"measured on {error.measured} with {error.made_with}" for error in errors)
    of_sources = ["vectors", "repository on GitHub", "commit", "of", "part of it"]
    of_rows = ["vectors", "in", "arrays", "error", "of", "limits (arrays)"]
    return [
        "compared with the numbers of:",
        tabulate(sources, of_sources, tablefmt="simple", disable_numparse=True),
        "",
        "largest error, as a fraction of its limit:",
        tabulate(rows, of_rows, tablefmt="simple", disable_numparse=True),
        *measured,
        "",
    ]


def _by_default(method: type, attribute: str) -> str:
    """What the harness goes by although the author has not said it is marked as such."""
    return "" if is_stated(method, attribute) else f" (by default: {UNSTATED})"


def _extended(method: type) -> list[tuple[str, str]]:
    """The built-in method that a plug-in extends, which explains what it inherits."""
    base = next((base for base in method.__mro__ if is_built_in(base)), method)
    if base is method or base.__module__ == "bench.learning.method":
        return []
    target = f"{base.__module__}:{base.__qualname__}"
    name = next((name for name in registry.names("method") if registry.target("method", name) == target), "")
    return [("extends", f"{base.__qualname__} of {base.__module__}" + (f" (bench show {name})" if name else ""))]


def _protocol(name: str, protocol: "Protocol", folders: Callable[[], "Folders"] = USERS_FOLDERS) -> str:
    from bench.streams.options import options_of
    from bench.streams.shots import RULES

    scenario, plans = protocol.scenario(0), protocol.tasks(0)
    evaluated = AMONG_SEEN if scenario.kind == "task-agnostic" and not scenario.names_known else EVALUATED[scenario.kind]
    facts = [
        ("version", protocol.version),
        ("scenario", protocol.kind),
        ("tasks", f"{len(plans)}, {len(scenario.class_names)} classes"),
        ("evaluated", evaluated.replace("test sets", "validation parts") if protocol.validation else evaluated),
        ("class order", _order(protocol)),
        ("exemplars", protocol.exemplars),
        ("training images", f"{protocol.shots} of every class, {RULES[protocol.shot_rule].summary}" if protocol.shots else "all"),
        ("compute budget", "every task as many training images as the first one has" if protocol.budgeted else "none"),
        ("templates", _templates(scenario.templates)),
    ]
    if protocol.validation:
        facts.append(("validation", f"{protocol.validation.words}, scored instead of test images; {validation.RULE}"))
    facts.append(("source", protocol.source or UNSTATED))
    facts += [("note", note) for note in protocol.notes]
    options = [[f"+{option}", what] for option, what in options_of(protocol).items()]
    of_tasks = ["task", "name", "data set", "classes", "which (order seed 0)"]
    scored = "validation" if protocol.validation else "test"
    of_datasets = ["data set", "classes", "train", scored, "templates", "first template"]
    parts = [
        f"protocol {name}: {protocol.summary}",
        tabulate(facts, tablefmt="plain"),
        tabulate(_tasks(plans, scenario), of_tasks, tablefmt="simple"),
        tabulate(_datasets(protocol, plans, folders), of_datasets, tablefmt="simple"),
        "options, added to the name:\n" + tabulate(options, tablefmt="plain"),
    ]
    return "\n\n".join(parts) + "\n"


def _order(protocol: "Protocol") -> str:
    rule = f"{protocol.order}: {protocol.orders[protocol.order].summary}" if protocol.order in protocol.orders else ""
    if protocol.fixed_order:
        return f"fixed, {rule}" if rule else "fixed"
    return rule or "depends on the order seed"


def _templates(of_classes: Sequence[tuple[str, ...]]) -> str:
    found = list(dict.fromkeys(of_classes))
    if len(found) > 1:
        return "each data set's own, see below; training uses the first, evaluation averages all"
    first, *more = found[0]
    return f"{first}  and {len(more)} more: training uses the first, evaluation averages all" if more else first


def _tasks(plans: Sequence["TaskPlan"], scenario: "Scenario") -> list[list]:
    rows, first = [], 0
    for index, plan in enumerate(plans):
        classes = scenario.class_names[first : first + len(plan.labels)]
        first += len(plan.labels)
        shown = ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")
        rows.append([index, plan.name, plan.dataset, len(classes), shown])
    return rows


def _datasets(protocol: "Protocol", plans: Sequence["TaskPlan"], folders: Callable[[], "Folders"]) -> list[list]:
    """A row for each data set of the stream: how many images and templates it has."""
    rows = []
    divided = _divided(protocol, plans, folders()) if protocol.validation else {}
    for name in dict.fromkeys(plan.dataset for plan in plans):
        info = protocol.dataset(name).info
        train, test = ("not stated" if info.images(split) is None else info.images(split) for split in ("train", "test"))
        train, test = divided.get(name, (train, test))
        templates = protocol.templates or info.templates
        rows.append([name, len(info.class_names), train, test, len(templates), templates[0]])
    return rows


def _divided(protocol: "Protocol", plans: Sequence["TaskPlan"], folders: "Folders") -> dict[str, tuple[str, str]]:
    """Data set -> how many images of the stream's classes are left for training, and held out: counted where the data set is
    there, else computed from its official number as if its classes were of equal size."""
    import numpy as np

    from bench.streams import sources

    there = sources.there(protocol, 0, folders)
    sources.refuse_undivided(protocol, 0, folders, False, there)
    found = {}
    for name in dict.fromkeys(plan.dataset for plan in plans):
        labels = [label for plan in plans if plan.dataset == name for label in plan.labels]
        info = protocol.dataset(name).info
        if name in there:
            parts = [sources.images(protocol, name, split, folders, None).labels for split in ("train", "test")]
            train, held_out = (int(np.isin(part, labels).sum()) for part in parts)
            found[name] = str(train), str(held_out)
        elif protocol.shots or info.train_images:
            of_each = protocol.shots or (info.train_images or 0) // len(info.class_names)
            held = protocol.validation.of_class(of_each) if protocol.validation else 0
            found[name] = f"about {(of_each - held) * len(labels)}", f"about {held * len(labels)}"
        else:
            found[name] = "not stated", "not stated"
    return found


def _dataset(name: str, dataset: "Dataset") -> str:
    info = dataset.info
    facts = [
        ("version", info.version),
        ("classes", len(info.class_names)),
        ("images", f"{info.train_images or 'not stated'} / {info.test_images or 'not stated'} for training / testing"),
        ("templates", "; ".join(info.templates)),
        ("origin", info.origin or UNSTATED),
        ("names", ", ".join(info.class_names[:12]) + (", ..." if len(info.class_names) > 12 else "")),
    ]
    return "\n".join([f"data set {name}: {info.summary}", tabulate(facts, tablefmt="plain"), ""])


def _value(value: object) -> str:
    if isinstance(value, str) and value.startswith(str(PACKAGES)):  # a file that ships with a method, wherever it is installed
        return Path(value).relative_to(PACKAGES).as_posix()
    return '""' if value == "" else str(value)
