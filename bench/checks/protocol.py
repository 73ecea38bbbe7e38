"""What a protocol must keep to, tried by `bench check`: its plan of tasks, the stream that it gives, a method that runs on it.

Nothing is downloaded: data sets that are not there are a BenchError that says how to get them.
"""

import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np

from bench.checks.promises import Result, all_tried, wrong_templates
from bench.clip import backbone
from bench.errors import BenchError
from bench.images.complaints import SPLITS, few, require
from bench.images.dataset import Folders
from bench.results import records
from bench.runs import assignments, embedded, launch
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.runs.run import Run
from bench.streams import names as protocol_names
from bench.streams.features import FeatureStore
from bench.streams.opening import open_stream
from bench.streams.protocol import Protocol, TaskPlan
from bench.streams.scenario import ScenarioKind
from bench.streams.stream import Split, Stream
from bench.system import registry

ORDER_SEEDS = range(10)  # those that are tried
RUN_WITH, IMAGES = "zero-shot", 2  # the method that runs on it, on so many training and test images of every class
WITHOUT_TEXT = ("simplecil", {"feature": "projected"})  # what runs on embeddings of images alone


@dataclass
class Trial:
    """A protocol with everything it needs to be tried."""

    name: str
    protocol: Protocol
    folders: Folders
    scratch: Path  # for what is thrown away: features, results

    @functools.cached_property
    def plans(self) -> Sequence[TaskPlan]:
        """The tasks of order seed 0."""
        return self.protocol.tasks(0)

    @functools.cached_property
    def stream(self) -> Stream:
        return self.opened("first")

    def opened(self, place: str) -> Stream:
        """The stream of order seed 0. Data sets are opened once for each place where features are kept."""
        folders = replace(self.folders, features_apart=self.scratch / place)
        store = FeatureStore(backbone.load("mini", None, "cpu"), folders.features)
        return open_stream(self.protocol, 0, store, folders)


def check(name: str, folders: Folders) -> list[Result]:
    """Try every promise on the protocol of that name, those on images only if its plan is sound; BenchError if a data set
    is not there."""
    protocol = protocol_names.find(name)
    target = registry.target("protocol", name)
    with tempfile.TemporaryDirectory() as scratch:
        trial = Trial(name, protocol, folders, Path(scratch))
        results = all_tried(OF_THE_PLAN, trial, target)
        if all(result.passed for result in results):
            for dataset in dict.fromkeys(plan.dataset for plan in trial.plans):
                require(protocol.dataset(dataset), folders, ("train",) if protocol.validation else SPLITS)
            results += all_tried(OF_THE_STREAM, trial, target)
        return results


# -- the promises: each returns a complaint, or "" when kept ----------------------------------------------------


def describes_itself(trial: Trial) -> str:
    """says what it is: its name, a version, a summary, prompt templates with one {}"""
    protocol = trial.protocol
    missing = [what for what in ("version", "summary") if not getattr(protocol, what)]
    complaints = [f"missing: {', '.join(missing)}"] if missing else []
    if trial.name in registry.names("protocol") and protocol.name != trial.name:
        complaints.append(f"its entry point calls it {trial.name!r}, itself {protocol.name!r}")
    if protocol.templates is not None and not protocol.templates:
        complaints.append("an empty list of templates: None stands for those of the data sets")
    if wrong := wrong_templates(protocol.templates or ()):
        complaints.append(f"not with one {{}}: {few([repr(template) for template in wrong])}")
    return "; ".join(complaints)


def kind_is_known(trial: Trial) -> str:
    """is class-incremental, task-incremental or task-agnostic"""
    kinds = get_args(ScenarioKind)
    return "" if trial.protocol.kind in kinds else f"its kind is {trial.protocol.kind!r}, not one of {', '.join(kinds)}"


def tasks_have_names_and_classes(trial: Trial) -> str:
    """has tasks, each with classes and a name of its own"""
    names = Counter(plan.name for plan in trial.plans)
    complaints = []
    if not names:
        complaints.append("it has no task")
    complaints += [f"task {plan.name!r} has no class" for plan in trial.plans if not plan.labels]
    if any(not name.strip() for name in names):
        complaints.append("a task has no name")
    complaints += [f"{count} tasks are called {name!r}" for name, count in names.items() if count > 1]
    return "; ".join(complaints)


def classes_come_once(trial: Trial) -> str:
    """learns every class exactly once"""
    complaints = []
    for dataset in dict.fromkeys(plan.dataset for plan in trial.plans):
        names = trial.protocol.dataset(dataset).info.class_names
        learned = Counter(label for plan in trial.plans if plan.dataset == dataset for label in plan.labels)
        if unknown := [str(label) for label in learned if label not in range(len(names))]:
            complaints.append(f"{dataset} has no class {few(unknown)}, its classes are 0..{len(names) - 1}")
        if twice := [names[label] for label, count in learned.items() if count > 1 and label in range(len(names))]:
            complaints.append(f"learned more than once: {few(twice)} of {dataset}")
    return "; ".join(complaints)


def orders_are_permutations(trial: Trial) -> str:
    """has the same classes in every order, each order seed always giving the same one"""
    wanted = _classes(trial.plans)
    orders: list[list[tuple[str, str, int]]] = []
    for seed in ORDER_SEEDS:
        try:
            plans = trial.protocol.tasks(seed)
        except BenchError:  # not every order seed needs to have an order
            continue
        orders.append(_flat(plans))
        if (found := _classes(plans)) != wanted:
            return f"order seed {seed} {_differences(found, wanted)}, compared with order seed 0"
        if _flat(trial.protocol.tasks(seed)) != orders[-1]:
            return f"order seed {seed}, asked twice, gives two orders"
        if trial.protocol.fixed_order:
            return ""
    if len(orders) > 1 and all(order == orders[0] for order in orders) and len(orders[0]) > 1:
        return "every order seed gives the same order: a protocol with one order says fixed_order=True"
    return ""


def every_class_has_images(trial: Trial) -> str:
    """has training and test images of every class"""
    names = trial.stream.scenario.class_names
    complaints = []
    for kind in SPLITS:
        present = {label for task in trial.stream.tasks for label in getattr(task, kind).labels.tolist()}
        if empty := [names[label] for label in range(len(names)) if label not in present]:
            complaints.append(f"no {kind} image of {few(empty)}")
    return "; ".join(complaints)


def training_sees_no_test_image(trial: Trial) -> str:
    """has no test image among its training images"""
    trained = {digest for task in trial.stream.tasks for digest in _digests(task.train)}
    shared = []
    for task in trial.stream.tasks:
        found = sum(digest in trained for digest in _digests(cast(Split, task.test)))
        if found:
            shared.append(f"{found} of task {task.name!r}")
    return f"test images that are training images, too: {few(shared)}" if shared else ""


def stream_stays_the_same(trial: Trial) -> str:
    """gives the same stream whenever it is opened"""
    first, again = trial.stream, trial.opened("again")
    if first.scenario != again.scenario:
        return "opened twice, it has other classes, templates or budgets"
    for one, other in zip(first.tasks, again.tasks):
        for kind in SPLITS:
            if _content(getattr(one, kind)) != _content(getattr(other, kind)):
                return f"opened twice, it has other {kind} images in task {one.name!r}"
    return ""


def a_method_runs_on_it(trial: Trial) -> str:
    """can be run: zero-shot CLIP (class means where there is no text), on two training and two test images of every class"""
    name, changed = (RUN_WITH, {}) if "texts" in embedded.available(trial.protocol) else WITHOUT_TEXT
    method = registry.load("method", name)
    clip, _ = embedded.conditions(Request(device="cpu", precision="float32"), trial.protocol, Facts(trial.folders, here=True))
    run = Run(
        protocol=trial.protocol.name,
        protocol_version=trial.protocol.version,
        method=name,
        method_version=method.version,
        settings=assignments.identifying(method.settings_for(trial.protocol.known_as, changed)),
        overrides="",
        backbone=clip.backbone,
        pretrained=clip.pretrained,
        weights=clip.weights,
        device="cpu",
        order_seed=0,
        seed=0,
        limit_train=IMAGES,
        limit_test=IMAGES,
        out=trial.scratch / "results",
        given=trial.name,
        validation=trial.protocol.validation.text if trial.protocol.validation else "",
    )
    folders = replace(trial.folders, features_apart=trial.scratch / "features")
    with launch.limited_threads(1):
        outcome = launch.carry_out(run, folders)
    if outcome.reason:
        return outcome.reason
    scored = records.read_csv(run.files.records)["eval_task"].nunique()
    return "" if scored == len(trial.plans) else f"{scored} of {len(trial.plans)} tasks were scored"


OF_THE_PLAN: list[Callable[[Trial], str]] = [
    describes_itself,
    kind_is_known,
    tasks_have_names_and_classes,
    classes_come_once,
    orders_are_permutations,
]
OF_THE_STREAM: list[Callable[[Trial], str]] = [
    every_class_has_images,
    training_sees_no_test_image,
    stream_stays_the_same,
    a_method_runs_on_it,
]


def _flat(plans: Sequence[TaskPlan]) -> list[tuple[str, str, int]]:
    """The classes in learning order, with their tasks."""
    return [(plan.name, plan.dataset, label) for plan in plans for label in plan.labels]


def _classes(plans: Sequence[TaskPlan]) -> Counter[tuple[str, int]]:
    return Counter((plan.dataset, label) for plan in plans for label in plan.labels)


def _differences(found: Counter, wanted: Counter) -> str:
    """The classes that are missing or too many."""
    parts = [("lacks", wanted - found), ("adds", found - wanted)]
    return " and ".join(f"{verb} class {few([f'{label} of {name}' for name, label in some])}" for verb, some in parts if some)


def _digests(split: Split) -> Iterator[str]:
    for source, rows in split.pieces:
        yield from source.image_digests(rows)


def _content(split: Split) -> tuple:
    """What tells a split's images and labels from others."""
    return split.labels.tolist(), [(source.digest, np.asarray(rows).tolist()) for source, rows in split.pieces]
