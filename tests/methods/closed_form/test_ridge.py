import numpy as np
import pytest
import torch

from methods.closed_form.ridge import GramRidge, RecursiveRidge, SampleRidge, held_out_errors

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
    recursive, h = RecursiveRidge(expand, RIDGE, rows=4), []
    for x, y, n_classes in tasks():
        recursive.add(x, y, n_classes)
        h.append(expand(x).double())
    h = torch.cat(h)
    expected = torch.linalg.inv(h.T @ h + RIDGE * torch.eye(h.shape[1], dtype=h.dtype))
    torch.testing.assert_close(recursive.inverse, expected, rtol=1e-9, atol=1e-12)


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
