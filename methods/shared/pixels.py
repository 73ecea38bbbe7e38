"""Pixels to learn from: a task's images batch by batch, cropped and mirrored at random."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from bench import BenchError, Draws, Method, Split
from bench.system.parallel import prefetched
from methods.shared.batches import Batch, training_batches

ATTEMPTS = 10  # after so many that do not fit, the whole image is taken
LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))  # of width to height


def pixel_batches(
    method: Method,
    read: Callable[[Batch], torch.Tensor],
    *,
    images: int,
    batch_size: int,
    epochs: int,
    budget: int | None,
    purpose: Sequence[object],
    whole_batches: bool = False,
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """The batches of `training_batches`, each with the pixels that `read` gives of it.

    On a GPU the next batches are read while the device computes on this one: `read` may depend on nothing that training
    changes, and draws at random for a purpose that names the step or the epoch.
    """
    batches = training_batches(
        method.draws, images=images, batch_size=batch_size, epochs=epochs, budget=budget, purpose=purpose,
        whole_batches=whole_batches,
    )  # fmt: skip
    return prefetched(batches, read, method.device)


def training_pixels(
    split: Split,
    batch: Batch,
    draws: Draws,
    *,
    crop: float,
    mirrored: bool,
    purpose: Sequence[object],
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """(b, 3, size, size) of a batch's images. `purpose` names the phase and the task.

    crop       smallest share of the area that a crop keeps; crops are taken from the square view of an image; 1: none
    mirrored   half of the split's images are flipped left-right, others in every epoch
    places     of the batch only the images at these places (p,) are wanted; they are cropped as in the whole batch
    """
    rows = batch.rows if places is None else batch.rows[places]
    pixels = random_crops(split.pixels(rows), crop, draws, *purpose, "crop", batch.step, among=len(batch.rows), places=places)
    if not mirrored:
        return pixels
    return mirror(pixels, mirrored_half(len(split), draws, *purpose, "view", batch.epoch)[rows])


def mirrored_half(n: int, draws: Draws, *purpose: object) -> torch.Tensor:
    """(n,) True for half of n images, drawn at random: those that are mirrored."""
    return draws.permutation(n, *purpose) % 2 == 1


def mirror(pixels: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Images (b, 3, size, size), those flipped left-right for which `mirrored` (b,) is True."""
    return torch.where(mirrored.to(pixels.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)


def check_crop_scale(scale: float) -> None:
    """Refuse a share of an image's area that no crop can have."""
    if not 0 < scale <= 1:
        raise BenchError(f"crop_scale={scale}: choose a share above 0 and at most 1")


# -- random crops, as torchvision's RandomResizedCrop draws them -------------------------------------------------


def random_crops(
    pixels: torch.Tensor,
    smallest: float,
    draws: Draws,
    *purpose: object,
    among: int | None = None,
    places: torch.Tensor | None = None,
) -> torch.Tensor:
    """Crops of at least `smallest` (a fraction) of the area of square images (b, 3, size, size), bicubic; 1 leaves them alone.

    among, places: the images are those at `places` among so many, and get the crops that they would get there.
    """
    if smallest >= 1 or not len(pixels):
        return pixels
    boxes = crop_boxes(len(pixels) if among is None else among, pixels.shape[-1], smallest, draws.generator(*purpose))
    return resized_crops(pixels, boxes if places is None else boxes[places])


def resized_crops(pixels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(b, 3, size, size): the crop of every image, resized to its size as torchvision does (bicubic, antialiased).

    Boxes (b, 4) are top, left, height and width. The whole batch at once: two matrix products instead of kernels for every
    image. A thousandth or so of what a step of a ViT-B computes on it.
    """
    top, left, height, width = boxes.to(pixels.device, non_blocking=True).to(pixels.dtype).T
    size = pixels.shape[-1]
    down, across = _resampling(top, height, size), _resampling(left, width, size)  # (b, size, size) each
    return torch.matmul(torch.matmul(down.unsqueeze(1), pixels), across.transpose(1, 2).unsqueeze(1))


def _resampling(start: torch.Tensor, length: torch.Tensor, size: int) -> torch.Tensor:
    """(b, size, size) the share of every old pixel of a line in every new one; start and length (b,) are in pixels.

    Catmull-Rom's cubic, two pixels to each side. A crop is never larger than the image, so there is nothing to antialias. The
    crop's surroundings have no share, as if the image ended there.
    """
    place = torch.arange(size, device=start.device, dtype=start.dtype) + 0.5  # pixel centres
    centre = place * (length / size).unsqueeze(1)  # (b, size) new pixels in the coordinates of the crop
    old = place - start.unsqueeze(1)  # (b, size) old ones
    x = (old.unsqueeze(1) - centre.unsqueeze(2)).abs()  # (b, new, old)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    share = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    share = share * ((old > 0) & (old < length.unsqueeze(1))).unsqueeze(1)
    return share / share.sum(dim=2, keepdim=True)


def crop_boxes(n: int, size: int, smallest: float, generator: torch.Generator) -> torch.Tensor:
    """(n, 4) top, left, height and width of one crop each: uniform in area and in the logarithm of its ratio."""
    area, ratio, top, left = torch.rand(4, n, ATTEMPTS, generator=generator)
    area = (smallest + (1 - smallest) * area) * size**2
    ratio = (LOG_RATIO[0] + (LOG_RATIO[1] - LOG_RATIO[0]) * ratio).exp()
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    top, left = (top * (size - height + 1)).floor(), (left * (size - width + 1)).floor()
    boxes = torch.stack([top, left, height, width], dim=-1)  # (n, attempts, 4)
    fits = (width <= size) & (height <= size)
    chosen = boxes[torch.arange(n), fits.long().argmax(dim=1)]  # the first that fits
    whole = torch.tensor([0.0, 0.0, size, size])
    return torch.where(fits.any(dim=1, keepdim=True), chosen, whole).long()
