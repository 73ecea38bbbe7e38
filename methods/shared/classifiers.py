"""What many methods score images with: one vector per class compared by cosine, or a classifier without a text side."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from bench import Method, Split, Task

FeatureLayer = Literal["pooled", "projected"]
Inputs = Literal["features", "pooled", "pixels"]  # of `Method.inputs`


class TextClassifier(Method):
    """logit of class c = exp(logit scale) * cos(f(x), v_c), with one stored vector v_c per class of the stream.

    Before training every v_c is the zero-shot vector of the class's hand-made prompts. Subclasses overwrite the rows of
    the classes they learn at the end of `learn`, so text is encoded once per task and not once per test batch.
    """

    inputs: Inputs = "features"
    class_vectors: torch.Tensor  # (N, d), of unit length

    def prepare(self) -> None:
        every_class = range(len(self.scenario.class_names))
        self.register_buffer("class_vectors", self.backbone.classifier(self.scenario.prompts_of(every_class)))  # (N, d), unit

    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        vectors = self.class_vectors[torch.as_tensor(list(classes), device=batch.device)]
        return self.backbone.logit_scale * F.normalize(batch, dim=-1) @ vectors.T


class ImageClassifier(Method):
    """A classifier over the classes learned so far, which are the stream's first `n_learned` ones.

    Such a method learns from images alone, and can score only the classes that it has learned.
    """

    zero_shot = False
    n_learned: torch.Tensor  # ()

    def prepare(self) -> None:
        self.register_buffer("n_learned", torch.zeros((), dtype=torch.long))

    def count_classes(self, task: Task) -> None:
        """To be called at the end of `learn`: the task's classes can be scored from now on."""
        self.n_learned.fill_(task.classes[-1] + 1)

    def columns(self, classes: Sequence[int]) -> list[int]:
        """The classes as columns of the classifier; ValueError if one of them has not been learned."""
        unlearned = [self.scenario.class_names[c] for c in classes if c >= self.n_learned]
        if unlearned:
            name = type(self).__name__
            raise ValueError(f"{name} scores only classes that it has learned; not {', '.join(unlearned[:5])}")
        return list(classes)


class FeatureClassifier(ImageClassifier):
    """One on cached features, from before the projection into the space shared with text or after it (setting `feature`)."""

    inputs: Inputs = "pooled"
    on_embeddings = {"feature": "projected"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ("pooled",) if self.settings.feature == "pooled" else ("features",)

    def prepare(self) -> None:
        super().prepare()
        self.inputs = "pooled" if self.settings.feature == "pooled" else "features"

    @property
    def feature_width(self) -> int:
        return self.backbone.pooled_width if self.settings.feature == "pooled" else self.backbone.embedding_width

    def features(self, split: Split) -> torch.Tensor:
        """(n, d) raw features of all images of a split."""
        return split.features(layer=self.settings.feature)
