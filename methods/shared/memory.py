"""Exemplar memory: which training images of earlier classes may be kept, and keeping them.

    self.memory = ExemplarMemory(views, d)                              # in prepare()
    pool = torch.cat([features, self.memory.images])                    # the task's images and the exemplars
    ...
    self.memory.update(features, labels, exemplars_per_class(self.scenario, classes_seen))    # after training

The memory is balanced: every class keeps the same number m of images, or all it has where it has fewer. When a fixed
total is shared by more classes, m falls and old classes shrink: old exemplars are candidates of every update, together
with the task's images, and the rule ranks them anew.
"""

from collections.abc import Callable
from typing import Literal

import torch

from bench import Draws, Scenario
from methods.shared.selection import select, smallest_of_each_class

Rule = Literal["first", "random", "herding", "entropy", "energy", "variance", "distance"]


def exemplars_per_class(scenario: Scenario, classes_seen: int) -> int:
    """How many images of each class the protocol allows when so many classes have been seen.

    A fixed total is divided among the seen classes, rounded down: 2000 for 30 classes are 66 each.
    """
    if scenario.exemplars_per_class is not None:
        return scenario.exemplars_per_class
    if scenario.exemplars_total is not None:
        return scenario.exemplars_total // max(classes_seen, 1)
    return 0


class ExemplarMemory(torch.nn.Module):
    """The exemplars of a method, as buffers: part of its state, so a resumed run has the same ones.

    images (m, *shape)   in the form in which the method trains on them: (views, d) for cached features
    labels (m,)          positions in the stream's class list

    Classes come in ascending order, the images of a class in the order in which the rule chose them.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.register_buffer("images", torch.zeros(0, *shape, dtype=dtype))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def bytes(self) -> int:
        """Bytes of stored training images, for `Method.exemplar_bytes`."""
        return self.images.numel() * self.images.element_size()

    @torch.no_grad()
    def update(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        per_class: int,
        rule: Rule = "first",
        logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
        draws: Draws | None = None,
        purpose: tuple = (),
    ) -> None:
        """Choose `per_class` exemplars of every class among the memory and the new images (n, *shape), labels (n,).

        first      in the data set's order: what CLAP4CLIP's code calls random
        random     in an order that `draws` draws for `purpose`, which should name the task
        others     the rules of methods.shared.selection; `logits` maps the candidates' images to (candidates, samples,
                   classes) of the current model, columns being the stream's classes from 0 on
        """
        images, labels = torch.cat([self.images, images]), torch.cat([self.labels, labels.to(self.labels.device)])
        if per_class == 0:
            kept = torch.zeros(0, dtype=torch.long)
        elif rule in ("first", "random"):
            place = draws.permutation(len(labels), *purpose) if rule == "random" else torch.arange(len(labels))
            kept = torch.from_numpy(smallest_of_each_class(place.numpy(), labels.cpu().numpy(), per_class))
        else:
            kept = torch.from_numpy(select(rule, logits(images).float().cpu().numpy(), labels.cpu().numpy(), per_class))
        self.images, self.labels = images[kept.to(images.device)], labels[kept.to(labels.device)]
