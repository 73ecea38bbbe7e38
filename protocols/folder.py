"""Protocols over a folder of images: folder:PATH-<tasks>x<classes> and folder:PATH-b<base>-<tasks>x<classes>.

A sub-folder is a class (protocols/datasets/image_folder.py). Results call the stream by the folder's own name,
"folder:pets-5x4", whatever lies above it. The images are part of the identity of every run (Dataset.content "own"), so that runs
on another folder of that name, or on one that has changed, are other runs. So are the words: those of a `dataset.toml` by the
version of the data set, those of `+template=...` by the protocol's name.
"""

from bench import BenchError, Dataset, Protocol
from protocols import class_incremental
from protocols.datasets.image_folder import PREFIX, image_folder

ALL = "-1xall"  # one task of all classes, however many these are: what a trained model may go on with


def family(name: str) -> Protocol | None:
    """folder:PATH-<tasks>x<classes> and folder:PATH-b<base>-<tasks>x<classes>: images of your own, a sub-folder a class"""
    if not name.startswith(PREFIX):
        return None
    if name.endswith(ALL):
        path = name.removeprefix(PREFIX).removesuffix(ALL)
        dataset = image_folder(path, at_least=1)
        return _protocol(dataset, class_incremental.Shape(0, 1, len(dataset.info.class_names)))
    parts = class_incremental.split(name.removeprefix(PREFIX))
    if parts is None:
        raise BenchError(f"unknown protocol {name!r}: write {PREFIX}PATH-5x4 for five tasks of four classes")
    path, shape = parts
    dataset = image_folder(path)
    class_incremental.refuse_other_counts(name, PREFIX + path, shape, len(dataset.info.class_names))
    return _protocol(dataset, shape)


def _protocol(dataset: Dataset, shape: class_incremental.Shape) -> Protocol:
    info = dataset.info
    return class_incremental.protocol(
        name=f"{info.name}-{shape}",
        dataset=info.name,
        sizes=shape.sizes,
        version=f"{class_incremental.VERSION}.{info.version}",
        summary=f"{info.summary}, {class_incremental.in_words(shape)}",
        datasets={info.name: dataset},
        source=info.origin,
    )
