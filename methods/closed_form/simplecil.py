"""SimpleCIL: the nearest class mean of frozen image features."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import Task, setting
from methods.shared.classifiers import FeatureClassifier, FeatureLayer


@dataclass(frozen=True)
class SimpleCILSettings:
    feature: FeatureLayer = setting("pooled", "image features before the projection into the space shared with text, or after it")
    normalise_before_mean: bool = setting(False, "average features of unit length instead of raw ones")
    scale: float = setting(1.0, "factor on the cosines: moves calibration, not accuracy")


class SimpleCIL(FeatureClassifier):
    """SimpleCIL: one prototype per class, the mean of its frozen image features; nothing is trained.

    Paper: "Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need",
    D.-W. Zhou, Z.-W. Cai, H.-J. Ye, D.-C. Zhan, Z. Liu, IJCV 2024, arXiv 2303.07338.

    With f(x) (d,) the frozen feature of an image, raw (not of unit length), and n_c training images of class c:

        w_c = 1/n_c sum of f(x) over the images of c         (d,)
        logit of class c = scale * cos(f(x), w_c)

    A task adds the prototypes of its classes and leaves the others alone, so the order of classes does not matter. No text is
    used: classes without training images cannot be scored. With scale 1 the softmax is nearly uniform, so calibration errors
    say little; CLIP's factor of 100 would be the usual alternative.

    Deviation from the authors' code: f is CLIP's, as for every method here, instead of an ImageNet model's. The variants of
    the paper that train part of the image tower on the first task (APER) are not here.

    Raises ValueError for classes that it has not learned.
    """

    Settings = SimpleCILSettings
    settings: SimpleCILSettings
    paper = (
        '"Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need", '
        "Zhou et al., IJCV 2024, arXiv 2303.07338"
    )
    trains = "nothing; keeps the mean image feature of each class"
    conformance = "checked: prototypes and logits after each task, features before and after the projection"
    prototypes: torch.Tensor

    def prepare(self) -> None:
        super().prepare()
        self.register_buffer("prototypes", torch.zeros(0, self.feature_width))  # w_c (n, d)

    def learn(self, task: Task) -> None:
        features, rows = self.features(task.train), task.train.labels.to(self.device) - task.classes[0]
        if self.settings.normalise_before_mean:
            features = F.normalize(features, dim=-1)
        sums = features.new_zeros(len(task.classes), features.shape[1], dtype=torch.float64).index_add(0, rows, features.double())
        means = sums / rows.bincount(minlength=len(task.classes)).clamp_min(1).unsqueeze(1)
        self.prototypes = torch.cat([self.prototypes.to(features), means.to(features)])
        self.count_classes(task)

    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        prototypes = self.prototypes[self.columns(classes)]
        return self.settings.scale * F.normalize(batch, dim=-1) @ F.normalize(prototypes, dim=-1).T
