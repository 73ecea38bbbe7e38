"""Exemplar memory: how many images of a class stay, and which."""

import pytest
import torch

from bench.streams.stream import Scenario
from bench.system.randomness import Draws
from methods.shared.memory import ExemplarMemory, exemplars_per_class

DRAWS = Draws("test", "memory", 0)


def scenario(**budget) -> Scenario:
    return Scenario("class-incremental", ("a",), (("{}",),), (0,), **budget)


def images(labels: list[int], first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """One number for each image, so that it can be recognised."""
    return torch.arange(first, first + len(labels)).float()[:, None, None], torch.tensor(labels)


def kept(memory: ExemplarMemory) -> list[int]:
    return memory.images.flatten().int().tolist()


def test_how_many_of_each_class():
    assert exemplars_per_class(scenario(exemplars_total=2000), 30) == 66
    assert exemplars_per_class(scenario(exemplars_per_class=20), 30) == 20
    assert exemplars_per_class(scenario(), 30) == 0


def test_first_keeps_the_data_set_s_order_and_old_classes_shrink():
    memory = ExemplarMemory(1, 1)
    memory.update(*images([1, 0, 1, 1, 0]), per_class=2)
    assert kept(memory) == [1, 4, 0, 2] and memory.labels.tolist() == [0, 0, 1, 1]
    memory.update(*images([2, 2], first=10), per_class=1)
    assert kept(memory) == [1, 0, 10] and memory.labels.tolist() == [0, 1, 2]
    assert memory.bytes == 3 * 4


def test_a_class_with_fewer_images_keeps_them_all():
    memory = ExemplarMemory(1, 1)
    memory.update(*images([0, 1, 1]), per_class=2)
    assert kept(memory) == [0, 1, 2]


@pytest.mark.parametrize("rule", ["first", "random", "herding", "energy"])
def test_without_a_budget_nothing_is_kept(rule):
    memory = ExemplarMemory(1, 1)
    memory.update(*images([0, 1]), per_class=0, rule=rule, draws=DRAWS)
    assert len(memory) == 0 and memory.bytes == 0
    assert memory.images.shape == (0, 1, 1)


def test_random_depends_on_its_purpose_only():
    def drawn(purpose):
        memory = ExemplarMemory(1, 1)
        memory.update(*images([0] * 50 + [1] * 50), per_class=5, rule="random", draws=DRAWS, purpose=purpose)
        assert memory.labels.tolist() == [0] * 5 + [1] * 5
        return kept(memory)

    assert drawn(("task", 0)) == drawn(("task", 0)) != drawn(("task", 1))
    assert drawn(("task", 0)) != list(range(5)) + list(range(50, 55))


def test_other_rules_rank_old_exemplars_anew():
    memory = ExemplarMemory(1, 1)

    def logits(found):
        """A later image is closer to its class: its distance rule keeps the smallest logit of the true class."""
        return -found.flatten()[:, None, None].expand(-1, 1, 1)

    memory.update(*images([0, 0, 0]), per_class=2, rule="distance", logits=logits)
    assert kept(memory) == [2, 1]
    memory.update(*images([0, 0], first=7), per_class=2, rule="distance", logits=logits)
    assert kept(memory) == [8, 7]


def test_it_travels_with_the_state_of_its_owner():
    memory = ExemplarMemory(2, 3, dtype=torch.uint8)
    memory.update(torch.arange(12, dtype=torch.uint8).view(2, 2, 3), torch.tensor([1, 0]), per_class=1)
    state = memory.state_dict()
    assert state["images"].dtype == torch.uint8 and state["images"].flatten().tolist() == [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]
    assert state["labels"].tolist() == [0, 1] and memory.bytes == 12
