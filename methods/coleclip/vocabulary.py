"""The vocabulary: one vector for each name of a class, also where several data sets share it.

In MTIL's eleven data sets 24 names occur more than once, "leopard" in Caltech-101 and in CIFAR-100. Such a name is one entry:
it starts from the templates of all its data sets, what one task has learned of it the next goes on from, and what the next
learns the earlier one is scored with.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from bench import Backbone, Scenario


class Names:
    """The different names of a stream, in the order in which they first come; entry i of a vocabulary is of name i."""

    def __init__(self, scenario: Scenario):
        self.scenario = scenario
        self.names = tuple(dict.fromkeys(scenario.class_names))
        entry = {name: i for i, name in enumerate(self.names)}
        self.of_class = [entry[name] for name in scenario.class_names]
        owners = list(zip(self.of_class, scenario.task_of_class))
        self.of_task = [list(dict.fromkeys(i for i, owner in owners if owner == task)) for task in range(scenario.n_tasks)]

    def templates(self, name: str, one_list: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """Those of all classes of this name, one class after the other.

        one_list: pairs (name, template). Such a name takes only the lists with this template, if one of its classes has it.
        """
        lists = [own for own, other in zip(self.scenario.templates, self.scenario.class_names) if other == name]
        wanted = [template for one, template in one_list if one == name]
        chosen = [own for own in lists if set(wanted) & set(own)] or lists
        return tuple(template for own in chosen for template in own)

    def owned(self, tasks: int, entries: Sequence[int]) -> torch.Tensor:
        """(tasks, entries) which of the first tasks have a class of which name."""
        return torch.tensor([[i in own for i in entries] for own in map(set, self.of_task[:tasks])], dtype=torch.bool).view(
            tasks, len(entries)
        )


def zero_shot_vocabulary(backbone: Backbone, names: Names, one_list: Sequence[tuple[str, str]]) -> torch.Tensor:
    """z (names, d): the unit mean of the unit text features of a name's templates."""
    templates = tuple(names.templates(name, one_list) for name in names.names)
    every_name = range(len(names.names))
    entries = replace(names.scenario, class_names=names.names, templates=templates, task_of_class=(0,) * len(every_name))
    return backbone.classifier(entries.prompts_of(every_name))


def class_vectors(entries: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """T (C, d) of entries e (C, d) and unit text features (C, d): the unit mean of both; gradients flow to texts alone."""
    return F.normalize((F.normalize(entries, dim=-1) + texts) / 2, dim=-1)


def moved(entries: torch.Tensor, vectors: torch.Tensor, share: float) -> torch.Tensor:
    """Entries (C, d) on their way to the class vectors (C, d), of unit length."""
    return F.normalize(share * vectors.detach() + (1 - share) * F.normalize(entries, dim=-1), dim=-1)


def mean_distance(vectors: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Mean Euclidean distance of vectors from anchors (C, d); one below 1e-6 counts as 0 and has no gradient.

    In the first update of a data set with one template both are the same up to rounding, and the true gradient would be a unit
    vector in the direction of the rounding error, which Adam would make a step of full size.
    """
    squares = (vectors - anchors).square().sum(dim=-1)
    apart = squares >= 1e-12
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0).mean()
