import math

import torch

from methods.shared.linear_discriminant import LinearDiscriminant, task_precision

WIDTH = 5


def drawn(n_classes: int, per_class: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_classes, per_class, WIDTH, generator=generator, dtype=torch.float64)
    return list(features + 2 * torch.randn(n_classes, 1, WIDTH, generator=generator, dtype=torch.float64))


def literal_precision(groups: list[torch.Tensor]) -> torch.Tensor:
    """With the pseudo-inverse and the covariance, as it is written in the authors' code."""
    rows = torch.cat([group - group.mean(dim=0) for group in groups])
    covariance = torch.cov(rows.T)
    return WIDTH * torch.linalg.pinv((len(rows) - 1) * covariance + covariance.trace() * torch.eye(WIDTH))


def test_the_first_task_has_the_inverse_of_its_scatter():
    groups = drawn(3, 6, seed=0)
    discriminant = LinearDiscriminant(WIDTH)
    discriminant.add(groups)
    torch.testing.assert_close(discriminant.precision, literal_precision(groups))
    torch.testing.assert_close(discriminant.means, torch.stack([group.mean(dim=0) for group in groups]))


def test_later_tasks_are_merged_by_their_numbers_of_classes():
    tasks = [drawn(3, 6, seed=0), drawn(2, 4, seed=1), drawn(1, 5, seed=2)]
    discriminant = LinearDiscriminant(WIDTH)
    expected, means = torch.zeros(WIDTH, WIDTH, dtype=torch.float64), torch.zeros(0, WIDTH, dtype=torch.float64)
    for groups in tasks:
        discriminant.add(groups)
        own = torch.stack([group.mean(dim=0) for group in groups])
        known, seen = len(means), len(means) + len(own)
        if known:
            apart = (means.mean(dim=0) - own.mean(dim=0)).unsqueeze(1)
            of_means = (known / seen) * (seen - known) / seen**2 * apart @ apart.T
            expected = known / seen * expected + (1 - known / seen) * literal_precision(groups) + of_means
        else:
            expected = literal_precision(groups)
        means = torch.cat([means, own])
        torch.testing.assert_close(discriminant.precision, expected)


def test_scores_are_linear_with_an_offset_by_class():
    discriminant = LinearDiscriminant(WIDTH)
    for seed in (0, 1):
        discriminant.add(drawn(2, 6, seed))
    features, precision = drawn(1, 7, seed=3)[0], discriminant.precision
    expected = torch.empty(7, 4, dtype=torch.float64)
    for row, v in enumerate(features):
        for c, mu in enumerate(discriminant.means):
            expected[row, c] = v @ precision @ mu - math.log(4) - mu @ precision @ mu / 2
    torch.testing.assert_close(discriminant.scores(features), expected)


def test_float32_features_are_summed_in_double_precision():
    groups = drawn(3, 6, seed=0)
    rounded = [group.float() for group in groups]
    one, other = LinearDiscriminant(WIDTH), LinearDiscriminant(WIDTH)
    one.add(rounded)
    other.add([group.double() for group in rounded])
    assert torch.equal(one.precision, other.precision) and one.precision.dtype == torch.float64


def test_classes_of_one_image_have_no_scatter():
    lone = LinearDiscriminant(WIDTH)
    lone.add(drawn(3, 1, seed=0))
    assert not lone.precision.any()
    assert torch.equal(lone.scores(torch.ones(2, WIDTH)), torch.full((2, 3), -math.log(3), dtype=torch.float64))
    assert not task_precision(torch.zeros(1, WIDTH)).any()


def test_it_tells_classes_apart_that_differ_in_one_direction():
    generator = torch.Generator().manual_seed(0)
    wide = torch.tensor([5.0, 5.0, 5.0, 5.0, 0.1])  # the difference lies where the features vary least
    groups = [torch.randn(40, WIDTH, generator=generator) * wide + torch.eye(WIDTH)[4] * c for c in range(3)]
    discriminant = LinearDiscriminant(WIDTH)
    discriminant.add(groups)
    found = discriminant.scores(torch.cat(groups)).argmax(dim=1)
    assert float((found == torch.arange(3).repeat_interleave(40)).float().mean()) > 0.8
