"""A user's concepts of classes, as text features."""

import torch
import torch.nn.functional as F

from bench import Backbone, BenchError, Scenario, Task
from methods.shared.user_files import read_object, sentences


class Concepts:
    """{class: [sentences]} from a JSON file. Classes are known by their names; names of no class in the stream do no harm."""

    def __init__(self, path: str, prefix: str, scenario: Scenario, backbone: Backbone, kept_per_class: int):
        self.backbone, self.prefix, self.names = backbone, prefix, scenario.class_names
        found = read_object(path, "concepts")
        for name in self.names:
            if not found.get(name):
                raise BenchError(f"{path}: there are no concepts of the class {name!r}")
        self.of_name = {name: sentences(found[name], f"{path}: {name!r}") for name in self.names}
        for task in range(scenario.n_tasks):
            own = [name for name, owner in zip(self.names, scenario.task_of_class) if owner == task]
            there, wanted = sum(len(self.of_name[name]) for name in own), kept_per_class * len(own)
            if there < wanted:
                raise BenchError(f"{path}: task {task + 1} has {there} concepts, and {wanted} are to be kept (kept_per_class)")

    def features(self, task: Task) -> torch.Tensor:
        """A (N, D) unit text features of the concepts of the task's classes, class by class."""
        texts = [self.prefix + text for c in task.classes for text in self.of_name[self.names[c]]]
        return F.normalize(self.backbone.encode_text(texts), dim=-1)
