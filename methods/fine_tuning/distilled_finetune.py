"""Fine-tuning with distillation on images and sentences beside the task: the common part of ZSCL, LwF and iCaRL."""

import copy
from abc import abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import Range, Split, Task, setting
from bench.clip.text_tower import encode_tokens
from bench.clip.tower_types import ClipModel
from bench.system.parallel import prefetched
from methods.fine_tuning.finetune import FineTune, FineTuneSettings

SENTENCES_AT_ONCE = 512


@dataclass(frozen=True)
class DistilledFineTuneSettings(FineTuneSettings):
    image_weight: float = setting(
        1.0, "weight of the distillation over sentences, image by image; 0: off", search=Range(0.1, 20.0, log=True)
    )
    text_weight: float = setting(
        1.0, "weight of the distillation over images, sentence by sentence; 0: off", search=Range(0.1, 20.0, log=True)
    )
    temperature: float = setting(2.0, "T: both distributions are softened by it")


@dataclass
class Lesson:
    """What distillation needs while one task is learned.

    A teacher that does not move is asked once about an image, when its row is first drawn: `known` says of which images
    `answers` holds what it said.
    """

    teacher: ClipModel
    images: Split
    # rows (R,) of the images and their pixels, for ever; where several processes share them, the pixels of this one's part
    batches: Generator[tuple[torch.Tensor, torch.Tensor], None, None]
    tokens: torch.Tensor  # (M, 77) the sentences
    sentence_features: torch.Tensor  # (M, d) by the teacher, unit length
    known: torch.Tensor  # (n,)
    answers: torch.Tensor | None = None  # (n, d); None before the first question


class DistilledFineTune(FineTune):
    """L = L_ce + image_weight L_img + text_weight L_txt (+ the switches of `finetune`), with a frozen teacher f0, g0.

    R images r and M sentences m go through both models; all features have unit length, tau is the logit scale:

        Zs = tau f(r) g0(m)^T,   Zt = tau f0(r) g0(m)^T        (R, M)
        L_img = KD(Zt, Zs; T)             rows are images, softmax over the M sentences
        L_txt = KD(Zt^T, Zs^T; T)         rows are sentences, softmax over the R images
        KD(P, Q; T) = T^2 mean over rows of -sum over columns of softmax(P / T) log softmax(Q / T)

    Both use the teacher's sentence features, so the distillation sends gradient into the image encoder only. These and the
    teacher's image features are computed once per teacher, where the released code encodes all sentences and the batch
    again in every update: the same numbers.

    Subclasses say which images, which sentences and which teacher. These images are never cropped at random, as in the
    authors' MTIL program; its class-incremental sibling crops those of LwF and iCaRL.
    """

    Settings = DistilledFineTuneSettings
    settings: DistilledFineTuneSettings

    lesson: Lesson | None = None  # of the task that is learned; None outside a task, and where nothing is distilled
    kept_sentences: tuple[torch.Tensor, torch.Tensor] | None = None  # tokens (M, 77) and the initial CLIP's features (M, d)

    def fit(self, task: Task) -> None:
        teacher, images = self.choose_teacher(task), self.distillation_images(task)
        if teacher is not None and images is not None and len(images):
            self.lesson = self.prepared_lesson(teacher, images, task)
        try:
            super().fit(task)
        finally:
            if self.lesson is not None:
                self.lesson.batches.close()
            self.lesson = None

    def prepared_lesson(self, teacher: ClipModel, images: Split, task: Task) -> Lesson:
        rows = self.distillation_rows(task, len(images))
        batches = prefetched(rows, lambda some: images.pixels(self.processes.part(some)), self.device)
        tokens = self.sentence_tokens(task)
        sentence_features = self.features_of_sentences(teacher, tokens)
        return Lesson(teacher, images, batches, tokens, sentence_features, torch.zeros(len(images), dtype=torch.bool))

    # -- what a method says ---------------------------------------------------------------------------------------

    @abstractmethod
    def choose_teacher(self, task: Task) -> ClipModel | None:
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
        if self.lesson is None:
            return loss
        image_loss, text_loss = self.distillation_losses(*next(self.lesson.batches))
        return loss + self.settings.image_weight * image_loss + self.settings.text_weight * text_loss

    def distillation_losses(self, rows: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """L_img and L_txt of one batch of distillation images; a term whose weight is 0 is not computed, and is 0."""
        lesson = self.lesson
        assert lesson is not None  # nothing asks for them outside a task
        if lesson.teacher is self.clip:  # a released defect, as an option: the sentences move with the student too
            lesson.sentence_features = self.encode_sentences(lesson.teacher, lesson.tokens)
        scaled = self.backbone.logit_scale * lesson.sentence_features.T  # (d, M)
        teacher = F.normalize(self.teacher_features(rows, pixels), dim=-1) @ scaled  # (R, M)
        student = F.normalize(self.image_features(pixels, len(rows)), dim=-1) @ scaled
        image_loss = text_loss = student.new_zeros(())
        if self.settings.image_weight:
            image_loss = distillation(teacher, student, self.settings.temperature)
        if self.settings.text_weight:
            text_loss = distillation(teacher.T, student.T, self.settings.temperature)
        return image_loss, text_loss

    @torch.no_grad()
    def teacher_features(self, rows: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """(R, d) features of the distillation images by the teacher; the initial CLIP's come from the feature store."""
        lesson = self.lesson
        assert lesson is not None
        if lesson.teacher is self.backbone.clip:
            return lesson.images.chosen(rows).features()
        if lesson.teacher is self.clip:  # moves with every update
            return self.image_features(pixels, len(rows))
        new = ~lesson.known[rows]
        if bool(new.any()):
            answers = self.answers_of(lesson.teacher, new, pixels)
            if lesson.answers is None:
                lesson.answers = answers.new_empty(len(lesson.images), answers.shape[1])
            lesson.answers[rows[new]] = answers
            lesson.known[rows] = True
        assert lesson.answers is not None  # the first rows are always new
        return lesson.answers[rows]

    def answers_of(self, teacher: ClipModel, new: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """(k, d) what a teacher says of the images of a batch that are `new` (R,) to it; every process asks about its own."""
        asked = new.split(self.processes.sizes(len(new)))
        own = pixels[asked[self.processes.place]]
        features = teacher.encode_image(own) if len(own) else self.no_features()
        return self.processes.gathered(features, [int(part.sum()) for part in asked])

    def features_of_sentences(self, teacher: ClipModel, tokens: torch.Tensor) -> torch.Tensor:
        """As `encode_sentences`; what the initial CLIP, which never changes, made of the same sentences is kept."""
        if teacher is not self.backbone.clip:
            return self.encode_sentences(teacher, tokens)
        if self.kept_sentences is None or not torch.equal(self.kept_sentences[0], tokens):
            self.kept_sentences = tokens, self.encode_sentences(teacher, tokens)
        return self.kept_sentences[1]

    @torch.no_grad()
    def encode_sentences(self, teacher: ClipModel, tokens: torch.Tensor) -> torch.Tensor:
        """(M, d) unit features of sentences by the teacher."""
        parts = [encode_tokens(teacher, part) for part in tokens.split(SENTENCES_AT_ONCE)]
        return F.normalize(torch.cat(parts), dim=-1)

    def frozen_copy(self) -> ClipModel:
        """The student as it is now: a real copy, which later updates do not touch."""
        return copy.deepcopy(self.clip).requires_grad_(False)


def distillation(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    """Distillation between contrastive models, as in ZSCL's programs.

        KD(P, Q; T) = T^2 mean over rows of -sum over columns of softmax(P / T) log softmax(Q / T).

    P teacher's and Q student's logits (rows, columns). It is not zero when the two agree: then it is T^2 times the mean
    entropy of the teacher, and its gradient is zero.

    >>> round(float(distillation(torch.zeros(1, 2), torch.zeros(1, 2), 2.0)), 4)  # 4 log 2
    2.7726
    """
    target = (teacher / temperature).softmax(dim=-1)
    return -temperature**2 * (target * (student / temperature).log_softmax(dim=-1)).sum(dim=-1).mean()
