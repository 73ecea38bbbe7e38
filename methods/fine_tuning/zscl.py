"""ZSCL: fine-tuning that distils the initial CLIP on reference data and averages the weights along the path."""

from dataclasses import dataclass
from typing import Literal

import torch

from bench import Range, Reference, ReferenceNames, Split, Task, setting
from bench.clip.tower_types import ClipModel
from methods.fine_tuning.distilled_finetune import DistilledFineTune, DistilledFineTuneSettings
from methods.fine_tuning.finetune import MINI_WITH_TEACHER, FineTune
from methods.fine_tuning.weight_space import merge, weights_of

AUTHORS = "authors' MTIL scripts"
CIL = {"image_weight": 5.0, "text_weight": 5.0, "l2_weight": 0.0, "average_every": 10}
CIL_REFERENCE = {"reference_images": "conceptual-captions", "reference_sentences": "conceptual-captions"}


@dataclass(frozen=True)
class ZSCLSettings(DistilledFineTuneSettings):
    """Defaults: MTIL."""

    l2_weight: float = setting(
        1.0, "lambda of the pull towards the weights at the task's start; 0: off", AUTHORS, search=Range(0.05, 20.0, log=True)
    )
    average_every: int = setting(100, "updates between two snapshots of the weight ensemble; 0: off", AUTHORS)
    teacher: Literal["initial", "previous", "merged"] = setting(
        "initial", "initial CLIP, the weights at the task's start, or a merge of the two"
    )
    teacher_alpha: float = setting(0.8, "share of the task's start in a merged teacher")
    reference_images: str = setting("imagenet", "reference images: a registered name or a folder of images", AUTHORS)
    reference_sentences: str = setting("conceptual-captions", "reference sentences: a registered name or a text file", AUTHORS)
    sentence_template: str = setting("{}", 'wraps every sentence, for instance "a photo of a {}." around class names')


class ZSCL(DistilledFineTune):
    """ZSCL: distillation of the initial CLIP on reference data, weight constraint and weight ensemble.

    Paper: "Preventing Zero-Shot Transfer Degradation in Continual Learning of Vision-Language Models", Z. Zheng, M. Ma,
    K. Wang, Z. Qin, X. Yue, Y. You, ICCV 2023, arXiv 2303.06628.

    Everything as in `finetune` (loss L_ce, optimiser, schedule, one template in training), and

        L = L_ce + image_weight L_img + text_weight L_txt + l2_weight sum ||theta - theta_start||^2

    with L_img and L_txt of methods/fine_tuning/distilled_finetune.py on reference images and sentences that belong to no task.
    The teacher is the initial CLIP (`teacher`: or the weights at the task's start, or (1 - a) initial + a start). After the
    last update of a task the weights become the mean of the start and the weights after updates 0, I, 2I, ...
    (I = `average_every`), which are evaluated and from which the next task starts. No image of an earlier task is kept.

    Each part is a switch: image_weight, text_weight, l2_weight, average_every set to 0 turn it off. `zscl-star` and
    `zscl-minus` are the authors' other two configurations.

    Reference data: ImageNet's training images and the captions of Conceptual Captions' validation set in MTIL,
    Conceptual Captions for both in class-incremental runs; on the mini world, images and captions of its pretraining
    generator. Nothing else is ever taken instead; what was used stands in the manifest, and in the records' overrides
    where the user chose it. A reference image that is also an image of the stream is refused.

    Training images are random crops, as in `finetune`; reference images are not.

    Deviations from the authors' code, besides those of `finetune`: teacher features of the initial CLIP come from the
    feature store, and sentences are encoded once per teacher (both exact); captions longer than 77 tokens keep their end
    token (theirs cut it off and read the feature at an arbitrary word); images and sentences of Conceptual Captions
    need not belong together.
    """

    Settings = ZSCLSettings
    settings: ZSCLSettings
    recipes = {
        **{pattern: recipe for pattern, recipe in FineTune.recipes.items() if pattern.startswith("mtil")},
        **{
            pattern: {**recipe, **CIL, **CIL_REFERENCE, "label_smoothing": 0.2}
            for pattern, recipe in FineTune.recipes.items()
            if not pattern.startswith(("mtil", "mini"))
        },
        "cdcl-*": CIL_REFERENCE,  # ImageNet's images belong to the stream there
        "mini*": {
            **MINI_WITH_TEACHER,
            "reference_images": "mini",
            "reference_sentences": "mini",
            "average_every": 4,
        },
    }
    quick = {**FineTune.quick, "average_every": 2}
    trains = "both encoders of CLIP; the logit scale stays frozen"
    conformance = (
        "checked: rates, losses, gradients, weights along the path, saved weights, logits; every part alone and together"
    )

    reference: Reference  # given before the first task, where `reference_names` asks for it

    @property
    def reference_names(self) -> ReferenceNames | None:
        settings = self.settings
        if not (settings.image_weight or settings.text_weight):
            return None
        return ReferenceNames(settings.reference_images, settings.reference_sentences)

    def use_reference(self, reference: Reference) -> None:
        self.reference = reference

    def choose_teacher(self, task: Task) -> ClipModel | None:
        settings = self.settings
        if self.reference_names is None:
            return None
        if settings.teacher == "initial":
            return self.backbone.clip
        teacher = self.frozen_copy()
        if settings.teacher == "merged":
            merge(teacher, weights_of(self.backbone.clip), settings.teacher_alpha)
        return teacher

    def distillation_images(self, task: Task) -> Split | None:
        return self.reference.images if self.reference_names else None

    def sentence_tokens(self, task: Task) -> torch.Tensor:
        return self.backbone.tokenize([self.settings.sentence_template.format(s) for s in self.reference.sentences])


@dataclass(frozen=True)
class ZSCLStarSettings(ZSCLSettings):
    l2_weight: float = setting(0.0, "lambda of the pull towards the weights at the task's start; 0: off", AUTHORS)


class ZSCLStar(ZSCL):
    """ZSCL* (zscl-star): ZSCL without the weight constraint.

    The reading "without the L2 term" comes from the authors' scripts; everything else as in `zscl`.
    """

    Settings = ZSCLStarSettings
    settings: ZSCLStarSettings


@dataclass(frozen=True)
class ZSCLMinusSettings(ZSCLStarSettings):
    average_every: int = setting(0, "updates between two snapshots of the weight ensemble; 0: off", AUTHORS)
    reference_sentences: str = setting("imagenet-classes", "reference sentences: a registered name or a text file", AUTHORS)
    sentence_template: str = setting("a photo of a {}.", "wraps every sentence")


class ZSCLMinus(ZSCL):
    """ZSCL without weight ensemble and weight constraint (zscl-minus): distillation only.

    The authors distil over the names of ImageNet's classes here, "a photo of a {}."; everything else as in `zscl`.
    """

    Settings = ZSCLMinusSettings
    settings: ZSCLMinusSettings
    recipes = {
        pattern: {field: value for field, value in recipe.items() if field not in ("average_every", "reference_sentences")}
        for pattern, recipe in ZSCL.recipes.items()
    } | {
        "mini*": {
            **MINI_WITH_TEACHER,
            "reference_images": "mini",
            "reference_sentences": "mini",
            "sentence_template": "{}",
        }
    }
    quick = FineTune.quick
