import numpy as np
import pytest
import torch

from methods.closed_form.ridge import GramRidge, RecursiveRidge, SampleRidge, held_out_errors
from methods.closed_form.triangle import packed, unpacked

RIDGE = 0.3
SIZES, CLASSES = (7, 1, 12), (3, 4, 9)  # images of each task, classes after it


def expand(x):
    """(n, 5) -> (n, 11), not linear."""
    return torch.cat([x.relu(), (-x).relu(), x[:, :1].square()], dim=1)


def tasks():
    generator = torch.Generator().manual_seed(0)
    for n, (first, last) in zip(SIZES, zip((0, *CLASSES), CLASSES)):
        yield torch.randn(n, 5, generator=generator), torch.randint(first, last, (n,), generator=generator), last


def literal(inputs, labels, n_classes, ridge=RIDGE):
    h, y = expand(inputs).double().numpy(), np.eye(n_classes)[labels.numpy()]
    return np.linalg.solve(h.T @ h + ridge * np.eye(h.shape[1]), h.T @ y)


def kernel(left, right):
    return expand(left).double() @ expand(right).double().T


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_all_three_ways_give_the_solution_over_all_samples_after_every_task(rows):
    gram, recursive, samples = GramRidge(expand), RecursiveRidge(expand, RIDGE, rows), SampleRidge(5, kernel, RIDGE)
    inputs, labels = torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)
    for x, y, n_classes in tasks():
        inputs, labels = torch.cat([inputs, x]), torch.cat([labels, y])
        gram.add(x, y, n_classes)
        recursive.add(x, y, n_classes)
        samples.add(x, y, n_classes)
        expected = torch.from_numpy(literal(inputs, labels, n_classes))
        from_samples = expand(samples.inputs).double().T @ samples.alpha
        for found in (gram.solve(RIDGE), recursive.weights, from_samples):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_inverse_of_the_recursion_is_that_of_all_samples():
    recursive, inputs = RecursiveRidge(expand, RIDGE, rows=4), []
    for x, y, n_classes in tasks():
        recursive.add(x, y, n_classes)
        inputs.append(x)
    expected = inverse_of(torch.cat(inputs))
    torch.testing.assert_close(recursive.inverse, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(recursive.inverse, recursive.inverse.T)


@pytest.mark.parametrize("first", [4, 20])  # few enough for rows, and so many that the recursion has begun
def test_the_recursion_goes_on_from_a_stored_state_to_the_last_bit(first):
    generator = torch.Generator().manual_seed(3)
    inputs, labels = torch.randn(30, 5, generator=generator), torch.randint(4, (30,), generator=generator)
    ridge = RecursiveRidge(expand, RIDGE, rows=3)
    ridge.add(inputs[:first], labels[:first], 4)
    assert len(ridge.inverse) == (0 if first == 4 else 11)
    inverse = ridge.inverse_so_far(11)
    torch.testing.assert_close(inverse, inverse_of(inputs[:first]), rtol=1e-9, atol=1e-12)
    resumed, state = RecursiveRidge(expand, RIDGE, rows=3), ridge.state_dict()
    assert sum(value.numel() for value in state.values() if value is not state["weights"]) < 11 * 11
    for name, value in state.items():  # as Method.load_state_dict does
        resumed.get_buffer(name).data = torch.empty_like(value)
    resumed.load_state_dict(state)
    for one in (ridge, resumed):
        one.add(inputs[first:], labels[first:], 6)
    assert torch.equal(ridge.weights, resumed.weights) and torch.equal(ridge.inverse, resumed.inverse)


def inverse_of(inputs):
    h = expand(inputs).double()
    return torch.linalg.inv(h.T @ h + RIDGE * torch.eye(h.shape[1], dtype=h.dtype))


@pytest.mark.parametrize("first", [4, 20])  # few enough for rows, and so many that the sums are taken
def test_the_sums_and_a_stored_state_do_not_depend_on_how_they_are_held(first):
    generator = torch.Generator().manual_seed(2)
    inputs, labels = torch.randn(30, 5, generator=generator), torch.randint(4, (30,), generator=generator)
    ridge = GramRidge(expand)
    ridge.add(inputs[:first], labels[:first], 4)
    assert len(ridge.few.root) == (4 if first == 4 else 0) and len(ridge.gram) == (0 if first == 4 else 11)
    resumed = GramRidge(expand)
    for name, value in ridge.state_dict().items():  # as Method.load_state_dict does
        resumed.get_buffer(name).data = torch.empty_like(value)
    resumed.load_state_dict(ridge.state_dict())
    for one in (ridge, resumed):
        one.add(inputs[first:], labels[first:], 6)
    assert torch.equal(ridge.solve(RIDGE), resumed.solve(RIDGE))
    h, y = expand(inputs).double(), torch.nn.functional.one_hot(labels, 6).double()
    for found, expected in zip(ridge.sums(), (h.T @ h, h.T @ y)):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [6, 40])  # fewer samples than columns, and more
def test_errors_of_all_candidates_are_those_of_one_solution_each(n):
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(n, 5, generator=generator), torch.randint(4, (n,), generator=generator)
    held_out, targets = torch.randn(5, 5, generator=generator), torch.randint(4, (5,), generator=generator)
    ridges = (1e-3, 1.0, 1e4)
    found = held_out_errors(expand, (inputs, labels), (held_out, targets), 6, ridges)
    for ridge, error in zip(ridges, found.tolist()):
        residual = expand(held_out).double().numpy() @ literal(inputs, labels, 6, ridge) - np.eye(6)[targets.numpy()]
        assert error == pytest.approx((residual**2).mean(), rel=1e-8)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_half_of_a_symmetric_matrix_gives_it_back(size):
    matrix = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    lower = matrix.tril()
    half = packed(matrix)  # what stands above the diagonal does not matter
    assert half.numel() <= (size + 1) * (size + 2) / 2
    assert torch.equal(unpacked(half, size), lower + lower.tril(-1).T)
