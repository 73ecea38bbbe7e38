"""CLAP on MaPLe's prompts in both towers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench import setting
from methods.clap.clap import Clap, Competing, Inputs
from methods.clap.settings import MINI, ClapSettings
from methods.shared.prompts import ContextPrompts, readable_names
from methods.text_prompts.deep_prompts import DeepPrompts


@dataclass(frozen=True)
class ClapMaPLeSettings(ClapSettings):
    scale_rate_with_batch: bool = setting(False, "the peak is learning_rate * batch_size / 20")
    warm_up: float = setting(0.0, "fraction of a task's steps during which the rate rises; none in the consolidation")
    attention_heads: int = setting(0, "heads of the attention; 0: one for every 64 dimensions")
    adapter_layer_norm: bool = setting(True, "a layer norm in front of each adapter")
    prior_in_consolidation: bool = setting(False, "data-driven prior: use it there too (off: the standard one)", "as clap-coop")
    prompt_length: int = setting(2, "prompt tokens n in each tower")
    prompt_depth: int = setting(9, "blocks J that get prompts, the first ones of each tower")
    context_words: str | None = setting("a photo of a", "phrase before the class name; its first n tokens start P_0")
    released: bool = setting(
        False, "as in the release: of the prompts train P_0 only, and do not normalise text features at test time", "paper"
    )


class ClapMaPLe(Clap):
    """CLAP with MaPLe's prompts: learned tokens in the first blocks of both towers.

    Equations of the head, losses and phases: see `clap` (methods/clap/clap.py). Prompts: see `maple`
    (methods/text_prompts/deep_prompts.py). Here both features depend on the prompts P, and both carry gradients to them:

        h_k = norm(g(P, name_k)),   x_b = norm(f(P, pixels_b))

    so nothing can be cached, and exemplars are kept as uint8 images. R and the prior that needs language features use the
    hand-made prompts through the plain CLIP. One head for every 64 dimensions, a layer norm before each adapter, a rate
    that neither grows with the batch nor warms up.

    Deviations from the authors' code: all of MaPLe's prompts and maps are trained (in the release only P_0: whatever has
    neither "ctx" nor "vga" nor "adapter" in its name stays at its random start), and text features are normalised at test
    time as they are in training; `released` restores both. The data-driven and the language-aware prior can be chosen here
    too, the code has the standard one only. See `clap` for the others.

    Raises BenchError for settings out of range or a depth that the towers do not have; RunFailure when the loss is not finite.
    """

    Settings = ClapMaPLeSettings
    settings: ClapMaPLeSettings
    recipes = {"mini*": MINI | {"prompt_depth": 3, "batch_size": 64}}  # the mini CLIP's text tower has three blocks
    quick = {"epochs": 1}
    inputs = "pixels"
    trains = "prompts in both towers, attention over texts and images, two adapters per task; both towers are frozen"
    needs = ("towers",)
    conformance = "no vectors: the head is that of clap-coop, the prompts those of maple, and both are checked"

    def prepare(self) -> None:
        super().prepare()
        s = self.settings
        self.deep = DeepPrompts(self.backbone, self.draws, s.prompt_length, s.prompt_depth, s.context_words, s.released)

    def prompts_of(self, classes: torch.Tensor) -> ContextPrompts:
        return self.deep.prompts(readable_names(self.scenario, classes))

    def training_inputs(self, text: Competing, images: torch.Tensor) -> Inputs:
        features = F.normalize(self.deep.image_features(images), dim=-1)
        return Inputs(features, F.normalize(self.deep.text_features(text.prompts), dim=-1))

    def test_inputs(self, batch: torch.Tensor, classes: torch.Tensor) -> Inputs:
        # untrained, the random deeper prompts would only disturb the image tower
        features = self.deep.image_features(batch) if len(self.seen) else self.backbone.encode_images(batch)
        return Inputs(F.normalize(features, dim=-1), self.class_vectors[classes])

    def classes_added(self, new: Sequence[int]) -> None:
        if len(self.seen):
            self.store_class_vectors()

    @torch.no_grad()
    def store_class_vectors(self) -> None:
        features = self.deep.text_features(self.prompts_of(torch.arange(len(self.scenario.class_names))))
        self.class_vectors = features if self.settings.released else F.normalize(features, dim=-1)
