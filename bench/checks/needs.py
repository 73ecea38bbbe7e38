"""Is it true what a method says that it needs of CLIP (`Method.needs`)? It learns once more, on embeddings and without towers.

What it reads of them is noted, and what only a tower could answer raises. So a method can neither need more than it says, which
would end a user's run in the middle, nor say that it needs more than it does, which would leave it out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bench.clip.embedded import EmbeddedBackbone
from bench.errors import UnfitMethod, one_line
from bench.images.embedding_facts import Facts
from bench.images.embeddings import SPLITS, EmbeddedSource, EmbeddingFile
from bench.streams.features import FeatureStore, Layer
from bench.streams.stream import Split, Stream, Task

NEED_OF = {"features": "features", "pooled": "pooled", "projection": "projection", "text/features": "texts"}
NEEDS = {*NEED_OF.values(), "towers"}
LAYERS: dict[str, Layer] = {"features": "projected", "pooled": "pooled"}  # in a file -> of the feature store


@dataclass(frozen=True, eq=False)
class NotedFile(EmbeddingFile):
    """Embeddings that lie in memory, and note which of them are read."""

    read: set[str] = field(default_factory=set)  # as `Method.needs` calls them

    def array(self, name: str) -> np.ndarray:
        self.read.add(NEED_OF[name if name == "text/features" else name.split("/")[1]])
        return self._kept[name]


@dataclass(frozen=True)
class Tried:
    """How a method has fared without towers."""

    scores: torch.Tensor | None
    read: set[str]
    asked: str  # for what only a tower could answer; empty: for nothing


def without_towers(stream: Stream, learned: Callable[[Stream], torch.Tensor]) -> Tried:
    """What `learned`, which learns a stream and gives scores, makes of this one's embeddings."""
    file = _in_memory(stream)
    backbone = EmbeddedBackbone(file, "cpu")
    try:
        scores = learned(_embedded(stream, file, backbone))
    except UnfitMethod as error:
        return Tried(None, file.read, one_line(error))
    return Tried(scores, file.read, "")


def complaint(needs: tuple[str, ...], tried: Tried) -> str:
    """In what the method's statement is untrue; empty if it is true."""
    if unknown := set(needs) - NEEDS:
        return f"needs: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(NEEDS))}"
    read = f"needs = {tuple(sorted(tried.read))}"
    if "towers" in needs:
        return "" if tried.asked else f"it says that it needs CLIP's towers, and learns without: {read}"
    if tried.asked:
        return f"it says that it needs {', '.join(needs)} alone: {tried.asked}"
    return "" if tried.read == set(needs) else f"it says that it needs {', '.join(needs)}, and read {read}"


def _in_memory(stream: Stream) -> NotedFile:
    """All embeddings of a stream, as a file would have them."""
    backbone, scenario = stream.tasks[0].train.store.backbone, stream.scenario
    arrays: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for split in SPLITS:
        whole = Split.concatenate([getattr(task, split) for task in stream.tasks])
        labels[split] = whole.labels.numpy()
        arrays |= {f"{split}/{name}": whole.features(layer=layer).cpu().numpy() for name, layer in LAYERS.items()}
    every = range(len(scenario.class_names))
    texts = backbone.encode_text([prompt for own in scenario.prompts_of(every) for prompt in own]).cpu().numpy()
    arrays["text/features"] = texts.reshape(len(every), len(scenario.templates[0]), -1)
    if backbone.image_projection is not None:
        arrays["image/projection"] = backbone.image_projection.cpu().numpy()
    scale = backbone.logit_scale
    facts = Facts(scenario.class_names, scenario.templates[0], backbone.name, "in memory", scale, dataset="", normalised=False)
    shapes = {name: array.shape for name, array in arrays.items()}
    return NotedFile(Path("in memory"), facts, "in memory", labels, shapes, (0, 0, 0), _kept=arrays)


def _embedded(stream: Stream, file: EmbeddingFile, backbone: EmbeddedBackbone) -> Stream:
    """The same stream, of whose images nothing but embeddings is there."""
    store = FeatureStore(backbone, Path("in memory"))
    sources = {split: EmbeddedSource(file, split) for split in SPLITS}

    def part(task: Task, split: str) -> Split:
        rows = np.flatnonzero(np.isin(file.labels[split], task.classes))
        return Split([(sources[split], rows)], torch.from_numpy(file.labels[split][rows]), store)

    tasks = [Task(task.index, task.name, task.classes, part(task, "train"), part(task, "test")) for task in stream.tasks]
    return Stream(stream.scenario, tuple(tasks))
