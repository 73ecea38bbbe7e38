"""What a method must keep to once its model is kept: more classes by name, and one more task, which its stream did not have.

A model that was trained on a stream without the last task is built again for the whole stream, as `bench predict` does it for
names that a stream did not have, and `bench learn` for a task of the user's.
"""

from dataclasses import dataclass, replace

import torch

from bench.learning.method import Method
from bench.learning.more_classes import Counts, load_into
from bench.streams.scenario import Scenario
from bench.streams.stream import Task
from bench.system.randomness import Draws


@dataclass
class Shorter:
    """A method that has learned all tasks but the last, of a stream that has no more."""

    kind: type[Method]
    settings: object
    whole: Scenario
    tasks: list[Task]
    method: Method

    def longer(self) -> Method:
        """Its state in a method that is made for the whole stream."""
        found = self.kind(self.settings, self.method.backbone, self.whole, self.method.draws).eval()
        for task in self.tasks[:-1]:
            found.grow(task)
        load_into(found, self.method.state_dict(), Counts.of(self.method.scenario))
        return found.eval()


def without_last_task(scenario: Scenario) -> Scenario:
    kept = sum(owner < scenario.n_tasks - 1 for owner in scenario.task_of_class)
    return replace(
        scenario,
        class_names=scenario.class_names[:kept],
        templates=scenario.templates[:kept],
        task_of_class=scenario.task_of_class[:kept],
    )


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The names of tensors that two states do not share bit for bit."""
    return sorted(
        name for name in {*one, *other} if name not in one or name not in other or not torch.equal(one[name], other[name])
    )


def draws_of(method: Method) -> Draws:
    return method.draws
