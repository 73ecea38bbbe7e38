"""What DPW's gates and prefixes start from: singular vectors of frozen weights, and how many gate heads a task has."""

import math
from collections.abc import Sequence

import torch

from bench import Draws
from bench.clip.tower_types import Block


def singular_vectors(matrix: torch.Tensor) -> torch.Tensor:
    """(D, D) left singular vectors as columns, the largest component of each positive: no library's choice of signs."""
    vectors = torch.linalg.svd(matrix.detach().double().cpu()).U
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return vectors * largest.sign()


def drawn_signs(draws: Draws, count: int, *purpose: object) -> torch.Tensor:
    """(count,) 1 or -1. The authors' are their library's choice; they change results, for gates and prefixes have their own."""
    return 2.0 * draws.integers(2, (count,), *purpose).double() - 1


def orthonormal(draws: Draws, shape: Sequence[int], *purpose: object) -> torch.Tensor:
    """(..., D, r) orthonormal columns in random directions."""
    q, r = torch.linalg.qr(draws.normal(shape, *purpose).double())
    return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


def first_prefix(block: Block, rows: int) -> torch.Tensor:
    """(p, D) the first left singular vectors of the value rows W_v, times the mean length of its columns; signs open."""
    width = block.attn.in_proj_weight.shape[1]
    values = block.attn.in_proj_weight[2 * width :]
    length = float(values.detach().double().norm(dim=0).mean())
    return length * singular_vectors(values)[:, :rows].T


def gate_directions(block: Block) -> torch.Tensor:
    """(D, D) left singular vectors of W_q W_k^T, of which gate head i takes the columns from i p on; signs open.

    They live in the space of queries, yet the gate multiplies the block's input with them: as released.
    """
    width = block.attn.in_proj_weight.shape[1]
    queries, keys = (block.attn.in_proj_weight[part * width : (part + 1) * width].double() for part in (0, 1))
    return singular_vectors(queries @ keys.T)


def off_diagonal_mean(products: torch.Tensor) -> torch.Tensor | None:
    """() the mean beside the diagonal of (n, n); none where n is 1."""
    n = len(products)
    return (products.sum() - products.trace()) / (n * (n - 1)) if n > 1 else None


def task_difficulty(features: torch.Tensor, labels: torch.Tensor, texts: torch.Tensor, constant: float) -> float:
    """g = ((inter_image + inter_text) / 2) / (intra + constant / C) / accuracy of zero-shot CLIP on these images.

    features (n, E) and texts (C, E) are of unit length, labels (n,) columns of the texts. Classes of one image have no intra, and
    an accuracy of 0 counts as one image: the release divides by zero in both cases. A single class is not difficult.
    """
    features, texts = features.double(), texts.double()
    right = int(((features @ texts.T).argmax(dim=1) == labels).sum())
    groups = [features[labels == c] for c in labels.unique().tolist()]
    within = [mean for group in groups if (mean := off_diagonal_mean(group @ group.T)) is not None]
    intra = 1 - float(torch.stack(within).mean()) if within else 0.0
    means = torch.nn.functional.normalize(torch.stack([group.mean(dim=0) for group in groups]), dim=-1)
    of_means, of_texts = off_diagonal_mean(means @ means.T), off_diagonal_mean(texts @ texts.T)
    if of_means is None or of_texts is None:
        return 0.0
    inter = (1 - float(of_means) + 1 - float(of_texts)) / 2
    return inter / (intra + constant / len(texts)) / (max(right, 1) / len(features))


def power_of_two(number: int) -> int:
    """The nearest in logarithm, the even exponent of two equally near; at least 1.

    >>> [power_of_two(number) for number in (0, 1, 2, 3, 5, 6, 12)]
    [1, 1, 2, 4, 4, 8, 16]
    """
    return max(1, 2 ** round(math.log2(number))) if number > 0 else 1


def fitting(heads: int, width: int, rows: int, reduced: bool) -> int:
    """So many gate heads, or fewer if the tower is too narrow for them: the release has no limit, and fails."""
    while heads > 1 and (width % heads or (rows > width // heads if reduced else rows * heads > width)):
        heads //= 2
    return heads
