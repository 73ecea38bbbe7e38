"""The task vectors of all tasks as one vector, with a bit for each number and one scale for each task.

    tau_i    change of task i: that of a new task as training left it, of an earlier one as it is rebuilt (i = 0 .. n - 1)
    sigma_j  = +1 where the mean over i of tau_ij is above 0, else -1
    M_ij     = [tau_ij sigma_j > 0]
    u_j      = sigma_j max_i(|tau_ij| M_ij)                                         `unify`
    lambda_i = sum over tensors of mean |tau_i| / sum over tensors of mean |u M_i|

    rebuilt: tau_i <- lambda_i M_i u
"""

from collections.abc import Callable, Sequence

import torch

from methods.model_merging.task_vectors import WeightLayout


class UnifiedChanges(torch.nn.Module):
    """What is kept of the changes of n tasks: u (d,), n d bits and n scales.

    Every new task is unified with what is rebuilt of the earlier ones, not with what these once were: a number that has lost its
    bit stays 0, and what is lost grows with the number of tasks and depends on their order. Of one task nothing is lost.
    """

    unified: torch.Tensor
    bits: torch.Tensor
    scales: torch.Tensor

    def __init__(self, layout: WeightLayout, like: torch.Tensor):
        super().__init__()
        self.layout = layout
        self.register_buffer("unified", torch.zeros_like(like))  # u (d,)
        self.register_buffer("bits", packed(like.new_zeros(0, len(like), dtype=torch.bool)))  # M (n, d / 8)
        self.register_buffer("scales", like.new_zeros(0))  # lambda (n,)

    def __len__(self) -> int:
        return len(self.scales)

    def mask(self, task: int) -> torch.Tensor:
        """M_i (d,)"""
        return unpacked(self.bits[task], len(self.unified))

    def change(self, task: int) -> torch.Tensor:
        """(d,) the change of a task as it is rebuilt."""
        return self.scales[task] * torch.where(self.mask(task), self.unified, 0)

    def add(self, change: torch.Tensor) -> None:
        """Unify the change (d,) of one task more. Earlier ones are rebuilt one at a time: d numbers each, of many tasks."""
        n = len(self)

        def of(task: int) -> torch.Tensor:
            return self.change(task) if task < n else change

        unified, masks = unify(of, n + 1)
        self.scales = torch.stack([self.scale(of(task), torch.where(mask, unified, 0)) for task, mask in enumerate(masks)])
        self.unified, self.bits = unified, torch.stack([packed(mask) for mask in masks])

    def scale(self, change: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """() lambda; where nothing is kept, any number serves: 1."""
        kept_size = self.layout.total_of_means(kept)
        scale = torch.where(kept_size > 0, self.layout.total_of_means(change) / kept_size, 1.0)
        return scale.to(change.dtype)


def unify(change_of: Callable[[int], torch.Tensor], n: int) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
    """u (d,) and the masks M_i (d,) of n changes, at least one.

    >>> changes = torch.tensor([[3.0, -1.0, 2.0], [-1.0, -4.0, -2.0]])
    >>> unified, masks = unify(lambda task: changes[task], 2)
    >>> unified.tolist(), [mask.int().tolist() for mask in masks]
    ([3.0, -4.0, -2.0], [[1, 1, 0], [0, 1, 1]])
    """
    total = change_of(0)
    for i in range(1, n):
        total = total + change_of(i)
    sign = torch.where(total > 0, 1.0, -1.0).to(total.dtype)
    largest, masks = torch.zeros_like(total), list[torch.Tensor]()
    for i in range(n):
        along = change_of(i) * sign
        masks.append(along > 0)
        largest = torch.maximum(largest, along)
    return sign * largest, masks


def packed(mask: torch.Tensor) -> torch.Tensor:
    """Bits (..., d) as bytes (..., ceil(d / 8)), the first in the lowest place.

    >>> packed(torch.tensor([True, True, False, False, False, False, False, False, True]))
    tensor([3, 1], dtype=torch.uint8)
    """
    filled = torch.nn.functional.pad(mask.to(torch.uint8), (0, -mask.shape[-1] % 8)).unflatten(-1, (-1, 8))
    places = torch.arange(8, dtype=torch.uint8, device=mask.device)
    return (filled << places).sum(dim=-1, dtype=torch.uint8)


def unpacked(bits: torch.Tensor, d: int) -> torch.Tensor:
    """Bytes (ceil(d / 8),) -> bits (d,)

    >>> unpacked(torch.tensor([3, 1], dtype=torch.uint8), 9).int().tolist()
    [1, 1, 0, 0, 0, 0, 0, 0, 1]
    """
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits.unsqueeze(1) >> places) & 1).flatten()[:d].bool()
