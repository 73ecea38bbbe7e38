"""A method taught and examined as a run does it."""

import torch

from bench import Method, Task


def teach(method: Method, *tasks: Task) -> Method:
    """The method, when it has learned these tasks."""
    for task in tasks:
        method.train()
        method.grow(task)
        method.learn(task)
        method.eval()
    return method


def accuracy(method: Method, task: Task, classes) -> float:
    """On the task's training images, among these classes: positions in the list and labels are the same from 0 on."""
    inputs = task.train.inputs(method.inputs, torch.arange(len(task.train)))
    return float((method.logits(inputs, classes).argmax(dim=-1) == task.train.labels).float().mean())
