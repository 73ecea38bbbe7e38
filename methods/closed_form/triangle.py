"""Half of a symmetric matrix: its lower triangle in a rectangle without gaps, as in LAPACK's rectangular full packed format."""

import torch


def packed(symmetric: torch.Tensor) -> torch.Tensor:
    """(2 k + 1, k) for a matrix of m x m, k being half of m, rounded up. What is above the diagonal is not read."""
    k = (len(symmetric) + 1) // 2
    whole = torch.nn.functional.pad(symmetric, (0, 2 * k - len(symmetric)) * 2)
    rectangle = whole.new_empty(2 * k + 1, k)
    rectangle[k + 1 :] = whole[k:, :k]
    rectangle[: k + 1] = 0
    rectangle[1 : k + 1] += whole[:k, :k].tril()  # below the diagonal of these k + 1 rows; the other corner lies on and above it
    rectangle[:k] += whole[k:, k:].tril().T
    return rectangle


def unpacked(rectangle: torch.Tensor, size: int) -> torch.Tensor:
    """The symmetric matrix (size, size) again."""
    k = rectangle.shape[1]
    lower = rectangle.new_zeros(2 * k, 2 * k)
    lower[:k, :k], lower[k:, k:] = rectangle[1 : k + 1].tril(), rectangle[:k].T.tril()
    lower[k:, :k] = rectangle[k + 1 :]
    return (lower + lower.tril(-1).T)[:size, :size].contiguous()
