"""A backbone without towers: of its CLIP there are embeddings in a file, and nothing else.

It answers what can be read from the file, with the numbers that the CLIP would give: widths, the logit scale, the embeddings of
the prompts of the file's classes. Whatever would need a tower, its weights or its gradients, is an UnfitMethod that says what
was asked for: a method never gets a number that was made up. Which methods can do without is known before a run
(`Method.needs`); this is what they are held to.
"""

import functools
import math
from collections.abc import Sequence
from typing import NoReturn, cast

import torch

from bench.clip.backbone import Backbone
from bench.clip.tower_types import ClipModel
from bench.errors import UnfitMethod, printable
from bench.images.embeddings import EmbeddingFile


class NoTower(UnfitMethod):
    """Something was asked for that only CLIP itself could answer."""


class _NoTowers:
    """Stands where the CLIP would be. Its logit scale is a number, and the file has it."""

    def __init__(self, logit_scale: float | None):
        if logit_scale is not None:
            self.logit_scale = torch.tensor(math.log(logit_scale))

    def __getattr__(self, name: str) -> NoReturn:
        raise NoTower(f"CLIP's towers are wanted ({name.strip('_')}), and there are embeddings alone")


class EmbeddedBackbone(Backbone):
    """The CLIP whose embeddings lie in a file, as far as they tell of it."""

    def __init__(self, file: EmbeddingFile, device: str):
        facts = file.facts
        self.file = file
        self.name, self.pretrained, self.digest = facts.backbone, facts.weights, file.digest
        self.device, self.precision = torch.device(device), "float32"
        self.clip = cast(ClipModel, _NoTowers(facts.logit_scale))
        self.image_passes = 0
        self.facts = {
            "embeddings": file.path.name,
            "embeddings_digest": file.digest,
            "normalised": facts.normalised,
            "precision": self.precision,
        }

    # -- what the file tells ------------------------------------------------------------------------------------

    @property
    def embedding_width(self) -> int:
        return self.file.width

    @property
    def pooled_width(self) -> int:
        if "train/pooled" not in self.file:
            raise NoTower("image features from before the projection are wanted, and the file has none (train/pooled)")
        return self.file.shapes["train/pooled"][1]

    @functools.cached_property
    def image_projection(self) -> torch.Tensor | None:
        if "image/projection" not in self.file:
            raise NoTower("the projection of the image tower is wanted, and the file has none (image/projection)")
        return torch.from_numpy(self.file.array("image/projection")).to(self.device)

    @functools.cached_property
    def logit_scale(self) -> float:
        if self.file.facts.logit_scale is None:
            raise NoTower("the logit scale is wanted, and the metadata of the file have none")
        return self.file.facts.logit_scale

    @property
    def frozen_parameters(self) -> int:
        """None that are here."""
        return 0

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], clip: ClipModel | None = None) -> torch.Tensor:
        """(n, d) un-normalised text features of n prompts, each of which must be one of the file's."""
        if clip is not None and clip is not self.clip:
            raise NoTower("a trained copy of CLIP is wanted, and there are embeddings alone")
        rows, features = self._texts
        unknown = [text for text in texts if text not in rows]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise NoTower(f"the embedding of the text {printable(unknown[0])!r}{more} is wanted, and the file has none")
        return features[[rows[text] for text in texts]]

    @functools.cached_property
    def _texts(self) -> tuple[dict[str, int], torch.Tensor]:
        """(prompt -> row, (K * templates, d)); of two classes of one name the first."""
        if "text/features" not in self.file:
            raise NoTower("text embeddings are wanted, and the file has none (text/features)")
        facts = self.file.facts
        rows: dict[str, int] = {}
        for row, prompt in enumerate(template.format(name) for name in facts.class_names for template in facts.templates):
            rows.setdefault(prompt, row)
        features = torch.from_numpy(self.file.array("text/features")).flatten(0, 1).to(self.device)
        return rows, features

    # -- what only towers could ---------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("transform", "tokenizer", "activation"):  # what `Backbone` has, and a file tells nothing of
            raise NoTower(f"CLIP itself is wanted ({name}), and there are embeddings alone")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def tokenize(self, texts: Sequence[str]) -> NoReturn:
        raise NoTower("the tokens of a text are wanted, and there are embeddings alone")


@functools.lru_cache(maxsize=2)
def load(file: EmbeddingFile, device: str) -> EmbeddedBackbone:
    """The backbone of a file on a device; made once per process."""
    return EmbeddedBackbone(file, device)
