"""A list of modules that knows what it holds is torch's list in everything else."""

import copy

import torch

from methods.shared.modules import ModulesOf


def linears(n: int) -> list[torch.nn.Linear]:
    return [torch.nn.Linear(2, 3) for _ in range(n)]


def test_weights_have_the_names_that_they_have_in_torchs_list():
    layers = linears(3)
    assert list(ModulesOf(layers).state_dict()) == list(torch.nn.ModuleList(layers).state_dict())


def test_a_checkpoint_of_torchs_list_is_read():
    before, after = torch.nn.ModuleList(linears(2)), ModulesOf[torch.nn.Linear](linears(2))
    after.load_state_dict(before.state_dict())
    assert all(torch.equal(one.weight, other.weight) for one, other in zip(before, after))


def test_it_grows_and_is_iterated_and_cut_as_torchs():
    layers = linears(3)
    grown = ModulesOf[torch.nn.Linear]()
    for layer in layers:
        grown.append(layer)
    assert list(grown) == layers and grown[1] is layers[1] and grown[-1] is layers[2]
    earlier = grown[:-1]
    assert isinstance(earlier, ModulesOf) and list(earlier) == layers[:2]


def test_a_copy_holds_copies():
    layers = ModulesOf(linears(2))
    other = copy.deepcopy(layers)
    assert type(other) is ModulesOf and other[0] is not layers[0] and torch.equal(other[0].weight, layers[0].weight)
