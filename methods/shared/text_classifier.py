"""Methods that end in one vector per class, compared with the image feature by cosine."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bench import Method


class TextClassifier(Method):
    """logit of class c = exp(logit scale) * cos(f(x), v_c), with one stored vector v_c per class of the stream.

    Before training every v_c is the zero-shot vector of the class's hand-made prompts. Subclasses overwrite the rows of
    the classes they learn at the end of `learn`, so text is encoded once per task and not once per test batch.
    """

    class_vectors: torch.Tensor  # (N, d), unit

    def prepare(self) -> None:
        every_class = range(len(self.scenario.class_names))
        self.register_buffer("class_vectors", self.backbone.classifier(self.scenario, every_class))

    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        vectors = self.class_vectors[torch.as_tensor(list(classes), device=batch.device)]
        return self.backbone.logit_scale * F.normalize(batch, dim=-1) @ vectors.T
