"""Protocols: shots, compute budgets, orders, data sets that are not registered."""

import numpy as np
import pytest

from bench.errors import BenchError
from bench.images.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.streams.features import FeatureStore
from bench.streams.opening import open_stream
from bench.streams.protocol import Protocol, class_incremental
from bench.streams.shots import few_shots

TRAIN, TEST = 7, 3  # images of every class


def toy_dataset(name: str, classes: int, official: int | None = None) -> Dataset:
    """Grey images: the class's label is the grey level of its pixels, the row a second channel's."""
    info = DatasetInfo(
        name, "1", tuple(f"{name} {k}" for k in range(classes)), ("a {}.",), "toy", "made here", train_images=official
    )

    def open_split(split: str, folders: Folders) -> ImageSource:
        labels = np.tile(np.arange(classes), TRAIN if split == "train" else TEST)
        images = np.zeros((len(labels), 8, 8, 3), np.uint8)
        images[..., 0], images[..., 1] = labels[:, None, None], np.arange(len(labels))[:, None, None]
        return ImageSource.from_arrays(images, labels)

    return Dataset(info, open_split)


@pytest.fixture
def toy(small_backbone, tmp_path):
    """toy(sizes, **fields): the stream of a protocol over a data set that nobody has registered."""

    def make(sizes=(2, 3), limit_train=None, synthetic=False, official=None, **fields):
        dataset = toy_dataset("toy", sum(sizes), official)
        tasks = class_incremental("toy", sizes, lambda order_seed: list(range(sum(sizes)))[::-1])
        made = Protocol("toy", "1", "class-incremental", "", tasks, datasets={"toy": dataset}, **fields)
        store, folders = FeatureStore(small_backbone, tmp_path), Folders(tmp_path, tmp_path)
        return open_stream(made, 0, store, folders, limit_train, None, synthetic)

    return make


def test_tasks_follow_the_order_that_was_given(toy):
    stream = toy()
    assert stream.scenario.class_names == ("toy 4", "toy 3", "toy 2", "toy 1", "toy 0")
    source, rows = stream.tasks[1].train.pieces[0]
    assert set(source.labels[rows]) == {2, 1, 0}
    assert stream.tasks[1].train.labels.tolist() == [4 - label for label in source.labels[rows]]


def test_a_budget_is_the_number_of_training_images_of_the_first_task(toy):
    assert toy(budgeted=True).scenario.images_per_task == 2 * TRAIN
    assert toy(budgeted=True, limit_train=4).scenario.images_per_task == 2 * 4
    assert toy().scenario.images_per_task is None


def test_shots_are_taken_from_training_images_only_and_before_the_limit(toy):
    stream = toy(shots=3)
    assert [len(task.train) for task in stream.tasks] == [2 * 3, 3 * 3]
    assert [len(task.test) for task in stream.tasks] == [2 * TEST, 3 * TEST]
    kept = {image[0, 0, 1] for source, rows in stream.tasks[0].train.pieces for image in source.read(rows)}
    fewer = {image[0, 0, 1] for source, rows in toy(shots=3, limit_train=2).tasks[0].train.pieces for image in source.read(rows)}
    assert fewer < kept


def test_shots_are_nested_differ_between_data_sets_and_leave_small_classes_whole():
    labels = np.repeat([0, 1, 2], [40, 30, 3])
    five, sixteen = few_shots(labels, 5, "a"), few_shots(labels, 16, "a")
    assert np.bincount(labels[five]).tolist() == [5, 5, 3]
    assert np.bincount(labels[sixteen]).tolist() == [16, 16, 3]
    assert set(five) < set(sixteen)
    assert (np.diff(sixteen) > 0).all()
    assert set(few_shots(labels, 5, "b")) != set(five)
    assert set(five) != set(np.flatnonzero(labels == 0)[:5]) | set(np.flatnonzero(labels == 1)[:5]) | {70, 71, 72}


def test_synthetic_streams_open_no_data_set(small_backbone, tmp_path):
    def refuse(split, folders):
        raise AssertionError("the data set was opened")

    info = DatasetInfo("far", "1", ("a", "b", "c"), ("a {}.",), "", "", train_images=10, test_images=4, image_size=(20, 30))
    tasks = class_incremental("far", [1, 2], lambda order_seed: [2, 0, 1])
    made = Protocol("p", "1", "class-incremental", "", tasks, datasets={"far": Dataset(info, refuse)})
    stream = open_stream(made, 0, FeatureStore(small_backbone, tmp_path), Folders(tmp_path, tmp_path), synthetic=True)
    assert [len(task.train) for task in stream.tasks] == [3, 7]  # ten images over three classes: 4, 3 and 3
    assert [len(task.test) for task in stream.tasks] == [1, 3]
    assert stream.tasks[0].train.features().shape[0] == 3


def test_a_task_without_images_is_refused(small_backbone, tmp_path):
    info = DatasetInfo("empty", "1", ("a", "b"), ("a {}.",), "", "")
    dataset = Dataset(info, lambda split, folders: ImageSource.from_arrays(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1)))
    made = Protocol("p", "1", "class-incremental", "", class_incremental("empty", [1, 1], lambda seed: [0, 1]),
                    datasets={"empty": dataset})  # fmt: skip
    with pytest.raises(BenchError, match="task 'classes 2-2' has no train images"):
        open_stream(made, 0, FeatureStore(small_backbone, tmp_path), Folders(tmp_path, tmp_path))


def test_a_limit_shortens_the_synthetic_training_of_generative_methods_in_proportion(toy):
    whole, limited = toy().scenario, toy(limit_train=4).scenario
    assert whole.train_fraction == 1 and whole.scaled(256) == 256
    assert limited.train_fraction == 4 / TRAIN and limited.scaled(256) == round(256 * 4 / TRAIN)
    assert limited.scaled(1) == 1
    assert toy(official=10 * TRAIN * 5).scenario.train_fraction == pytest.approx(0.1)  # a copy of a tenth of the images
    assert toy(official=5 * TRAIN).scenario.train_fraction == toy(official=1).scenario.train_fraction == 1
    assert toy(shots=3).scenario.train_fraction == 1  # a few-shot protocol is whole with its shots
