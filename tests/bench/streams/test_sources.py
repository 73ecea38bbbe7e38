"""Image sources: opened once for all runs of a process, and not kept for ever."""

import numpy as np
import pytest

from bench.images.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.streams import sources
from bench.streams.protocol import Protocol, TaskPlan


@pytest.fixture
def opened(monkeypatch):
    """(a protocol over many data sets, what has been opened of them)"""
    found = []

    def dataset(name: str) -> Dataset:
        def open_split(split: str, folders: Folders) -> ImageSource:
            found.append((name, split))
            return ImageSource.from_arrays(np.zeros((6, 8, 8, 3), np.uint8), np.repeat([0, 1], 3))

        return Dataset(DatasetInfo(name, "1", ("a", "b"), ("a {}.",), "", "", train_images=12), open_split)

    names = [f"toy {k}" for k in range(sources.KEPT + 1)]
    plans = [TaskPlan(name, name, (0, 1)) for name in names]
    sources._opened.cache_clear()
    datasets = {name: dataset(name) for name in names}
    yield Protocol("toys", "1", "class-incremental", "", lambda order_seed: plans, datasets=datasets, shots=2), found
    sources._opened.cache_clear()


def test_a_source_is_opened_once_for_all_runs(opened, tmp_path):
    protocol, found = opened
    first, again = (sources.images(protocol, "toy 0", "train", Folders(tmp_path, tmp_path), None) for _ in range(2))
    assert first is again and found == [("toy 0", "train")]
    elsewhere = sources.images(protocol, "toy 0", "train", Folders(tmp_path / "other", tmp_path), None)
    assert elsewhere is not first and len(found) == 2


def test_those_that_nobody_asks_for_any_more_make_room(opened, tmp_path):
    protocol, found = opened
    folders = Folders(tmp_path, tmp_path)
    for name in protocol.datasets:  # one more than are kept
        sources.images(protocol, name, "train", folders, None)
    assert len(found) == sources.KEPT + 1
    sources.images(protocol, f"toy {sources.KEPT}", "train", folders, None)  # the latest is still there
    assert len(found) == sources.KEPT + 1
    sources.images(protocol, "toy 0", "train", folders, None)
    assert found[-1] == ("toy 0", "train") and len(found) == sources.KEPT + 2


def test_shots_and_limits_are_of_every_class_and_shots_of_training_images_only(opened, tmp_path):
    protocol, _ = opened
    folders = Folders(tmp_path, tmp_path)
    sizes = {
        (split, limit): np.bincount(sources.images(protocol, "toy 0", split, folders, limit).labels).tolist()
        for split in ("train", "test")
        for limit in (None, 1)
    }
    assert sizes == {("train", None): [2, 2], ("train", 1): [1, 1], ("test", None): [3, 3], ("test", 1): [1, 1]}


def test_completeness_is_of_the_whole_copy_whatever_the_shots(opened, tmp_path):
    protocol, _ = opened
    assert sources.completeness(protocol, "toy 0", Folders(tmp_path, tmp_path), synthetic=False) == 0.5
