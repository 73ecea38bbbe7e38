"""The contract that `bench check` holds protocols to, and that it notices those that break it."""

import itertools

import numpy as np
import pytest

from bench.checks import protocol as protocol_contract
from bench.errors import BenchError
from bench.images.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.images.layouts import Layout
from bench.streams import names
from bench.streams.protocol import Protocol, TaskPlan
from bench.system import registry

CLASSES = 6
INFO = DatasetInfo("toy", "1", tuple("red green blue dog cat house".split()), ("a {}.",), "a toy", "made here")
opened = itertools.count()


def source(split: str, labels: np.ndarray, also: int = 0) -> ImageSource:
    """Grey images, no two alike; `also` makes all of them others."""
    first = (100 if split == "test" else 0) + also
    levels = np.arange(first, first + len(labels), dtype=np.uint8)
    return ImageSource.from_arrays(np.broadcast_to(levels[:, None, None, None], (len(labels), 32, 32, 3)).copy(), labels)


def good(split: str, folders: Folders) -> ImageSource:
    return source(split, np.tile(np.arange(CLASSES), 2))


def no_test_image_of_the_last_class(split: str, folders: Folders) -> ImageSource:
    return source(split, np.tile(np.arange(CLASSES - (split == "test")), 2))


def one_training_image_in_the_test(split: str, folders: Folders) -> ImageSource:
    found = good(split, folders)
    if split == "train":
        return found
    images = np.array(found.read(np.arange(len(found))))
    images[3] = 0
    return ImageSource.from_arrays(images, found.labels)


def other_images_every_time(split: str, folders: Folders) -> ImageSource:
    return source(split, np.tile(np.arange(CLASSES), 2), also=1 + next(opened))


def in_two_tasks(order: list[int]) -> list[TaskPlan]:
    return [TaskPlan("first", "toy", tuple(order[:3])), TaskPlan("second", "toy", tuple(order[3:]))]


def shuffled(order_seed: int) -> list[TaskPlan]:
    return in_two_tasks(np.random.default_rng(order_seed).permutation(CLASSES).tolist())


def plans(*tasks: tuple[str, tuple[int, ...]]):
    """The same tasks for every order seed."""
    return lambda order_seed: [TaskPlan(name, "toy", labels) for name, labels in tasks]


def by_chance(order_seed: int) -> list[TaskPlan]:
    return shuffled(next(opened))


def one_class_less_from_seed_3(order_seed: int) -> list[TaskPlan]:
    order = np.random.default_rng(order_seed).permutation(CLASSES).tolist()
    return in_two_tasks(order if order_seed < 3 else [label for label in order if label != 5])


def checked(monkeypatch, cache, tasks=shuffled, open_split=good, layouts=(), **facts) -> list[protocol_contract.Result]:
    facts = {"name": "toy-2x3", "version": "1", "kind": "class-incremental", "summary": "a toy"} | facts
    protocol = Protocol(tasks=tasks, datasets={"toy": Dataset(INFO, open_split, layouts)}, **facts)
    monkeypatch.setattr(names, "find", lambda name: protocol)
    return protocol_contract.check("toy-2x3", Folders(cache, cache))


@pytest.mark.parametrize("name", ["mini-digits-2x5", "mini-digits-1x10+order=natural+exemplars=2-per-class"])
def test_a_protocol_of_the_mini_world_keeps_the_contract(name, cache):
    results = protocol_contract.check(name, Folders(cache, cache))
    assert len(results) == 9 and not [result for result in results if not result.passed]


@pytest.mark.parametrize("changes", [{}, {"kind": "task-incremental"}, {"fixed_order": True, "templates": ("the {}", "a {}.")}])
def test_a_toy_keeps_the_contract(changes, monkeypatch, cache):
    assert not [result for result in checked(monkeypatch, cache, **changes) if not result.passed]


FIXED = {"fixed_order": True}


@pytest.mark.parametrize(
    ("changes", "promise", "complaint"),
    [
        ({"version": ""}, "says what it is", "missing: version"),
        ({"templates": ("a thing",)}, "says what it is", "not with one {}: 'a thing'"),
        ({"templates": ()}, "says what it is", "an empty list of templates"),
        ({"kind": "domain-incremental"}, "is class-incremental, task-", "its kind is 'domain-incremental', not one of class"),
        ({"tasks": plans(), **FIXED}, "has tasks", "it has no task"),
        ({"tasks": plans(("one", (0, 1)), ("none", ())), **FIXED}, "has tasks", "task 'none' has no class"),
        ({"tasks": plans(("one", (0,)), ("one", (1,))), **FIXED}, "has tasks", "2 tasks are called 'one'"),
        ({"tasks": plans(("one", (0,)), (" ", (1,))), **FIXED}, "has tasks", "a task has no name"),
        ({"tasks": plans(("one", (0, 1)), ("two", (1, 2))), **FIXED}, "learns every class", "more than once: green of toy"),
        ({"tasks": plans(("one", (0, 6))), **FIXED}, "learns every class", "toy has no class 6, its classes are 0..5"),
        ({"tasks": one_class_less_from_seed_3}, "has the same classes in every order", "order seed 3 lacks class 5 of toy"),
        ({"tasks": by_chance}, "has the same classes in every order", "order seed 0, asked twice, gives two orders"),
        ({"tasks": plans(("one", (0, 1)), ("two", (2,)))}, "has the same classes in every order", "says fixed_order=True"),
        ({"open_split": no_test_image_of_the_last_class}, "has training and test images", "no test image of house"),
        ({"open_split": one_training_image_in_the_test}, "has no test image among", "1 of task '"),
        ({"open_split": other_images_every_time}, "gives the same stream", "it has other train images in task 'first'"),
    ],
)
def test_a_protocol_that_breaks_a_promise_is_told_which(changes, promise, complaint, monkeypatch, cache):
    (broken,) = [result for result in checked(monkeypatch, cache, **changes) if not result.passed]
    assert broken.name.startswith(promise) and complaint in broken.detail and "\n" not in broken.detail


def test_a_run_that_fails_is_a_broken_promise(monkeypatch, cache):
    (broken,) = [result for result in checked(monkeypatch, cache, templates=("{} {",)) if not result.passed]
    assert broken.name.startswith("can be run") and "ValueError" in broken.detail


def test_whatever_a_plug_in_raises_is_a_broken_promise(monkeypatch, cache):
    def raising(order_seed: int):
        raise KeyError("no such order")

    broken = [result for result in checked(monkeypatch, cache, raising) if not result.passed]
    assert [result.detail for result in broken] == ["KeyError: 'no such order'"] * 3


def test_a_data_set_that_is_not_there_is_said_to_be(monkeypatch, cache):
    layout = Layout("toys", ("train",), good, by_hand="get toys.zip")
    with pytest.raises(BenchError, match="data set toy is not in .*/toys; get toys.zip"):
        checked(monkeypatch, cache, layouts=(layout,))


@pytest.mark.parametrize("name", registry.names("protocol"))
def test_every_protocol_has_a_sound_plan(name, tmp_path):
    bench = protocol_contract.Trial(name, registry.load("protocol", name), Folders(tmp_path, tmp_path), tmp_path)
    assert [promise(bench) for promise in protocol_contract.OF_THE_PLAN] == [""] * 5
