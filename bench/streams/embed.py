"""`bench data embed`: from a data set to a file of its embeddings, which stands for it in streams (docs/embeddings.md).

The numbers are those of the feature store, so that a method gives on the file what it gives on the images. Text is encoded for
every template and class. Of a vision transformer the features before its projection are written, too: some methods use them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.clip.backbone import Backbone
from bench.clip.tower_types import is_vision_transformer
from bench.errors import BenchError, one_line
from bench.images.dataset import Dataset, Folders
from bench.images.embedding_facts import Facts
from bench.images.embeddings import SPLITS, EmbeddingFile, open_file
from bench.streams.features import FeatureStore
from bench.system.files import written_atomically

Progress = Callable[[str], None]  # what is happening now


def embed(
    dataset: Dataset, backbone: Backbone, weights: str, folders: Folders, out: Path, progress: Progress = lambda what: None
) -> EmbeddingFile:
    """Write the embeddings of a data set, and look through what was written. weights: as records name them."""
    info = dataset.info
    store = FeatureStore(backbone, folders.features)
    tensors: dict[str, np.ndarray] = {}
    pooled = is_vision_transformer(backbone.clip.visual)
    for split in SPLITS:
        source = dataset.open_split(split, folders)
        progress(f"{split}: {len(source)} images")
        tensors[f"{split}/features"] = store.features(source)
        tensors[f"{split}/labels"] = source.labels
        if pooled:
            progress(f"{split}: {len(source)} images, before the projection")
            tensors[f"{split}/pooled"] = store.features(source, layer="pooled")
    projection = backbone.image_projection if pooled else None
    if projection is not None:
        tensors["image/projection"] = projection.float().cpu().numpy()
    progress("text")
    prompts = [template.format(name) for name in info.class_names for template in info.templates]
    text = backbone.encode_text(prompts).float().cpu().numpy()
    tensors["text/features"] = text.reshape(len(info.class_names), len(info.templates), -1)
    facts = Facts(
        class_names=info.class_names,
        templates=info.templates,
        backbone=backbone.name,
        weights=weights,
        logit_scale=backbone.logit_scale,
        dataset=info.name,
        normalised=False,
        repeated_names=info.repeated_names,
    )
    _write(tensors, facts, out)
    return open_file(out)


def _write(tensors: dict[str, np.ndarray], facts: Facts, out: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with written_atomically(out) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, temporary, facts.metadata())
            _refuse_unusable(temporary, out)
    except SafetensorError as error:  # a full disk, for instance
        raise BenchError(f"{out}: cannot be written ({one_line(error)})") from error


def _refuse_unusable(written: Path, out: Path) -> None:
    """A data set may lack images of a class: no run could use its file, so none is left, nor an older one replaced."""
    try:
        open_file(written)
    except BenchError as error:
        raise BenchError(f"{out} is not written: {str(error).removeprefix(f'{written}: ')}") from error
