"""Miniature copies of data sets in the formats in which they really lie on disk, and what every copy is tested for.

Pictures are flat colours with a mark, so that an image read back tells which image of which class it is.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.images.dataset import Folders
from bench.system import registry


def picture(label: int, number: int = 0, size: tuple[int, int] = (12, 16), mode: str = "RGB") -> Image.Image:
    """A picture of a class: (height, width); the colour tells the class, a bright row the image's number."""
    rows = np.empty((*size, 3), np.uint8)
    rows[:] = (37 * label % 200, 91 * label % 200, 151 * label % 200)
    rows[number % size[0]] = 255
    return Image.fromarray(rows).convert(mode)


def encoded(label: int, number: int = 0, format: str = "JPEG", **options) -> bytes:
    """The same as the bytes of an image file."""
    buffer = io.BytesIO()
    picture(label, number, **options).save(buffer, format)
    return buffer.getvalue()


def write_picture(path: Path, label: int, number: int = 0, **options) -> None:
    """The same as a file; the suffix decides the format."""
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}  # .JPEG too
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(label, number, formats[path.suffix.lower()], **options))


def write_parquet(path: Path, columns: dict, class_names: Sequence[str] = ()) -> None:
    """As the hub's: images as a struct of bytes and path; the schema's metadata names the labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if class_names:
        features = {name: {"names": list(class_names), "_type": "ClassLabel"} for name in columns if "label" in name}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def check_data_set(name: str, folders: Folders, train: int, test: int) -> None:
    """What holds for any data set: splits of the expected sizes, every class in both, whole images, names, templates.

    Then a run: the zero-shot method and a linear probe learn four classes in two tasks.
    """
    dataset = registry.load("dataset", name)
    info = dataset.info
    assert info.name == name
    assert all("{}" in template for template in info.templates)
    assert all(info.class_names) and len(info.class_names) >= 4
    sources = {split: dataset.open_split(split, folders) for split in ("train", "test")}
    for split, wanted in (("train", train), ("test", test)):
        source = sources[split]
        assert len(source) == wanted, (split, len(source))
        assert set(source.labels.tolist()) == set(range(len(info.class_names))), split
        images = source.read(np.arange(min(len(source), 64)))
        assert all(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 for image in images)
        kept = source.limited(1)
        assert len(kept) == len(info.class_names)
        assert kept.digest != source.digest or len(kept) == len(source)
        assert kept.digest == dataset.open_split(split, folders).limited(1).digest, "the digest must not change between runs"
    assert sources["train"].digest != sources["test"].digest
    two_task_run(name, folders)


def two_task_run(name: str, folders: Folders) -> None:
    """A stream of two tasks of two classes each, through the mini backbone, learned and scored."""
    from bench.clip import backbone as backbones
    from bench.learning.evaluation import evaluate
    from bench.learning.method import Method
    from bench.streams.features import FeatureStore
    from bench.streams.opening import open_stream
    from bench.streams.protocol import Protocol, TaskPlan
    from bench.system.randomness import Draws

    plans = [TaskPlan("first", name, (3, 2)), TaskPlan("second", name, (1, 0))]
    protocol = Protocol("two-tasks", "1", "class-incremental", "four classes of one data set", lambda order_seed: plans)
    store = FeatureStore(backbones.load("mini", None, "cpu"), folders.cache / "features")
    stream = open_stream(protocol, 0, store, folders, limit_train=1, limit_test=1)
    assert stream.scenario.class_names == registry.load("dataset", name).info.class_names[3::-1]
    for method_name in ("zero-shot", "linear-probe"):
        kind: type[Method] = registry.load("method", method_name)
        method = kind(kind.Settings(), store.backbone, stream.scenario, Draws("two-tasks", method_name, 0))
        for task in stream.tasks:
            method.grow(task)
            method.learn(task.for_training())
            cells = list(evaluate(method, stream, task.index))
        assert cells and all(np.isfinite(cell.confidence).all() for cell in cells)
