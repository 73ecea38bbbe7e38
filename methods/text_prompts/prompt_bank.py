"""AttriCLIP's prompt bank: each image takes the prompts whose keys are nearest to it.

    keys K (N, d), prompts P (N, M, w); image feature f = norm(f(x)) (d,)

    choice(f)    i_1 .. i_C: the C largest f . K_i, largest first                  keys at raw length
    context(f)   [P_{i_1}; ..; P_{i_C}]                                            (C M, w), in that order
    w_c(f)       g([context(f), name_c, "."])                                      (d,) one text feature per image and class

Many images make the same ordered choice, and w_c depends on the image through its choice only: the distinct choices of a
batch are encoded, not its images. This is exact, and gradients add up by themselves.

    bank = PromptBank.drawn(draws, n=10, length=12, key_width=d, text_width=w, chosen=3)
    prompts = bank.prompts_for(backbone, names)                # once per list of classes
    choice = bank.choose(unit_features)                        # (b, C)
    text = bank.text_features(prompts, choice)                 # (b, c, d), un-normalised, with gradients to the bank
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from bench import Backbone, Draws
from methods.shared.prompts import ContextPrompts

DEVIATION = 0.02  # of the normal draws that keys and prompts start from


class PromptBank(torch.nn.Module):
    """The keys (N, d) and prompts (N, M, w), both trained; `chosen` is C; at most `chunk` prompts are encoded at once.

    `placeholder` is the word that holds the places of the context; it matters for `likeness` only.
    """

    def __init__(
        self, keys: torch.Tensor, prompts: torch.Tensor, chosen: int = 3, chunk: int = 512, placeholder: str = "x"
    ):
        super().__init__()
        if not 1 <= chosen <= len(keys):
            raise ValueError(f"{chosen} prompts cannot be chosen from a bank of {len(keys)}")
        self.keys = torch.nn.Parameter(keys)
        self.prompts = torch.nn.Parameter(prompts)
        self.chosen = chosen
        self.chunk = chunk
        self.placeholder = placeholder

    @classmethod
    def drawn(cls, draws: Draws, n: int, length: int, key_width: int, text_width: int, **options: Any) -> "PromptBank":
        """A new bank of `n` prompts of `length` tokens; `options` are those of the bank."""
        keys = DEVIATION * draws.normal((n, key_width), "prompt bank", "keys")
        prompts = DEVIATION * draws.normal((n, length, text_width), "prompt bank", "prompts")
        return cls(keys, prompts, **options)

    @property
    def context_length(self) -> int:
        """Tokens C M in front of a class name."""
        return self.chosen * self.prompts.shape[1]

    def prompts_for(self, backbone: Backbone, names: Sequence[str]) -> ContextPrompts:
        """The prompts of some classes, waiting for their context."""
        return ContextPrompts(backbone, names, self.context_length, placeholder=self.placeholder)

    # -- choosing -----------------------------------------------------------------------------------------------

    def similarity(self, features: torch.Tensor) -> torch.Tensor:
        """(b, N) of unit image features (b, d) with the keys as they are."""
        return features @ self.keys.T

    @torch.no_grad()
    def choose(self, features: torch.Tensor) -> torch.Tensor:
        """(b, C) which prompts each unit image feature (b, d) takes, nearest first; of equals the one of smaller index."""
        return self.similarity(features).sort(dim=-1, descending=True, stable=True).indices[:, : self.chosen]

    # -- text ---------------------------------------------------------------------------------------------------

    def text_features(self, prompts: ContextPrompts, choice: torch.Tensor) -> torch.Tensor:
        """(b, c, d) un-normalised text features of c classes for every image, given the images' choices (b, C)."""
        distinct, place = torch.unique(choice, dim=0, return_inverse=True)  # (g, C), (b,)
        return self.encode(prompts, distinct)[place]

    def encode(self, prompts: ContextPrompts, choices: torch.Tensor) -> torch.Tensor:
        """(g, c, d): the c prompts with each of the choices (g, C) as context."""
        n = len(prompts.tokens)
        contexts = self.prompts[choices].flatten(1, 2)  # (g, C M, w)
        pairs = torch.arange(len(choices) * n, device=choices.device)  # choice by choice, class by class
        features = [self._encode_pairs(prompts, contexts, part, len(pairs)) for part in pairs.split(self.chunk)]
        return torch.cat(features).unflatten(0, (len(choices), n))

    def _encode_pairs(self, prompts: ContextPrompts, contexts: torch.Tensor, pairs: torch.Tensor, total: int) -> torch.Tensor:
        """Encode some of the `total` pairs of choice and class."""
        n = len(prompts.tokens)

        def encode(contexts: torch.Tensor) -> torch.Tensor:
            return prompts.features(contexts[pairs // n], pairs % n)

        if total > self.chunk and torch.is_grad_enabled():
            # activations of one chunk at a time: the backward pass encodes it again
            return checkpoint(encode, contexts, use_reentrant=False)
        return encode(contexts)

    # -- losses -------------------------------------------------------------------------------------------------

    def key_loss(self, features: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        """1 - mean over the batch and the C chosen keys of f . norm(K_i): draws the chosen keys to the unit features (b, d)."""
        keys = F.normalize(self.keys, dim=-1)[choice]  # (b, C, d)
        return 1 - torch.einsum("bd,bcd->bc", features, keys).mean()

    def likeness(self, backbone: Backbone) -> torch.Tensor:
        """Mean over i != j of |cos(g_i, g_j)|, g_i the text feature of prompt i without a class name; 0 for a single prompt.

        The sentence is C M placeholders and a full stop, of which P_i takes the first M places.
        """
        n, length = self.prompts.shape[:2]
        sentence = self.prompts_for(backbone, [""])
        placeholders = sentence.embeddings[0, 1 + length : 1 + self.context_length]  # (C M - M, w)
        contexts = torch.cat([self.prompts, placeholders.expand(n, -1, -1)], dim=1)  # (N, C M, w)
        unit = F.normalize(sentence.features(contexts, torch.zeros(n, dtype=torch.long, device=contexts.device)), dim=-1)
        others = ~torch.eye(n, dtype=torch.bool, device=unit.device)
        return (unit @ unit.T)[others].abs().sum() / max(n * (n - 1), 1)
