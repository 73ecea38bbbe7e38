"""Training by several processes, in double precision: what is left of the difference to one process is no rounding.

`trained_by(n, folder)` lets n processes of their own train every case together. A random CLIP and images of noise; batches that
do not divide evenly, and a last one in which the third of three processes has no image.
"""

import multiprocessing
from pathlib import Path

import numpy as np
import open_clip
import torch

from bench.clip.backbone import Backbone
from bench.images.dataset import ImageSource
from bench.streams.features import FeatureStore
from bench.streams.reference import Reference
from bench.streams.stream import Scenario, Split, Stream, Task
from bench.system import registry
from bench.system.processes import ALONE, Joined, Processes
from bench.system.randomness import Draws
from tests.methods.teaching import teach
from tests.small_world import SIZE, small_clip, small_transform

QUICK = {"lr": 1e-3, "iterations": 4, "warmup": 1, "batch_size": 4, "crop_scale": 0.5}
DISTILLED = {"image_weight": 2.0, "text_weight": 3.0}
CASES = {  # name -> method, settings, kind of stream
    "finetune": ("finetune", {}, "class-incremental"),
    "finetune, all switches": (
        "finetune", {"accumulate": 2, "epochs": 2, "competitors": "seen", "weight_decay": 0.1, "gradient_checkpointing": True},
        "class-incremental",
    ),
    "finetune, images": ("finetune", {"train_mode": "image"}, "task-incremental"),
    "finetune, text": ("finetune", {"train_mode": "text"}, "task-incremental"),
    "l2-wc": ("l2-wc", {"l2_weight": 3.0}, "class-incremental"),
    "we": ("we", {"average_every": 2}, "class-incremental"),
    "wise-ft": ("wise-ft", {}, "class-incremental"),
    "lwf": ("lwf", DISTILLED, "class-incremental"),
    "lwf, teacher is student": ("lwf", DISTILLED | {"teacher_is_student": True}, "class-incremental"),
    "lwf-vr": ("lwf-vr", DISTILLED | {"sentences": 7}, "class-incremental"),
    "icarl": ("icarl", DISTILLED | {"memory_size": 6, "teacher": "previous"}, "class-incremental"),
    # the initial CLIP's features come from the store, in single precision: another teacher
    "zscl": ("zscl", DISTILLED | {"teacher": "previous", "average_every": 2}, "class-incremental"),
    "zscl-star": ("zscl-star", DISTILLED | {"teacher": "merged", "average_every": 2}, "class-incremental"),
    "zscl-minus": ("zscl-minus", DISTILLED | {"teacher": "merged"}, "task-incremental"),
    "joint": ("joint", {}, "class-incremental"),
    "joint, tasks known": ("joint", {"label_smoothing": 0.1}, "task-incremental"),
}  # fmt: skip
NAMES, IMAGES = ("red", "green", "blue", "yellow"), 5  # of every class


class Double(Backbone):
    def preprocess(self, images, view="plain"):
        return super().preprocess(images, view).double()


def _backbone() -> Backbone:
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=77)
    return Double("small", "none", small_clip().double(), tokenizer, small_transform(), "double:0", "cpu")


def _split(store: FeatureStore, seed: int, labels: np.ndarray) -> Split:
    images = np.random.default_rng(seed).integers(0, 255, (len(labels), SIZE, SIZE, 3), dtype=np.uint8)
    source = ImageSource.from_arrays(images, labels)
    return Split([(source, np.arange(len(labels)))], torch.from_numpy(labels), store)


def _stream(store: FeatureStore, kind) -> Stream:
    tasks = []
    for index in range(2):
        classes = (2 * index, 2 * index + 1)
        train = _split(store, index, np.repeat(np.array(classes), IMAGES))
        tasks.append(Task(index, f"task {index}", classes, train, train).for_training())
    return Stream(Scenario(kind, NAMES, (("a photo of a {}.",),) * len(NAMES), (0, 0, 1, 1)), tuple(tasks))


def trained(case: str, processes: Processes, folder: Path) -> dict[str, torch.Tensor]:
    """The state of a method that has learned both tasks."""
    name, settings, kind = CASES[case]
    method_class = registry.load("method", name)
    store = FeatureStore(_backbone(), folder)
    stream = _stream(store, kind)
    made = method_class.Settings(**QUICK | settings)
    method = method_class(made, store.backbone, stream.scenario, Draws("test", name, 0))
    method.processes = processes
    if method.reference_names:
        method.use_reference(Reference(_split(store, 7, np.zeros(7, np.int64)), ("a red thing", "two small things", "the sea")))
    teach(method, *([stream.joined()] if method.joint else stream.tasks))
    return {key: value.clone() for key, value in method.state_dict().items()}


def _take_part(place: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    processes = Joined(place, count, folder / "store", "cpu", seconds=120)
    found = {case: trained(case, processes, folder / str(place)) for case in CASES}
    passes = processes.total_of_others(place + 1)
    for case, state in found.items():
        processes.refuse_other(state, case)
    if place == 0:
        torch.save({"states": found, "of others": passes}, folder / "states.pt")


def trained_by(count: int, folder: Path) -> dict:
    """What the first of so many processes has at the end, of every case."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_take_part, args=(place, count, folder)) for place in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(1200)
    assert [process.exitcode for process in processes] == [0] * count
    return torch.load(folder / "states.pt")


def trained_alone(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {case: trained(case, ALONE, folder) for case in CASES}
