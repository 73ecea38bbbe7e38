"""The feature store: embeddings of the frozen image encoder, computed once and kept on disk.

One entry holds the features of one image source under one view. Its name is a hash of everything that can change
them: pixels, weights, preprocessing, view, arithmetic. Entries are written under a lock (two processes never encode the
same images), verified against their checksum when opened, and memory-mapped.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from bench.clip.backbone import ENCODE_BATCH, Backbone
from bench.errors import UnfitMethod, one_line
from bench.images.dataset import ImageSource
from bench.system import claims
from bench.system.files import npy, remove_leftovers, sha256, write_atomically
from bench.system.parallel import prefetched
from bench.system.phases import phase
from bench.system.progress import followed

FORMAT = 1  # bump when the meaning of an entry changes
Layer = Literal["projected", "pooled"]


class FeatureStore:
    """Features by image source, for one backbone. Counts the images that had to be encoded, and the seconds it took."""

    def __init__(self, backbone: Backbone, root: Path):
        self.backbone = backbone
        self.root = root
        self.encoded = 0
        self.seconds = 0.0
        self._opened: dict[str, np.ndarray] = {}

    def features(self, source: ImageSource, view: str = "plain", layer: Layer = "projected") -> np.ndarray:
        """(n, d) float32 raw embeddings of all images of the source, in its order; "pooled": before the projection."""
        given = self._given(source, view, layer)
        if given is not None:
            return given
        facts = {
            "format": FORMAT,
            "source": source.digest,
            **({"decoding": source.decoding} if source.decoding else {}),
            "weights": self.backbone.digest,
            "architecture": self.backbone.name,
            "preprocessing": self.backbone.preprocessing,
            "view": view,
            "layer": layer,
            "arithmetic": f"{self.backbone.arithmetic}-batch{ENCODE_BATCH}",
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
        if key not in self._opened:
            self._opened[key] = self._open_or_encode(key, facts, source, view, layer)
        return self._opened[key]

    def _given(self, source: ImageSource, view: str, layer: Layer) -> np.ndarray | None:
        """Of a source of embeddings: they are there already, as their file has them."""
        key = f"given {source.digest} {layer}"
        found = self._opened[key] if key in self._opened else source.embedded(layer)
        if found is not None:
            if view != "plain":
                raise UnfitMethod(f"embeddings of {view} images are wanted, and there are those of the plain ones alone")
            self._opened[key] = found
        return found

    def _open_or_encode(self, key: str, facts: dict[str, Any], source: ImageSource, view: str, layer: Layer) -> np.ndarray:
        path = self.root / key[:2] / f"{key}.npy"
        stored = self._open(path, len(source))  # without the lock, so that a store may lie where it can only be read
        if stored is not None:
            return stored
        with claims.waiting(path.with_suffix(".lock")):
            stored = self._open(path, len(source), complain=True)
            if stored is None:
                remove_leftovers(path.parent, f"{key}.*")
                self._write(path, facts, self._encode(source, view, layer))
                stored = self._open(path, len(source))
        if stored is None:
            raise OSError(f"the feature store {self.root} does not keep what is written to it")
        return stored

    @phase("load")
    def _open(self, path: Path, rows: int, complain: bool = False) -> np.ndarray | None:
        """The entry, if it is there and whole. Only under its lock is one that is not whole surely damaged: complain."""
        sidecar = path.with_suffix(".json")
        if not (path.exists() and sidecar.exists()):
            return None
        try:
            expected = json.loads(sidecar.read_text())["sha256"]
            if sha256(path.read_bytes()) != expected:
                raise ValueError("checksum differs")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if len(array) != rows:
                raise ValueError("number of rows differs")
        except (ValueError, KeyError, TypeError, OSError) as error:
            if complain:
                print(f"feature store: {path.name} is damaged ({one_line(error)}); encoding again", file=sys.stderr)
            return None
        return array

    @phase("write")
    def _write(self, path: Path, facts: dict[str, Any], features: np.ndarray) -> None:
        data = npy(features)
        write_atomically(path, data)
        write_atomically(path.with_suffix(".json"), json.dumps({**facts, "sha256": sha256(data)}, indent=1))

    @phase("encode")
    def _encode(self, source: ImageSource, view: str, layer: Layer) -> np.ndarray:
        encode = {"projected": self.backbone.encode_images, "pooled": self.backbone.pool_images}[layer]
        chunks, started = [], time.perf_counter()

        @phase("load")
        def pixels_of(rows: torch.Tensor) -> torch.Tensor:
            return self.backbone.preprocess(source.read(rows.numpy()), view)  # read once only: not worth keeping decoded

        parts = torch.arange(len(source)).split(ENCODE_BATCH) if len(source) else ()
        for _, pixels in followed(prefetched(parts, pixels_of, self.backbone.device), "encoding images, batch", len(parts)):
            features = encode(pixels)
            chunks.append(features.to(torch.promote_types(features.dtype, torch.float32)).cpu().numpy())
        self.encoded += len(source)
        self.seconds += time.perf_counter() - started
        if not chunks:
            width = self.backbone.embedding_width if layer == "projected" else self.backbone.pooled_width
            return np.zeros((0, width), np.float32)
        return np.concatenate(chunks)
