"""Task vectors as flat vectors, their merges, and the unified change, against their formulas."""

import pytest
import torch

from bench.system.randomness import Draws
from methods.model_merging.task_vectors import WeightLayout
from methods.model_merging.unified_changes import UnifiedChanges, packed, unpacked
from methods.model_merging.vector_merges import TIES, LargestChange, MeanChange, RandomChange, trimmed


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 2))


def drawn(n: int, d: int = 40) -> list[torch.Tensor]:
    """Changes with exact zeros and magnitudes that occur twice."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(-3, 4, (n, d), generator=generator).float()
    return list(values + 0.25 * torch.randint(0, 2, (n, d), generator=generator) * values.sign())


def summed(merge, changes):
    for task, change in enumerate(changes):
        merge.add(change, task)
    return merge.merged()


# -- weights as a vector ----------------------------------------------------------------------------------------


def test_weights_go_into_a_vector_and_back():
    source, target = model(), model()
    layout = WeightLayout.of(source)
    vector = layout.read(source)
    assert layout.size == len(vector) == 15 + 6 + 2
    torch.nn.init.zeros_(target[0].weight)
    layout.write(target, vector)
    assert all(torch.equal(own, other) for own, other in zip(source.parameters(), target.parameters()))
    assert [part.shape for part in layout.parts(vector).values()] == [own.shape for own in source.parameters()]
    with torch.no_grad():
        source[1].bias += 1  # a vector is a copy
    assert torch.equal(vector, layout.read(target))


def test_frozen_weights_are_no_part_of_it():
    source = model()
    source[1].requires_grad_(False)
    assert list(WeightLayout.of(source, {"1.weight": torch.tensor([0])}).shapes) == ["0.weight"]


def test_of_a_table_only_rows_that_can_change_are_held():
    source, rows = model(), torch.tensor([1, 4])
    layout = WeightLayout.of(source, {"0.weight": rows})
    before = source[0].weight.detach().clone()
    assert layout.size == 6 + 6 + 2
    assert torch.equal(layout.parts(layout.read(source))["0.weight"], before[rows])
    layout.write(source, layout.read(source) + 1)
    assert torch.equal(source[0].weight[rows], before[rows] + 1)
    others = torch.tensor([0, 2, 3])
    assert torch.equal(source[0].weight[others], before[others])
    whole = layout.tensors(torch.ones(layout.size))["0.weight"]
    assert whole.sum(dim=1).tolist() == [0, 3, 0, 0, 3]


def test_means_are_of_whole_tensors_and_then_summed():
    layout = WeightLayout({"table": torch.Size([4, 2]), "bias": torch.Size([2])}, {"table": torch.tensor([3])})
    assert float(layout.total_of_means(torch.tensor([4.0, -4.0, 1.0, -3.0]))) == 8 / 8 + 4 / 2


# -- merges -----------------------------------------------------------------------------------------------------


def test_the_largest_change_wins_and_of_equal_ones_the_later():
    changes = [torch.tensor(values) for values in ([1.0, -2.0, 3.0, 0.0], [-1.0, 1.0, -3.5, 0.0], [0.5, 2.0, 3.5, 0.0])]
    assert summed(LargestChange(changes[0]), changes).tolist() == [-1.0, 2.0, 3.5, 0.0]


def test_merges_before_the_first_task_are_nothing():
    like = torch.ones(4)
    for merge in (LargestChange(like), MeanChange(like), RandomChange(like, Draws("test", "mix", 0)), TIES(like, 0.5)):
        assert merge.merged().tolist() == [0.0] * 4


def test_the_mean_of_changes():
    changes = drawn(3)
    torch.testing.assert_close(summed(MeanChange(changes[0]), changes), torch.stack(changes).mean(dim=0))


def test_the_random_mix_takes_every_task_equally_often():
    changes = [torch.full((30_000,), float(task)) for task in range(1, 5)]
    mixed = summed(RandomChange(changes[0], Draws("test", "mix", 0)), changes)
    shares = torch.bincount(mixed.long(), minlength=5) / len(mixed)
    assert shares[0] == 0 and bool(((shares[1:] - 0.25).abs() < 0.01).all())


def literal_ties(changes: list[torch.Tensor], share: float) -> torch.Tensor:
    """As its paper writes it, on all changes at once."""
    kept = []
    for change in changes:
        smallest = change.abs().sort().values[len(change) - int(share * len(change)) - 1]
        kept.append(change * (change.abs() >= smallest))
    stacked = torch.stack(kept)
    sign = stacked.sum(dim=0).sign()
    sign[sign == 0] = sign.sum().sign()
    agreeing = stacked * (stacked.sign() == sign) * (stacked != 0)
    return agreeing.sum(dim=0) / (agreeing != 0).sum(dim=0).clamp_min(1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_ties_kept_up_task_by_task_is_ties_of_all_tasks(share):
    changes = drawn(4)
    assert bool((torch.stack(changes).sum(dim=0) == 0).any())
    torch.testing.assert_close(summed(TIES(changes[0], share), changes), literal_ties(changes, share))


def test_numbers_that_never_change_count_in_what_ties_keeps():
    change = torch.arange(1.0, 11.0)
    assert int((trimmed(change, 0.2) != 0).sum()) == 3  # at least the eighth smallest
    for unchanged in (0, 3, 5, 9):
        padded = trimmed(torch.cat([change, torch.zeros(unchanged)]), 0.4)[:10]
        assert torch.equal(trimmed(change, 0.4, unchanged), padded)
    assert torch.equal(trimmed(change, 0.2, unchanged=41), change)  # more than four fifths: the threshold is 0
    assert torch.equal(trimmed(change, 1.0), change)


# -- the unified change -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 7, 8, 21])
def test_bits_go_into_bytes_and_back(d):
    mask = torch.rand(3, d, generator=torch.Generator().manual_seed(d)) < 0.5
    bits = packed(mask)
    assert bits.dtype == torch.uint8 and bits.shape == (3, -(-d // 8))
    assert torch.equal(torch.stack([unpacked(row, d) for row in bits]), mask)


def layout_of(d: int) -> WeightLayout:
    return WeightLayout({"matrix": torch.Size([(d - 3) // 2, 2]), "bias": torch.Size([3])})


def unified(changes: list[torch.Tensor]) -> UnifiedChanges:
    kept = UnifiedChanges(layout_of(len(changes[0])), changes[0])
    for change in changes:
        kept.add(change)
    return kept


def test_of_one_task_nothing_is_lost():
    [change] = drawn(1, 41)
    kept = unified([change])
    assert torch.equal(kept.change(0), change) and kept.scales.tolist() == [1.0]
    assert torch.equal(kept.mask(0), change != 0)


def test_unifying_is_its_formula_on_the_new_change_and_the_rebuilt_ones():
    changes = drawn(4, 41)
    kept = unified(changes[:3])
    rebuilt = torch.stack([*(kept.change(task) for task in range(3)), changes[3]])
    sign = torch.tensor([1.0 if mean > 0 else -1.0 for mean in rebuilt.mean(dim=0).tolist()])
    masks = rebuilt * sign > 0
    expected = sign * (rebuilt.abs() * masks).amax(dim=0)
    kept.add(changes[3])
    torch.testing.assert_close(kept.unified, expected)
    for task in range(4):
        assert torch.equal(kept.mask(task), masks[task])
        torch.testing.assert_close(kept.change(task), kept.scales[task] * masks[task] * expected)


def test_a_scale_keeps_the_size_of_a_change_tensor_by_tensor():
    changes = drawn(2, 41)
    kept = unified(changes)
    assert not bool(kept.mask(0).all())
    for task, change in enumerate(changes):
        torch.testing.assert_close(kept.layout.total_of_means(kept.change(task)), kept.layout.total_of_means(change))


def test_a_number_that_has_lost_its_bit_stays_lost():
    first, second, third = (torch.tensor([value, 1.0, 1.0, 1.0, 1.0]) for value in (2.0, -5.0, 50.0))
    kept = unified([first, second])
    assert not kept.mask(0)[0] and kept.mask(1)[0]
    kept.add(third)
    assert float(kept.change(0)[0]) == 0.0 and kept.mask(2)[0]
    assert unified([third, first, second]).mask(1)[0]  # in another order it would have been kept


def test_changes_of_nothing_and_changes_that_cancel_stay_finite():
    nothing, one = torch.zeros(5), torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    kept = unified([nothing, one, -one])
    assert all(bool(torch.isfinite(kept.change(task)).all()) for task in range(3))
    assert not kept.change(0).any()
    cancelling = unified([one, -one])  # a mean of 0 counts as negative
    assert cancelling.unified.tolist()[0] == -1.0 and not cancelling.change(0).any()
