"""Prompts with learned context tokens (CoOp's construction, shared by every prompt-learning method).

The prompt of a class is tokenised with placeholders, "X X X X name.", embedded once, and the embeddings of the
placeholders are replaced by context vectors. Gradients reach the context through the frozen text tower.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import torch

from bench import Backbone, Draws, Scenario

Position = Literal["end", "middle", "front"]


class ContextPrompts:
    """The prompts of some classes, waiting for their context.

    `position` says where the class name stands: after the context ("end"), after its first half ("middle"), or before
    it ("front"). `placeholder` is a word, repeated for every context token, or a phrase of that many tokens; it holds the
    place only and does not influence the result.
    """

    def __init__(
        self,
        backbone: Backbone,
        names: Sequence[str],
        context_length: int,
        position: Position = "end",
        placeholder: str = "X",
    ):
        prefix = placeholder if " " in placeholder else " ".join([placeholder] * context_length)
        texts = [f"{prefix} {name}." for name in names]
        self.backbone = backbone
        self.context_length = context_length
        self.context_before_name = {"end": context_length, "middle": context_length // 2, "front": 0}[position]
        self.tokens = backbone.tokenize(texts)  # (n, 77)
        self.end = self.tokens.argmax(dim=-1)  # (n,) position of the end-of-text token
        self.embeddings = backbone.embed_tokens(self.tokens)  # (n, length, w)
        self.slots = self._slots()  # (n, length)

    @functools.cached_property
    def end_on_host(self) -> torch.Tensor:
        """Read once: the text tower is laid out by it in every step."""
        return self.end.cpu()

    def _slots(self) -> torch.Tensor:
        """For each place of the prompt, which token of [start, context, name, rest] comes there."""
        context, before = self.context_length, self.context_before_name
        place = torch.arange(self.embeddings.shape[1], device=self.end.device).expand(len(self.end), -1)  # (n, length)
        # end-of-text follows the full stop: what lies between the context and these two is the name
        name_length = (self.end - 2 - context).unsqueeze(1)  # (n, 1)
        name = (place > before) & (place <= before + name_length)
        rest_of_context = (place > before + name_length) & (place <= context + name_length)
        return torch.where(name, place + context - before, torch.where(rest_of_context, place - name_length, place))

    def features(self, context: torch.Tensor, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Text features (n, d), un-normalised, of the chosen prompts.

        `context` is (M, w), shared by all classes, or (n, M, w), one for each chosen prompt.
        """
        embeddings = self.embeddings[rows]  # (n, length, w)
        shared = 1  # tokens at the start that are the same in all prompts
        if context.dim() == 2:
            shared += self.context_before_name
            context = context.expand(len(embeddings), -1, -1)
        start, rest = embeddings[:, :1], embeddings[:, 1 + self.context_length :]
        x = torch.cat([start, context, rest], dim=1)  # (n, length, w)
        x = x.gather(1, self.slots[rows].unsqueeze(-1).expand_as(x))
        end = self.end[rows] if isinstance(rows, torch.Tensor) else self.end_on_host[rows]
        return self.backbone.encode_embedded(x, end, shared)


def readable_names(scenario: Scenario, classes: torch.Tensor) -> list[str]:
    """The names of classes (c,) as a sentence has them: "golden_retriever" is a golden retriever."""
    return [scenario.class_names[c].replace("_", " ") for c in classes.tolist()]


def starting_context(backbone: Backbone, draws: Draws, words: str | None, length: int, *purpose: object) -> torch.Tensor:
    """(M, w): the embeddings of some words or, where there are none, `length` normal draws of standard deviation 0.02."""
    if words:
        return context_from_words(backbone, words)
    return 0.02 * draws.normal((length, backbone.text_width), *purpose).to(backbone.device)


def context_from_words(backbone: Backbone, words: str) -> torch.Tensor:
    """The token embeddings (M, w) of some words, for instance "a photo of a": a context to start from."""
    tokens = backbone.tokenize([words])
    return backbone.embed_tokens(tokens)[0, 1 : int(tokens.argmax(dim=-1)[0])].clone()  # without start and end
