"""Learning without Forgetting for CLIP: distillation of the previous model on the task's own images."""

from dataclasses import dataclass

import torch

from bench import Split, Task, setting
from bench.clip.tower_types import ClipModel
from methods.fine_tuning.distilled_finetune import DistilledFineTune, DistilledFineTuneSettings
from methods.fine_tuning.finetune import recipes_with

START, END, VOCABULARY, CONTEXT = 49406, 49407, 49408, 77  # of CLIP's tokeniser


@dataclass(frozen=True)
class LwFSettings(DistilledFineTuneSettings):
    teacher_is_student: bool = setting(
        False, "reproduce the released class-incremental code, whose teacher shares the student's memory"
    )


class LwF(DistilledFineTune):
    """LwF for CLIP: the model before the task teaches the one after it, on the task's own images and prompts.

    Paper: "Learning without Forgetting", Z. Li, D. Hoiem, ECCV 2016, arXiv 1606.09282; the CLIP version is the baseline
    of ZSCL (arXiv 2303.06628).

    Everything as in `finetune`, plus L_img and L_txt of methods/fine_tuning/distilled_finetune.py: images are the task's training
    images, in an order of their own; sentences its C prompts (first template); the teacher is a frozen copy of the weights at
    the task's start, so the first update's distillation has no gradient. Classical LwF is L_img alone (`text_weight` 0).

    Deviations from the authors' code: those of `finetune`; in its class-incremental program the teacher's tensors share
    the student's memory, so distillation has no gradient at all and LwF equals fine-tuning: `teacher_is_student` does the
    same, the default is a real copy.
    """

    Settings = LwFSettings
    settings: LwFSettings
    recipes = recipes_with(class_incremental={"image_weight": 5.0, "text_weight": 5.0})
    paper = '"Learning without Forgetting", Li and Hoiem, ECCV 2016, arXiv 1606.09282; CLIP version: ZSCL, arXiv 2303.06628'
    conformance = "checked: rates, losses, gradients, weights along the path, logits; the released defect as an option"

    def choose_teacher(self, task: Task) -> ClipModel | None:
        return self.clip if self.settings.teacher_is_student else self.frozen_copy()

    def distillation_images(self, task: Task) -> Split | None:
        return task.train

    def sentence_tokens(self, task: Task) -> torch.Tensor:
        return self.prompt_tokens[list(task.classes)]


@dataclass(frozen=True)
class LwFVRSettings(LwFSettings):
    sentences: int = setting(1000, "M: random sentences, drawn once per task")
    sentence_tokens: int = setting(10, "random tokens of a sentence, between start and end")


class LwFVR(LwF):
    """LwF-VR: LwF for CLIP with sentences of random tokens.

    Paper: "Don't Stop Learning: Towards Continual Learning for the CLIP Model", Y. Ding, L. Liu, C. Tian, J. Yang,
    H. Ding, 2022, arXiv 2207.09248; the version in ZSCL's code.

    As `lwf`, but the M sentences are drawn once per task: start, `sentence_tokens` ids uniform in [0, 49408), end, zeros.
    The range includes the start and end tokens: after an early end the feature is read at its first occurrence, as
    in the authors' code. Their draw comes from torch's global generator; here it has a purpose of its own.
    """

    Settings = LwFVRSettings
    settings: LwFVRSettings
    paper = '"Don\'t Stop Learning: Towards Continual Learning for the CLIP Model", Ding et al., 2022, arXiv 2207.09248'

    def sentence_tokens(self, task: Task) -> torch.Tensor:
        shape = (self.settings.sentences, self.settings.sentence_tokens)
        tokens = torch.zeros(shape[0], CONTEXT, dtype=torch.long)
        tokens[:, 0] = START
        tokens[:, 1 : 1 + shape[1]] = self.draws.integers(VOCABULARY, shape, "random sentences", task.index)
        tokens[:, 1 + shape[1]] = END
        return tokens.to(self.device)
