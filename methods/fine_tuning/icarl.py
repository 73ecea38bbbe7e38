"""iCaRL as ZSCL's programs run it on CLIP: fine-tuning with distillation on stored images."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from bench import Split, Task, setting
from bench.clip.tower_types import ClipModel
from methods.fine_tuning.distilled_finetune import DistilledFineTune, DistilledFineTuneSettings
from methods.fine_tuning.finetune import MINI_WITH_TEACHER, recipes_with
from methods.shared.selection import herding

FEATURES_AT_ONCE = 256
CLASS_INCREMENTAL = {
    "image_weight": 5.0, "text_weight": 5.0, "memory_size": 5000, "candidates": 10000, "memory_update": "before",
    "teacher": "previous",
}  # fmt: skip


@dataclass(frozen=True)
class ICaRLSettings(DistilledFineTuneSettings):
    """Defaults: MTIL."""

    memory_size: int = setting(10000, "K: stored images in all, whatever the protocol allows")
    candidates: int = setting(30000, "images of a task that are looked at when its exemplars are chosen, the first ones")
    memory_update: Literal["after", "before"] = setting("after", "choose a task's exemplars after or before it is learned")
    teacher: Literal["initial", "previous"] = setting("initial", "initial CLIP, or the weights at the task's start")
    faithful_memory: bool = setting(False, "reproduce the released choice of images: wrong indices, and more than K of them")
    teacher_is_student: bool = setting(
        False, "reproduce the released class-incremental code, whose teacher shares the student's memory", added_later=True
    )


class ICaRL(DistilledFineTune):
    """iCaRL for CLIP: distillation on stored images of earlier tasks; the CLIP text classifier decides.

    Paper: "iCaRL: Incremental Classifier and Representation Learning", S.-A. Rebuffi, A. Kolesnikov, G. Sperl,
    C. H. Lampert, CVPR 2017, arXiv 1611.07725; the CLIP version is the baseline of ZSCL (arXiv 2303.06628). It has no
    nearest-mean classifier and no cross-entropy on exemplars: for those see `icarl-nme`.

    Everything as in `finetune`; from the second task on also L_img and L_txt of methods/fine_tuning/distilled_finetune.py: images
    are the stored ones, walked in a fixed order (oldest task first), sentences the current task's C prompts, the teacher is
    the initial CLIP. After task t (t = 1, 2, ...; K = memory_size):

        t = 1: keep the first K of the task's training images
        t > 1: every earlier task keeps its first floor(K / t); m = floor(K / t) new images by herding over the whole task:
               v_i = unit features of the trained model, mu = mean v_i, pick argmin_i ||mu - (v_i + S) / (k + 1)||^2,
               S = sum of those picked, k = 0 .. m - 1

    In the class-incremental program the memory is updated before the task is learned, with the features of the model so
    far, and the teacher is the previous model.

    Only the rows of the exemplars are part of the state: the images are read again, which gives the same pixels.
    Mind that the method keeps K images on every protocol, also where the protocol allows none: the cost table shows it.

    Deviations from the authors' code, besides those of `finetune`: their list of candidate features shrinks with each pick
    and their list of images does not, so wrong images and duplicates are kept, and m = K - floor(K / t) exceeds the
    budget from the third task on; `faithful_memory` does both. Their class-incremental teacher shares the student's memory
    (`bench show lwf`): `teacher_is_student` does the same, the default is a copy. Their iCaRL script sets neither
    distillation term; here both are on, as in LwF's.
    """

    Settings = ICaRLSettings
    settings: ICaRLSettings
    recipes = recipes_with(CLASS_INCREMENTAL) | {"mini*": {**MINI_WITH_TEACHER, "memory_size": 300}}
    paper = (
        '"iCaRL: Incremental Classifier and Representation Learning", Rebuffi et al., CVPR 2017, arXiv 1611.07725; '
        "CLIP version: ZSCL, arXiv 2303.06628"
    )
    conformance = (
        "checked: rates, losses, gradients, saved weights, exemplars with the released defect, standard herding and means"
    )

    def prepare(self) -> None:
        super().prepare()
        self.seen_splits: list[Split] = []  # filled by `grow`, which a resume repeats

    def grow(self, task: Task) -> None:
        self.seen_splits.append(task.train)
        if not hasattr(self, f"exemplars_{task.index}"):  # rows of the task's training images
            self.register_buffer(f"exemplars_{task.index}", torch.zeros(0, dtype=torch.long, device=self.device))

    def learn(self, task: Task) -> None:
        if self.settings.memory_update == "before":
            self.update_memory()
        super().learn(task)
        if self.settings.memory_update == "after":
            self.update_memory()

    def choose_teacher(self, task: Task) -> ClipModel | None:
        if self.settings.teacher_is_student:
            return self.clip
        return self.backbone.clip if self.settings.teacher == "initial" else self.frozen_copy()

    def distillation_images(self, task: Task) -> Split | None:
        chosen = [split.chosen(self.exemplars(index)) for index, split in enumerate(self.seen_splits)]
        stored = [split for split in chosen if len(split)]
        return Split.concatenate(stored) if stored and task.index > 0 else None

    def distillation_rows(self, task: Task, n: int) -> Iterator[torch.Tensor]:
        """In fixed order, from the first again after the last."""
        return itertools.cycle(torch.arange(n).split(self.settings.batch_size))

    def sentence_tokens(self, task: Task) -> torch.Tensor:
        return self.prompt_tokens[list(task.classes)]

    # -- memory ---------------------------------------------------------------------------------------------------

    def exemplars(self, task: int) -> torch.Tensor:
        """Rows of the stored images among the training images of a task, in the order in which they were picked."""
        return getattr(self, f"exemplars_{task}").cpu()

    def update_memory(self) -> None:
        """Shrink what is kept of earlier tasks and choose exemplars of the newest one."""
        settings, newest = self.settings, len(self.seen_splits) - 1
        share = settings.memory_size // (newest + 1)
        for task in range(newest):
            self._store(task, self.exemplars(task)[:share])
        split = self.seen_splits[newest]
        looked_at = min(len(split), settings.candidates)
        if newest == 0 and settings.memory_update == "after":
            chosen = torch.arange(min(looked_at, settings.memory_size))
        else:
            wanted = settings.memory_size - share if settings.faithful_memory and newest > 0 else share
            chosen = self._herd(split.chosen(torch.arange(looked_at)), wanted)
        self._store(newest, chosen)

    @torch.no_grad()
    def _herd(self, images: Split, wanted: int) -> torch.Tensor:
        rows = torch.arange(len(images)).split(FEATURES_AT_ONCE)
        features = torch.cat([self.image_features(images.pixels(self.processes.part(part)), len(part)).cpu() for part in rows])
        picks = herding(features.double().numpy(), wanted)
        return torch.from_numpy(released_picks(picks) if self.settings.faithful_memory else picks)

    def _store(self, task: int, rows: torch.Tensor) -> None:
        setattr(self, f"exemplars_{task}", rows.to(self.device))

    def exemplar_bytes(self) -> int:
        images = sum(len(self.exemplars(task)) for task in range(len(self.seen_splits)))
        return images * 3 * self.backbone.image_size**2


def released_picks(picks: np.ndarray) -> np.ndarray:
    """The images that the released code stores when these are meant: positions in the shrinking list of candidates.

    >>> released_picks(np.array([2, 3, 0])).tolist()  # 3 stands at place 2 once 2 is gone
    [2, 2, 0]
    """
    return np.array([pick - (picks[:k] < pick).sum() for k, pick in enumerate(picks)], dtype=int)
