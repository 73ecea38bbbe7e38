"""The conformance tests take any set: with fewer tasks, and of a stream that leaves out classes of the fixture.

Vectors of other people's runs have other classes, orders and numbers of tasks than the ones stored here; a test that quietly
counts on these would only be found out there.
"""

import inspect
from fnmatch import fnmatchcase

import numpy as np
import pytest

from tests.conformance import sets, truncated
from tests.conformance.vectors import Vectors
from tests.conftest import OWN_VECTORS

QUICK_RUNS = {  # of all that a file holds, to be quick
    "cca-cl": ["tuned"], "zscl": ["finetune", "zscl"], "lwf": ["lwf-vr"], "wise-ft": ["wise-ft"],
}  # fmt: skip
FILES = [(place.parent.name, name, facts) for place in sets.indices(OWN_VECTORS) for name, facts in sets.files_of(place).items()]


CASES = {  # one file is enough for a test
    reader: pytest.param(reader, method, name, facts, id=f"{method}/{name}")
    for method, name, facts in reversed(FILES)
    if any(method == own and fnmatchcase(name, pattern) for own, pattern in truncated.CUTS)
    for reader in sets.readers(method, name)
}


def run(reader: sets.Reader, vectors: Vectors, request, monkeypatch) -> None:
    """A conformance test on these vectors, in the precision in which they were computed."""
    given = {"vectors": vectors, "monkeypatch": monkeypatch, "precision": vectors.facts["dtype"]}
    function = reader.function()
    wanted = inspect.signature(function).parameters
    function(**{name: given[name] if name in given else request.getfixturevalue(name) for name in wanted})


@pytest.mark.parametrize(("reader", "method", "name", "facts"), list(CASES.values()))
def test_a_stream_without_the_last_classes_of_the_fixture(reader, method, name, facts, request, monkeypatch):
    whole = quick(Vectors(OWN_VECTORS / method / name, facts))
    vectors = truncated.without_last_task(whole, method)
    learned = {c for classes in vectors.tasks for c in classes}
    assert 0 < len(learned) < len({c for classes in whole.tasks for c in classes})
    run(reader, vectors, request, monkeypatch)
    assert 0 < len(vectors.ratios) < len(list(whole.expected(facts["dtype"])))


@pytest.mark.parametrize("method", ["l2p", "dualprompt", "coda-prompt"])
def test_a_head_with_more_classes_than_the_tasks_have(method, request, monkeypatch):
    """The authors' head is made for all classes of the data set, whatever the tasks."""
    [name, *_], facts = zip(*((name, facts) for own, name, facts in FILES if own == method))
    vectors = truncated.without_last_task(Vectors(OWN_VECTORS / method / name, facts[0]), method, keep_classes=True)
    assert len(vectors["class_order"]) > sum(map(len, vectors.tasks))
    run(sets.readers(method, name)[0], vectors, request, monkeypatch)
    assert vectors.ratios


@pytest.mark.parametrize(
    ("method", "images", "labels", "per_class"),
    [
        ("l2p", "train_index", "train_label", ["init/head.*"]),
        ("simplecil", "train_index", "train_label", []),
        ("ranpac", "train_index_in_order", "train_label_in_order", []),
    ],
)
def test_tasks_of_other_sizes_and_orders_and_a_class_of_one_image(method, images, labels, per_class, request, monkeypatch):
    """No author ran this one: that every array is computed, and of the right shape, is all that can be asked."""
    [(name, facts), *_] = [(name, facts) for own, name, facts in FILES if own == method]
    vectors = Vectors(OWN_VECTORS / method / name, facts)
    tasks, seen = [[6, 2, 5], [0], [7, 1]], np.array([3, 4, 6])
    order = [c for classes in tasks for c in classes]
    expected = [name for name, _ in vectors.expected(facts["dtype"]) if name.startswith("task0/")]
    vectors.params = vectors.params | {"tasks": tasks}
    arrays = {name: array for name, array in vectors.arrays.items() if not name.startswith("task")}
    arrays |= {name: array[: len(order)] for name, array in arrays.items() if any(fnmatchcase(name, one) for one in per_class)}
    for index, classes in enumerate(tasks):
        rows = np.array([12 * c + k for c in classes for k in range(1 if c == 5 else 8)])  # image 12 c + k is of class c
        arrays |= {f"task{index}/{images}": rows, f"task{index}/{labels}": np.array([order.index(row // 12) for row in rows])}
        arrays |= {f"task{index}/{name}": vectors[f"task0/{name}"] for name in ("val_mse", "Q") if f"task0/{name}" in vectors}
    vectors.arrays = arrays | {"class_order": np.array(order)}
    found = {}
    monkeypatch.setattr(vectors, "check", lambda actual, **options: found.update(actual))
    run(sets.readers(method, name)[0], vectors, request, monkeypatch)
    assert {name.replace("task0", f"task{index}") for name in expected for index in range(len(tasks))} <= set(found)
    for index, known in enumerate(seen if method != "l2p" else [6, 6, 6]):  # the ports score all classes
        logits = [value for name, value in found.items() if name.startswith(f"task{index}/") and name.endswith("test_logits")]
        assert logits and {tuple(one.shape) for one in logits} == {(len(vectors["test_index"]), known)}


def quick(vectors: Vectors) -> Vectors:
    """Only some of the runs that a file holds."""
    runs = vectors.params.get("runs")
    if runs:
        kept = set(QUICK_RUNS[vectors.path.parent.name]) & set(runs)
        assert kept
        left_out = set(runs) - kept
        vectors.params = vectors.params | {"runs": {name: run for name, run in runs.items() if name not in left_out}}
        vectors.arrays = {name: array for name, array in vectors.arrays.items() if name.split("/")[0] not in left_out}
    return vectors


def test_every_file_can_be_cut_or_has_a_reason():
    named = [*truncated.CUTS, *truncated.WHOLE]
    for method, name, _ in FILES:
        assert sum(method == own and fnmatchcase(name, pattern) for own, pattern in named) == 1, (method, name)


def stated(arrays: dict, **params) -> Vectors:
    vectors = object.__new__(Vectors)
    vectors.path, vectors.arrays, vectors.params = OWN_VECTORS, {k: np.array(v) for k, v in arrays.items()}, params
    return vectors


@pytest.mark.parametrize(
    ("arrays", "params"),
    [
        ({}, {"tasks": [[5, 2, 7], [0]]}),
        ({"class_order": [5, 2, 7, 0]}, {"tasks": [[5, 2, 7], [0]]}),
        ({"class_order": [5, 2, 7, 0, 1, 3]}, {"tasks": [[0, 1, 2], [3]]}),  # places in the order; two classes are in no task
        ({"tasks": [[5, 2, 7], [0, -1, -1]]}, {}),
        ({"task_classes": [[5, 2, 7], [0, -1, -1]]}, {}),
        ({"task_classes": [5, 2, 7, 0], "task_sizes": [3, 1]}, {}),
        ({"task_classes_flat": [5, 2, 7, 0], "task_sizes": [3, 1]}, {}),
        ({"class_order": [5, 2, 7, 0, 1]}, {"task_sizes": [3, 1]}),
    ],
)
def test_tasks_of_any_size_and_order_are_read_however_they_are_stated(arrays, params):
    assert stated(arrays, **params).tasks == [[5, 2, 7], [0]]


def test_an_order_that_does_not_fit_the_tasks_is_said_to_be_wrong():
    for order in ([5, 2], [5, 2, 2, 0]):
        with pytest.raises(AssertionError, match="but the order is"):
            _ = stated({"class_order": order}, tasks=[[5, 2, 7], [0]]).tasks
