"""CLAP on learned prompts: CoOp's context in front of the class names."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import setting
from methods.clap.clap import Clap, Competing, Inputs
from methods.clap.settings import MINI, ClapSettings
from methods.shared.prompts import ContextPrompts


@dataclass(frozen=True)
class ClapCoOpSettings(ClapSettings):
    attention_heads: int = setting(0, "heads of the attention; 0: one for every 64 dimensions")
    adapter_layer_norm: bool = setting(True, "a layer norm in front of each adapter")
    prior_in_consolidation: bool = setting(False, "data-driven prior: use it there too (off: the standard one)")
    context_length: int = setting(12, "number of context tokens")
    class_specific: bool = setting(False, "one context per class instead of one for all", "KaiyangZhou/CoOp")


class ClapCoOp(Clap):
    """CLAP with CoOp's prompts: a learned text context, kept and tuned through all tasks.

    Equations of the head, losses and phases: see `clap` (methods/clap/clap.py). Here the text features depend on a context of M
    vectors v_m (w,), shared by all classes or ("class_specific") one set for each, in front of the class name:

        h_k = norm(g([v_1 .. v_M, name_k, "."]))

    It is drawn from N(0, 0.02^2) at the very start and trained in both phases. R and the language-aware start use the
    hand-made prompts all the same. One head for every 64 dimensions, and a layer norm before each adapter. Class vectors h_k
    are encoded once per task; an unseen class has the shared context too, with contexts of their own it keeps its
    hand-made prompt.

    Deviations: the data-driven prior is used in the main phase only, as in the code; a context per class is not in it, nor is
    its own unused context per task here. See `clap` for the others.
    """

    Settings = ClapCoOpSettings
    settings: ClapCoOpSettings
    recipes = {"mini*": MINI | {"class_specific": True, "batch_size": 64}}
    trains = "text context, attention over texts and images, two adapters per task; both encoders are frozen"
    needs = ("towers",)
    conformance = "checked: as clap, with the context and its gradients, on two tasks with replay and consolidation"

    def prepare(self) -> None:
        super().prepare()
        n = len(self.scenario.class_names) if self.settings.class_specific else 1
        context = 0.02 * self.draws.normal((n, self.settings.context_length, self.backbone.text_width), "context")
        self.context = torch.nn.Parameter(context)  # (1 or N, M, w)

    def prompts_of(self, classes: torch.Tensor) -> ContextPrompts:
        names = [self.scenario.class_names[c] for c in classes.tolist()]
        return ContextPrompts(self.backbone, names, self.settings.context_length)

    def _text_features(self, classes: torch.Tensor, prompts: ContextPrompts) -> torch.Tensor:
        """(K, d) unit text features of the prompts of `classes` (K,)."""
        context = self.context[classes] if self.settings.class_specific else self.context[0]
        return F.normalize(prompts.features(context), dim=-1)

    def training_inputs(self, text: Competing, images: torch.Tensor) -> Inputs:
        return Inputs(F.normalize(images, dim=-1), self._text_features(text.classes, text.prompts))

    def store_class_vectors(self) -> None:
        every_class = torch.arange(len(self.scenario.class_names), device=self.device)
        classes = self.seen if self.settings.class_specific else every_class
        self.class_vectors[classes] = self._text_features(classes, self.prompts_of(classes))
