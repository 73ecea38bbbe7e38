"""Half of a symmetric matrix: its lower triangle in a rectangle without gaps, as in LAPACK's rectangular full packed format.

A checkpoint of half the size. What goes on from it does so to the last bit if no more than the triangle is ever read, or if what
lies above it mirrors it.
"""

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


def mirror(square: torch.Tensor, rows: int = 1024) -> None:
    """Write what lies below the diagonal above it, in place, some rows at a time."""
    for start in range(0, len(square), rows):
        end = min(start + rows, len(square))
        corner = square[start:end, start:end]
        corner.copy_(corner.tril() + corner.tril(-1).T)
        square[:start, start:end] = square[start:end, :start].T


def keep_triangle(module: torch.nn.Module, name: str, beside: str) -> None:
    """In the module's state, its symmetric buffer of this name (m, m) is packed; the buffer `beside` has m rows."""

    def pack(_: torch.nn.Module, state: dict[str, torch.Tensor], prefix: str, *__: object) -> None:
        if len(square := module.get_buffer(name)):
            state[f"{prefix}{name}"] = packed(square)

    def unpack(_: torch.nn.Module, __: object) -> None:
        if len(held := module.get_buffer(name)):
            setattr(module, name, unpacked(held, len(module.get_buffer(beside))))

    module.register_state_dict_post_hook(pack)
    module.register_load_state_dict_post_hook(unpack)
