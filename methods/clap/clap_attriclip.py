"""CLAP on AttriCLIP's prompt bank: every image has text features of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from bench import BenchError, Task, setting
from methods.clap.clap import Clap, Competing, Inputs
from methods.clap.settings import MINI, ClapSettings
from methods.shared.prompts import ContextPrompts
from methods.text_prompts.prompt_bank import PromptBank


@dataclass(frozen=True)
class ClapAttriCLIPSettings(ClapSettings):
    warm_up: float = setting(0.0, "fraction of a task's steps during which the rate rises; none in the consolidation")
    attention_heads: int = setting(8, "heads of the attention; 0: one for every 64 dimensions")
    attention_in_consolidation: bool = setting(True, "train the attention there too")
    bank_size: int = setting(10, "number of keys and prompts")
    prompt_length: int = setting(12, "tokens M of a prompt")
    chosen: int = setting(3, "prompts C that an image takes")
    key_weight: float = setting(0.7, "weight of the key loss; 0: the flag is off")
    prompt_weight: float = setting(0.3, "weight of the likeness between prompts; 0: the flag is off")
    prompts_at_once: int = setting(512, "prompts encoded together; beyond, activations are computed again", "harness")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.chosen <= self.bank_size:
            raise BenchError(f"chosen={self.chosen}: choose between 1 and bank_size={self.bank_size} prompts an image")
        if self.prompt_length < 1 or self.prompts_at_once < 1:
            raise BenchError("prompt_length and prompts_at_once must be at least 1")


class ClapAttriCLIP(Clap):
    """CLAP with AttriCLIP's prompts: every image takes the nearest of a bank, and so has its own text features.

    Equations of the head, losses and phases: see `clap` (methods/clap/clap.py). Bank, keys and choice: see `attriclip`
    (methods/text_prompts/prompt_bank.py). h_bk (d,) is the unit text feature of class k with the prompts that image b has chosen.
    The attention gets their mean over the batch, and every image adds its own:

        h_k = mean_b h_bk,   u_k = h_k + v_k,   w_bk^(r) = z_k^(r) + u_k + h_bk,   logit = s x_b . w_bk^(r)

    To the loss come key_weight (1 - mean x_b . norm(K_i)) over the chosen keys K_i, which moves the keys, and prompt_weight
    times the mean |cos| between the bank's prompts. Eight heads, no warm-up, and the attention is trained in the
    consolidation too. The loss is over all classes seen, so a step encodes (distinct choices) x K prompts.

    How sure: the code of this variant was never released as source; these facts were read from compiled modules of one stage
    of its development, which may differ from what made the published numbers. See `clap` for the deviations.

    Raises BenchError for settings out of range; RunFailure when the loss is not finite.
    """

    Settings = ClapAttriCLIPSettings
    settings: ClapAttriCLIPSettings
    # a smaller bank of shorter prompts: the fewer choices there are, the fewer texts have to be encoded
    recipes = {"mini*": MINI | {"bank_size": 5, "chosen": 2, "prompt_length": 4, "batch_size": 64}}
    quick = {"epochs": 1}
    trains = "bank of keys and prompts, attention over texts and images, two adapters per task; both encoders are frozen"
    needs = ("towers",)
    conformance = "no vectors: the head is that of clap, the bank that of attriclip, and both are checked"

    def prepare(self) -> None:
        super().prepare()
        s = self.settings
        size = (s.bank_size, s.prompt_length, self.backbone.embedding_width, self.backbone.text_width)
        self.bank = PromptBank.drawn(self.draws, *size, chosen=s.chosen, chunk=s.prompts_at_once)
        self._encoded: dict[tuple[int, ...], torch.Tensor] = {}  # choice -> (N, d): text features after the last training

    def prompts_of(self, classes: torch.Tensor) -> ContextPrompts:
        return self.bank.prompts_for(self.backbone, [self.scenario.class_names[c] for c in classes.tolist()])

    def training_inputs(self, text: Competing, images: torch.Tensor) -> Inputs:
        s, features = self.settings, F.normalize(images, dim=-1)
        choice = self.bank.choose(features)
        own = F.normalize(self.bank.text_features(text.prompts, choice), dim=-1)  # (b, K, d) h_bk
        penalty: torch.Tensor | float = s.key_weight * self.bank.key_loss(features, choice) if s.key_weight else 0.0
        if s.prompt_weight:
            penalty = penalty + s.prompt_weight * self.bank.likeness(self.backbone)
        return Inputs(features, own.mean(dim=0), torch.einsum("bd,bkd->bk", features, own), penalty)

    def test_inputs(self, batch: torch.Tensor, classes: torch.Tensor) -> Inputs:
        if not len(self.seen):
            return super().test_inputs(batch, classes)
        features = F.normalize(batch, dim=-1)
        choices, place, counts = torch.unique(self.bank.choose(features), dim=0, return_inverse=True, return_counts=True)
        own = torch.stack([self._text_features(choice)[classes] for choice in choices])  # (distinct choices, K, d)
        mean = torch.einsum("g,gkd->kd", counts / len(batch), own)
        return Inputs(features, mean, torch.einsum("bd,bkd->bk", features, own[place]))

    def _text_features(self, choice: torch.Tensor) -> torch.Tensor:
        """(N, d) unit text features of all classes with this choice (C,), encoded when first asked for."""
        key = tuple(choice.tolist())
        if key not in self._encoded:
            every_class = self.prompts_of(torch.arange(len(self.scenario.class_names)))
            self._encoded[key] = F.normalize(self.bank.encode(every_class, choice.unsqueeze(0))[0], dim=-1)
        return self._encoded[key]

    def start_task(self, task: Task) -> None:
        super().start_task(task)
        self._encoded = {}

    def store_class_vectors(self) -> None:
        """Text features are encoded as test images ask for them; those of the bank before its training are forgotten."""
        self._encoded = {}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        self._encoded = {}
        return super().load_state_dict(state_dict, strict, assign)
