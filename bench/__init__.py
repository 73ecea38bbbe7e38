"""A benchmark harness for continual learning of CLIP.

What a plug-in needs of it is here: `from bench import Method, setting, Task`. A name is looked up when it is asked for, so
that `import bench` waits for no library. Inside bench/ nothing is imported from here: the modules themselves are.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bench.system import former_names
from bench.system.public_names import MODULE_OF

if TYPE_CHECKING:
    from bench.clip.backbone import Backbone as Backbone
    from bench.commands.notebook import results as results
    from bench.commands.notebook import run as run
    from bench.commands.notebook import table as table
    from bench.errors import BenchError as BenchError
    from bench.errors import RunFailure as RunFailure
    from bench.errors import UnfitMethod as UnfitMethod
    from bench.errors import one_line as one_line
    from bench.errors import unknown_name as unknown_name
    from bench.images.dataset import Copy as Copy
    from bench.images.dataset import Dataset as Dataset
    from bench.images.dataset import DatasetInfo as DatasetInfo
    from bench.images.dataset import Layout as Layout
    from bench.images.downloads import HubFiles as HubFiles
    from bench.images.downloads import RemoteFile as RemoteFile
    from bench.images.files import ImageFiles as ImageFiles
    from bench.images.folders import Folders as Folders
    from bench.images.layouts import dataset_on_disk as dataset_on_disk
    from bench.images.parquet import parquet_images as parquet_images
    from bench.images.sources import ImageSource as ImageSource
    from bench.learning.method import Method as Method
    from bench.learning.settings import Choices as Choices
    from bench.learning.settings import Range as Range
    from bench.learning.settings import setting as setting
    from bench.learning.test_batches import Composition as Composition
    from bench.learning.test_batches import TestBatches as TestBatches
    from bench.runs.trained_model import TrainedModel as TrainedModel
    from bench.runs.trained_model import load as load
    from bench.streams.protocol import Order as Order
    from bench.streams.protocol import Protocol as Protocol
    from bench.streams.protocol import TaskPlan as TaskPlan
    from bench.streams.protocol import class_incremental as class_incremental
    from bench.streams.protocol import one_task_per_dataset as one_task_per_dataset
    from bench.streams.reference import Reference as Reference
    from bench.streams.reference_sources import ReferenceNames as ReferenceNames
    from bench.streams.scenario import Scenario as Scenario
    from bench.streams.stream import Split as Split
    from bench.streams.stream import Task as Task
    from bench.system.randomness import Draws as Draws
    from bench.system.version import VERSION

    __version__ = VERSION

__all__ = list(MODULE_OF)
CALLED = ("results",)  # packages that can be called


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("bench.system.version").VERSION
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in CALLED:
        return importlib.import_module(f"{__name__}.{name}")
    value = globals()[name] = getattr(importlib.import_module(MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


class _Called(ModuleType):
    """A package of ours that has the name of a public function: `bench.results` is both, whatever was imported first."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(MODULE_OF[name]), name)(*arguments, **named)


class _Face(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        """The import system writes a module into its package; one whose former name is public here must not take its place."""
        if name in CALLED and isinstance(value, ModuleType):
            value.__class__ = _Called
        elif name in MODULE_OF and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
former_names.install()
