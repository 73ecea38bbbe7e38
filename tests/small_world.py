"""A CLIP small enough to train in a test, and streams of coloured noise for it."""

from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform

from bench.clip.backbone import Backbone
from bench.images.dataset import ImageSource
from bench.streams.features import FeatureStore
from bench.streams.stream import Scenario, Split, Stream, Task

SIZE = 32
NAMES = ("red", "green", "blue", "yellow", "dark gray", "white")
COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [70, 70, 70], [230, 230, 230]])


def small_clip() -> open_clip.model.CLIP:
    """A random CLIP with two layers a tower, 32 pixels, joint width 24; the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.model.CLIP(
            embed_dim=24,
            vision_cfg={"image_size": SIZE, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
            text_cfg={"context_length": 77, "vocab_size": 49408, "layers": 2, "width": 32, "heads": 2},
        )


def small_transform() -> Callable:
    return image_transform(SIZE, is_train=False, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture(scope="session")
def small_backbone():
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=77)
    return Backbone("small", "none", small_clip(), tokenizer, small_transform(), "small:random:0", "cpu")


@pytest.fixture
def make_stream(small_backbone, tmp_path):
    """make_stream(kind, sizes, per_class): tasks of the given sizes over up to six colours, noisy images."""
    store = FeatureStore(small_backbone, tmp_path)

    def make(kind: str = "class-incremental", sizes: tuple[int, ...] = (2, 2), per_class: int = 5) -> Stream:
        n_classes = sum(sizes)
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(n_classes), per_class)
        noise = rng.normal(0, 30, size=(len(labels), SIZE, SIZE, 3))
        images = np.clip(COLOURS[labels][:, None, None] + noise, 0, 255).astype(np.uint8)
        source = ImageSource.from_arrays(images, labels)
        tasks, first = [], 0
        for index, size in enumerate(sizes):
            classes = tuple(range(first, first + size))
            rows = np.flatnonzero(np.isin(labels, classes))
            train = Split([(source, rows)], torch.from_numpy(labels[rows]), store)
            tasks.append(Task(index, f"task {index}", classes, train, train).for_training())
            first += size
        templates = ("a photo of a {}.", "a {} picture.")
        owners = tuple(task.index for task in tasks for _ in task.classes)
        return Stream(Scenario(kind, NAMES[:n_classes], (templates,) * n_classes, owners), tuple(tasks))

    return make
