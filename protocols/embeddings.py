"""Protocols over a file of embeddings: embeddings:FILE-<tasks>x<classes> and embeddings:FILE-b<base>-<tasks>x<classes>.

No image, no weights and no tower are needed: methods that learn from frozen features run on what the file holds
(bench/images/embeddings.py, docs/embeddings.md). Results call the stream by the file's own name without its ending,
"embeddings:pets-5x4". The content of the file is part of the identity of every run, where it lies is not.

Where the file says whose images these are, the classes are shuffled, random numbers drawn and recipes chosen as for that data
set, so that a method gives the numbers that it gives on the images.
"""

from functools import partial

from bench import BenchError, Dataset, DatasetInfo, Protocol
from bench.errors import printable
from bench.images.embeddings import EmbeddingFile, open_file, open_split
from protocols import class_incremental

PREFIX = "embeddings:"
RULE = "1"  # bump when the classes, the images or the split of a file change


def family(name: str) -> Protocol | None:
    """embeddings:FILE-<tasks>x<classes> and embeddings:FILE-b<base>-<tasks>x<classes>: embeddings in the place of images"""
    if not name.startswith(PREFIX):
        return None
    parts = class_incremental.split(name.removeprefix(PREFIX))
    if parts is None:
        raise BenchError(f"unknown protocol {name!r}: write {PREFIX}FILE.safetensors-5x4 for five tasks of four classes")
    path, shape = parts
    file = open_file(path)
    own_name = f"{PREFIX}{file.path.stem}"
    if printable(own_name) != own_name.strip() or " " in own_name:
        raise BenchError(f"{file.path}: spaces or control characters in its name, which stands in results; rename the file")
    dataset = dataset_of(file, own_name)
    info = dataset.info
    class_incremental.refuse_other_counts(name, PREFIX + path, shape, len(info.class_names))
    return class_incremental.protocol(
        name=f"{own_name}-{shape}",
        dataset=info.name,
        sizes=shape.sizes,
        version=f"{class_incremental.VERSION}.{info.version}",
        summary=f"{info.summary}, {class_incremental.in_words(shape)}",
        order=class_incremental.DEFAULT_ORDERS.get(info.name, "shuffled"),
        datasets={info.name: dataset},
        source=info.origin,
        embeddings=file,
        like=f"{info.name}-{shape}" if file.facts.dataset else "",
    )


def dataset_of(file: EmbeddingFile, name: str) -> Dataset:
    """The data set in a file: it has the name of the data set that it was made from, if the file says which."""
    facts = file.facts
    info = DatasetInfo(
        name=facts.dataset or name,
        version=f"{RULE}.{file.digest[:8]}",
        class_names=facts.class_names,
        templates=facts.templates,
        summary=f"{len(facts.class_names)} classes of embeddings in {file.path}",
        origin=f"the embeddings in {file.path}, by {facts.backbone} with weights {facts.weights}",
        train_images=len(file.labels["train"]),
        test_images=len(file.labels["test"]),
        repeated_names=facts.repeated_names,
    )
    return Dataset(info, partial(open_split, file), content="own", notes=tuple(file.notes()))
