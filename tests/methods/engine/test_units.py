import torch

from bench.system.randomness import Draws
from methods.engine.units import SummedUnits


def some_units(n: int) -> SummedUnits:
    units, draws = SummedUnits(6, torch.float32), Draws("test", "engine", 0)
    for j in range(n):
        units.keep(units.fresh(draws, "unit", j))
    return units


def test_outputs_are_summed_and_nothing_passes_beside_them():
    units, x = some_units(3), torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = sum(x @ units.weights[j].T + units.offsets[j] for j in range(3))
    torch.testing.assert_close(units(x), expected)
    assert units.weights.shape == (3, 6, 6) and len(units) == 3


def test_a_unit_begins_as_a_linear_layer_of_torch_and_each_with_other_numbers():
    units = some_units(2)
    assert 0.2 < float(units.weights.abs().max()) <= 6**-0.5 and 0.1 < float(units.offsets.abs().max()) <= 6**-0.5
    assert not torch.equal(units.weights[0], units.weights[1])
    assert torch.equal(units.weights, some_units(2).weights)


def test_only_the_newest_gets_gradients():
    units, draws = some_units(1), Draws("test", "engine", 0)
    newest = units.fresh(draws, "unit", 1)
    x = torch.ones(2, 6)
    out = units.with_newest(x, newest)
    out.sum().backward()
    torch.testing.assert_close(out, units(x) + newest(x))
    assert newest.weight.grad is not None and not units.weights.requires_grad
