"""Distillation between contrastive models, as in ZSCL's programs."""

import torch


def distillation(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    """KD(P, Q; T) = T^2 mean over rows of -sum over columns of softmax(P / T) log softmax(Q / T).

    P teacher's and Q student's logits (rows, columns). It is not zero when the two agree: then it is T^2 times the mean
    entropy of the teacher, and its gradient is zero.

    >>> round(float(distillation(torch.zeros(1, 2), torch.zeros(1, 2), 2.0)), 4)  # 4 log 2
    2.7726
    """
    target = (teacher / temperature).softmax(dim=-1)
    return -temperature**2 * (target * (student / temperature).log_softmax(dim=-1)).sum(dim=-1).mean()
