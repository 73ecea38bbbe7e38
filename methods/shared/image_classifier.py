"""Methods without a text side: they learn from images alone, and can score only the classes that they have learned."""

from collections.abc import Sequence
from typing import Literal

import torch

from bench import Method, Split, Task

FeatureLayer = Literal["pooled", "projected"]


class ImageClassifier(Method):
    """A classifier over the classes learned so far, which are the stream's first `n_learned` ones."""

    zero_shot = False

    def prepare(self) -> None:
        self.register_buffer("n_learned", torch.zeros((), dtype=torch.long))

    def count_classes(self, task: Task) -> int:
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

    inputs = "pooled"

    def prepare(self) -> None:
        super().prepare()
        self.inputs = {"pooled": "pooled", "projected": "features"}[self.settings.feature]

    @property
    def feature_width(self) -> int:
        return self.backbone.pooled_width if self.settings.feature == "pooled" else self.backbone.embedding_width

    def features(self, split: Split) -> torch.Tensor:
        """(n, d) raw features of all images of a split."""
        return split.features(layer=self.settings.feature)
