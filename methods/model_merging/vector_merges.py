"""Merges of task vectors, kept up as tasks come: what is held does not grow with their number.

Each has `add(change, task)`, after each task in turn, and `merged()` (d,), of which a share `SCALE` is added to the weights from
which all began. Before the first task it is 0. Vectors of tasks are written tau_0, tau_1, ..
"""

import torch

from bench import Draws


class LargestChange(torch.nn.Module):
    """Of every number, the change of largest magnitude; of equal ones the later task's."""

    SCALE = 0.5
    largest: torch.Tensor

    def __init__(self, like: torch.Tensor):
        super().__init__()
        self.register_buffer("largest", torch.zeros_like(like))

    def add(self, change: torch.Tensor, task: int) -> None:
        self.largest = torch.where(change.abs() >= self.largest.abs(), change, self.largest)

    def merged(self) -> torch.Tensor:
        return self.largest


class MeanChange(torch.nn.Module):
    """The mean of all changes."""

    SCALE = 1.0
    total: torch.Tensor
    tasks: torch.Tensor

    def __init__(self, like: torch.Tensor):
        super().__init__()
        self.register_buffer("total", torch.zeros_like(like))
        self.register_buffer("tasks", torch.zeros((), dtype=torch.long))

    def add(self, change: torch.Tensor, task: int) -> None:
        self.total = self.total + change
        self.tasks = self.tasks + 1

    def merged(self) -> torch.Tensor:
        return self.total / self.tasks.clamp_min(1)


class RandomChange(torch.nn.Module):
    """Of every number, the change of a task drawn uniformly: the t-th task so far takes the place with probability 1 / t."""

    SCALE = 1.0
    chosen: torch.Tensor

    def __init__(self, like: torch.Tensor, draws: Draws):
        super().__init__()
        self.draws = draws
        self.register_buffer("chosen", torch.zeros_like(like))

    def add(self, change: torch.Tensor, task: int) -> None:
        taken = self.draws.uniform(change.shape, "random mix", task) < 1 / (task + 1)
        self.chosen = torch.where(taken.to(change.device), change, self.chosen)

    def merged(self) -> torch.Tensor:
        return self.chosen


class TIES(torch.nn.Module):
    """TIES merging: changes trimmed to the largest of each task, a sign elected, the mean of those that agree with it.

        kept     entries of tau_t of at least the k-th smallest magnitude, k = d' - floor(share d')
        sign_j   of the sum over tasks of what is kept; where that is 0, the sign of the sum of all signs
        merged_j mean over the tasks whose kept entry has that sign

    unchanged: so many numbers more, that never change, count in d' = d + unchanged.
    Reference: "TIES-Merging: Resolving Interference When Merging Models", P. Yadav et al., NeurIPS 2023, arXiv 2306.01708.
    """

    SCALE = 0.55
    positive_total: torch.Tensor
    negative_total: torch.Tensor
    positive_tasks: torch.Tensor
    negative_tasks: torch.Tensor

    def __init__(self, like: torch.Tensor, share: float, unchanged: int = 0):
        super().__init__()
        self.share, self.unchanged = share, unchanged
        for name in ("positive_total", "negative_total"):
            self.register_buffer(name, torch.zeros_like(like))
        for name in ("positive_tasks", "negative_tasks"):
            self.register_buffer(name, torch.zeros_like(like, dtype=torch.int16))

    def add(self, change: torch.Tensor, task: int) -> None:
        kept = trimmed(change, self.share, self.unchanged)
        self.positive_total = self.positive_total + kept.clamp_min(0)
        self.negative_total = self.negative_total + kept.clamp_max(0)
        self.positive_tasks = self.positive_tasks + (kept > 0)
        self.negative_tasks = self.negative_tasks + (kept < 0)

    def merged(self) -> torch.Tensor:
        sign = (self.positive_total + self.negative_total).sign()
        sign = torch.where(sign == 0, sign.sum().sign(), sign)
        positive = self.positive_total / self.positive_tasks.clamp_min(1)
        return torch.where(sign > 0, positive, self.negative_total / self.negative_tasks.clamp_min(1))


def trimmed(change: torch.Tensor, share: float, unchanged: int = 0) -> torch.Tensor:
    """The change (d,) with all but the largest of its numbers, and of `unchanged` zeros beside them, set to 0.

    >>> trimmed(torch.tensor([4.0, -1.0, 3.0, 2.0]), share=0.25)
    tensor([4., 0., 3., 0.])
    """
    d = len(change) + unchanged
    k = d - int(share * d) - unchanged  # among the magnitudes of the change: the zeros are smaller, or equal
    if k < 1:
        return change
    magnitudes = change.abs()
    return torch.where(magnitudes >= magnitudes.kthvalue(k).values, change, 0)
