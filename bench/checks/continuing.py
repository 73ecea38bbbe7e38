"""What a method must keep to once its model is kept: more classes, and one more task, which its stream did not have.

A method that was trained on a stream without the last task is built again for the whole stream, as `bench predict` does it for
names that a stream did not have, and `bench learn` for a task of the user's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from bench.learning.method import Method
from bench.learning.more_classes import Counts, load_into
from bench.streams.scenario import Scenario
from bench.streams.stream import Task

Fresh = Callable[[Scenario], Method]  # the method before its first task, for a stream of this scenario


def without_last_task(scenario: Scenario) -> Scenario:
    """The scenario of the stream that ends one task earlier."""
    kept = sum(owner < scenario.n_tasks - 1 for owner in scenario.task_of_class)
    return replace(
        scenario,
        class_names=scenario.class_names[:kept],
        templates=scenario.templates[:kept],
        task_of_class=scenario.task_of_class[:kept],
    )


def longer(fresh: Fresh, scenario: Scenario, learned: Sequence[Task], kept: Method) -> Method:
    """A method for the whole stream around the state of one that has learned all but the last task, of a stream without it."""
    method = fresh(scenario)
    for task in learned:
        method.grow(task)
    load_into(method, kept.state_dict(), Counts.of(kept.scenario))
    return method.eval()


def differing(one: Method, other: Method) -> list[str]:
    """The names of the tensors that two methods do not share bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return sorted(
        name
        for name in {*first, *second}
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    )
