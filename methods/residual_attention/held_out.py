"""A part of a task's training images that is held out, to tell which epoch was the best without a look at test images."""

from typing import NamedTuple

import torch

from bench import Draws


class Division(NamedTuple):
    """Rows of a task's images, in their order."""

    trained_on: torch.Tensor
    held_out: torch.Tensor


def divided(labels: torch.Tensor, share: float, draws: Draws, *purpose: object) -> Division:
    """This share of every class is held out, drawn for the purpose: rounded, but at least one image and never the last one."""
    held: list[torch.Tensor] = []
    for c in labels.unique().tolist():
        rows = torch.nonzero(labels == c).flatten()
        count = min(max(1, round(share * len(rows))), len(rows) - 1) if share else 0
        held.append(rows[draws.permutation(len(rows), *purpose, c)[:count]])
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    is_held[torch.cat(held)] = True
    return Division(torch.nonzero(~is_held).flatten(), torch.nonzero(is_held).flatten())
