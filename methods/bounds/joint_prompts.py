"""Joint prompt tuning: CGIL's prompts tuned on the real embeddings of all classes at once, its upper bound."""

from dataclasses import fields

import torch
import torch.nn.functional as F

from bench import Task
from methods.cgil.alignment import AlignmentSettings, ClassPrompts
from methods.cgil.cgil import CGIL
from methods.shared.classifiers import TextClassifier

SHARED = {field.name for field in fields(AlignmentSettings)}


class JointPrompts(TextClassifier):
    """Joint prompt tuning: CGIL's prompts on real embeddings of all classes at once, an upper bound.

    Paper: CGIL (BMVC 2024, arXiv 2407.15793) compares with it. What separates the two is what replay loses: here the
    embeddings are f(x) of all training images instead of samples from generative models, and all classes are there from
    the start.

    Trained: V_c and G, by CGIL's alignment with CGIL's settings. Frozen: CLIP. With f(x) (d,) the raw image embedding,
    h_c (d,) the raw text feature of "a photo of a {name}", tau = exp(logit scale):

        key         k_c = norm(text tower([start] V_c G(h_c) [name of c] "." [end]))            (methods/cgil/alignment.py)
        alignment   V_c, G <- argmin mean_i -log softmax_c(tau cos(f(x_i), k_c))[y_i]
        logit       tau cos(f(x), k_c)

    An epoch is one pass over the training images (m embeddings in batches of 128), where an epoch of CGIL draws 256 samples
    per class.

    How the authors trained this bound is not known to us: learning rate and epochs are CGIL's, which is our choice.

    Raises BenchError for an unknown context; RunFailure when a loss is not finite.
    """

    Settings = AlignmentSettings
    settings: AlignmentSettings
    recipes = {
        protocol: {name: value for name, value in recipe.items() if name in SHARED}
        for protocol, recipe in CGIL.recipes.items()
    } | {
        "mini*": {"alignment_lr": 0.003, "alignment_epochs": 30},  # real images are fewer than samples: more epochs
        "mini-mtil*": {"alignment_epochs": 15},
        "mini-xtail*": {"alignment_epochs": 15},
    }
    quick = {"alignment_epochs": 2}
    paper = CGIL.paper + " (its upper bound)"
    trains = "a context per class and a shared context generator; CLIP is frozen"
    conformance = "no vectors of its own: prompts and alignment are those checked in cgil"
    joint = True

    def prepare(self) -> None:
        self.prompts = ClassPrompts(self.backbone, self.scenario, self.settings, self.draws)
        self.register_buffer("class_vectors", F.normalize(self.prompts.hand_made, dim=-1))

    def learn(self, task: Task) -> None:
        features, labels = task.train.features(), task.train.labels.to(self.device)
        self.prompts.align(len(self.class_vectors), lambda epoch: features, labels, (task.index,), self.check_finite)
        with torch.no_grad():
            self.class_vectors = self.prompts.keys(len(self.class_vectors))
