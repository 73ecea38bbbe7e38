"""Pixels of a training batch, cropped and mirrored at random."""

import torch

from bench import Draws, Split
from methods.shared.random_crops import random_crops


def training_pixels(
    split: Split, rows: torch.Tensor, draws: Draws, crop: float, mirrored: bool, purpose: tuple, epoch: int, step: int
) -> torch.Tensor:
    """(b, 3, size, size) of the chosen rows. `purpose` names the phase and the task.

    crop       smallest share of the area that a crop keeps; crops are taken from the square view of an image; 1: none
    mirrored   half of the split's images are flipped left-right, others in every epoch
    """
    pixels = random_crops(split.pixels(rows), crop, draws, *purpose, "crop", step)
    if not mirrored:
        return pixels
    flipped = (draws.permutation(len(split), *purpose, "view", epoch) % 2 == 1)[rows].to(pixels.device)
    return torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
