"""Embeddings that somebody has given in the place of images, for a model that was trained on such."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bench.clip.embedded import EmbeddedBackbone
from bench.errors import BenchError
from bench.images.embedding_arrays import rows_of
from bench.streams.given_images import Given, PartOfImages


class GivenEmbeddings:
    """Embeddings (n, d) in the order in which they were given: an array, a tensor, or the path of a file with them.

    inputs: which of them the method reads, "features" or "pooled" ones.
    """

    def __init__(self, given: Given, backbone: EmbeddedBackbone, inputs: str):
        self.vectors = _checked(given, backbone, inputs).to(backbone.device)

    def __len__(self) -> int:
        return len(self.vectors)

    def batches(self, inputs: str, size: int) -> Iterator[torch.Tensor]:
        yield from self.vectors.split(size)

    def inputs(self, inputs: str, rows: torch.Tensor) -> torch.Tensor:
        return self.vectors[rows.to(self.vectors.device)]

    def part(self, rows: torch.Tensor) -> PartOfImages:
        return PartOfImages(self, rows)


def _checked(given: Given, backbone: EmbeddedBackbone, inputs: str) -> torch.Tensor:
    """(n, d) float32; BenchError for what is no embedding of this CLIP."""
    width = backbone.pooled_width if inputs == "pooled" else backbone.embedding_width
    which = "train/pooled" if inputs == "pooled" else "train/features"
    clip = f"{backbone.name} with weights {backbone.pretrained}"
    wanted = f"(n, {width}) float32, as {which} of {backbone.file.path.name}, by {clip}"
    found = rows_of(given, inputs) if isinstance(given, str | Path) else given
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(np.ascontiguousarray(found)) if found.dtype.kind == "f" else found
    if not isinstance(found, torch.Tensor) or not found.is_floating_point():
        raise BenchError(f"the model was trained on embeddings and cannot encode images; give embeddings {wanted}")
    found = found.unsqueeze(0) if found.ndim == 1 else found
    if found.ndim != 2 or found.shape[1] != width:
        raise BenchError(f"embeddings of shape {tuple(found.shape)}: wanted are {wanted}")
    if len(bad := torch.nonzero(~(found.isfinite().all(dim=1) & found.any(dim=1))).flatten()):
        raise BenchError(f"embeddings: row {int(bad[0])} holds nan or inf, or zeros alone")
    return found.detach().float()
