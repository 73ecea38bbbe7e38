"""Fine-tuning with distillation on images and sentences beside the task: the common part of ZSCL, LwF and iCaRL."""

import copy
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import Split, Task, setting
from bench.clip.text_tower import encode_tokens
from bench.system.parallel import prefetched
from methods.fine_tuning.distillation import distillation
from methods.fine_tuning.finetune import FineTune, FineTuneSettings

SENTENCES_AT_ONCE = 512


@dataclass(frozen=True)
class DistilledFineTuneSettings(FineTuneSettings):
    image_weight: float = setting(1.0, "weight of the distillation over sentences, image by image; 0: off")
    text_weight: float = setting(1.0, "weight of the distillation over images, sentence by sentence; 0: off")
    temperature: float = setting(2.0, "T: both distributions are softened by it")


class DistilledFineTune(FineTune):
    """L = L_ce + image_weight L_img + text_weight L_txt (+ the switches of `finetune`), with a frozen teacher f0, g0.

    R images r and M sentences m go through both models; all features have unit length, tau is the logit scale:

        Zs = tau f(r) g0(m)^T,   Zt = tau f0(r) g0(m)^T        (R, M)
        L_img = KD(Zt, Zs; T)             rows are images, softmax over the M sentences     (parts/distillation.py)
        L_txt = KD(Zt^T, Zs^T; T)         rows are sentences, softmax over the R images

    Both use the teacher's sentence features, so the distillation sends gradient into the image encoder only. These and the
    teacher's image features are computed once per teacher, where the released code encodes all sentences and the batch
    again in every update: the same numbers.

    Subclasses say which images, which sentences and which teacher. These images are never cropped at random, as in the
    authors' MTIL program; its class-incremental sibling crops those of LwF and iCaRL.
    """

    Settings = DistilledFineTuneSettings
    kept_sentences: tuple[torch.Tensor, torch.Tensor] | None = None  # tokens (M, 77) and the initial CLIP's features (M, d)

    def fit(self, task: Task) -> None:
        self.teacher = self.choose_teacher(task)
        images = self.distillation_images(task)
        self.distilled = self.taught = None
        if self.teacher is not None and images is not None and len(images):
            self.distilled = images
            rows = self.distillation_rows(task, len(images))
            self.batch_of_update = prefetched(rows, images.pixels, self.device)
            self.tokens = self.sentence_tokens(task)
            self.sentence_features = self.features_of_sentences(self.tokens)  # (M, d)
        try:
            super().fit(task)
        finally:
            if self.distilled is not None:
                self.batch_of_update.close()
        self.teacher = self.distilled = self.taught = self.batch_of_update = self.tokens = self.sentence_features = None

    # -- what a method says ---------------------------------------------------------------------------------------

    @abstractmethod
    def choose_teacher(self, task: Task) -> torch.nn.Module | None:
        """The frozen model of this task; None: no distillation on this task."""

    @abstractmethod
    def distillation_images(self, task: Task) -> Split | None:
        """The images on which teacher and student are compared."""

    @abstractmethod
    def sentence_tokens(self, task: Task) -> torch.Tensor:
        """(M, 77) the sentences of this task."""

    def distillation_rows(self, task: Task, n: int) -> Iterator[torch.Tensor]:
        """Rows of the distillation images, batch by batch, for ever; shuffled anew in every pass."""
        return self.batches_of_rows(n, "distillation order", task.index)

    # -- the losses -----------------------------------------------------------------------------------------------

    def extra_loss(self, update: int, task: Task) -> torch.Tensor | float:
        loss = super().extra_loss(update, task)
        if self.distilled is None:
            return loss
        image_loss, text_loss = self.distillation_losses(*next(self.batch_of_update))
        return loss + self.settings.image_weight * image_loss + self.settings.text_weight * text_loss

    def distillation_losses(self, rows: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """L_img and L_txt of one batch of distillation images; a term whose weight is 0 is not computed, and is 0."""
        if self.teacher is self.clip:  # a released defect, as an option: the sentences move with the student too
            self.sentence_features = self.encode_sentences(self.tokens)
        scaled = self.backbone.logit_scale * self.sentence_features.T  # (d, M)
        teacher = F.normalize(self.teacher_features(rows, pixels), dim=-1) @ scaled  # (R, M)
        student = F.normalize(self.clip.encode_image(pixels), dim=-1) @ scaled
        zero = student.new_zeros(())
        return (
            distillation(teacher, student, self.settings.temperature) if self.settings.image_weight else zero,
            distillation(teacher.T, student.T, self.settings.temperature) if self.settings.text_weight else zero,
        )

    @torch.no_grad()
    def teacher_features(self, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """(R, d) features of the distillation images by the teacher; the initial CLIP's come from the feature store.

        A teacher of one task is asked once about an image, when its row is first drawn.
        """
        if self.teacher is self.backbone.clip:
            return self.distilled.chosen(rows).features()
        if self.teacher is self.clip:  # moves with every update
            return self.teacher.encode_image(pixels)
        if self.taught is None:
            self.known = torch.zeros(len(self.distilled), dtype=torch.bool)
        new = ~self.known[rows]
        if bool(new.any()):
            answers = self.teacher.encode_image(pixels[new])
            if self.taught is None:
                self.taught = answers.new_empty(len(self.distilled), answers.shape[1])
            self.taught[rows[new]] = answers
            self.known[rows] = True
        return self.taught[rows]

    def features_of_sentences(self, tokens: torch.Tensor) -> torch.Tensor:
        """As `encode_sentences`; what the initial CLIP, which never changes, made of the same sentences is kept."""
        if self.teacher is not self.backbone.clip:
            return self.encode_sentences(tokens)
        if self.kept_sentences is None or not torch.equal(self.kept_sentences[0], tokens):
            self.kept_sentences = tokens, self.encode_sentences(tokens)
        return self.kept_sentences[1]

    @torch.no_grad()
    def encode_sentences(self, tokens: torch.Tensor) -> torch.Tensor:
        """(M, d) unit features of sentences by the teacher."""
        parts = [encode_tokens(self.teacher, part) for part in tokens.split(SENTENCES_AT_ONCE)]
        return F.normalize(torch.cat(parts), dim=-1)

    def frozen_copy(self) -> torch.nn.Module:
        """The student as it is now: a real copy, which later updates do not touch."""
        return copy.deepcopy(self.clip).requires_grad_(False)
