"""The training images of the tasks that a kept model has learned, for methods that go back to them: opened when one is asked for.

Most methods keep what they need in their state. Those whose memory names images of earlier tasks (iCaRL) look them up in the data
set: it has to be here, with the same images.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.runs.kept_model import KeptModel, LearnedTask
from bench.runs.places import of_task
from bench.streams import identity
from bench.streams import names as protocol_names
from bench.streams.features import FeatureStore
from bench.streams.opening import open_stream
from bench.streams.protocol import Protocol
from bench.streams.stream import SealedSplit, Split, Stream, Task


class LaterSplit(Split):
    """A split whose images are looked up when something of it is asked for."""

    def __init__(self, find: Callable[[], Split]):
        self._find = find

    def __getattr__(self, name: str) -> Any:
        if name not in ("pieces", "labels", "store"):
            raise AttributeError(name)
        found = self._find()
        self.pieces, self.labels, self.store = found.pieces, found.labels, found.store
        return getattr(self, name)


def learned_tasks(kept: KeptModel, store: FeatureStore, folders: Folders) -> list[Task]:
    """The tasks of a kept model, as `grow` and `learn` see tasks."""
    stream = functools.cache(lambda: _stream(kept, store, folders))

    def train(index: int, task: LearnedTask) -> Split:
        return own_task(kept, index, store, folders).train if task.folder else stream().tasks[index].train

    return [
        Task(index, task.name, task.classes, LaterSplit(functools.partial(train, index, task)), SealedSplit())
        for index, task in enumerate(kept.tasks)
    ]


def _stream(kept: KeptModel, store: FeatureStore, folders: Folders) -> Stream:
    """The run's stream; BenchError if its images are not here, or are others now."""
    run = kept.run
    try:
        protocol = protocol_names.find(kept.places.protocol(run.protocol_given))
    except BenchError as error:
        raise BenchError(f"{run.method} goes back to the images of {run.protocol}, which are not here: {error}") from error
    args = (run.order_seed, folders, run.limit_train, run.limit_test, run.synthetic)
    now = identity.recorded(protocol, *args)
    then = kept.made_from.get("images") or now
    if any(now[name]["train"] != then.get(name, {}).get("train") for name in now):
        raise BenchError(f"{run.method} goes back to the images of {run.protocol}, which are others now than it has learned")
    return open_stream(protocol, run.order_seed, store, folders, run.limit_train, run.limit_test, run.synthetic)


def own_task(kept: KeptModel, index: int, store: FeatureStore, folders: Folders) -> Task:
    """The task in a folder of the user's; BenchError if it is gone, or other images lie there now."""
    task, what = kept.tasks[index], f"a folder of images that {kept.run.method} goes back to"
    folder = kept.places.file(of_task(index), task.folder, what)
    protocol = protocol_of(folder)
    if digest_of(protocol, folders) != task.images:
        raise BenchError(f"{folder}: other images lie there than those that the model has learned from it")
    return as_task(protocol, task, store, folders)


def protocol_of(folder: Path) -> Protocol:
    """A folder with a sub-folder of images for every class, as a stream of one task with its classes in their order."""
    return protocol_names.find(f"folder:{folder.expanduser().absolute()}-1xall+order=natural")


def digest_of(protocol: Protocol, folders: Folders) -> str:
    """Of the training images."""
    [images] = identity.recorded(protocol, 0, folders, None, None, synthetic=False).values()
    return images["train"]


def as_task(protocol: Protocol, learned: LearnedTask, store: FeatureStore, folders: Folders) -> Task:
    """The one task of that stream, with the classes that it adds to another one."""
    [task] = open_stream(protocol, 0, store, folders).tasks
    first = learned.classes[0]
    splits: Sequence[Split] = [Split(split.pieces, split.labels + first, store) for split in (task.train, task.test)]
    return Task(0, learned.name, learned.classes, *splits)
