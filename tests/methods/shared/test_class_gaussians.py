import pytest
import torch
from torch.distributions import MultivariateNormal

from bench.errors import BenchError
from methods.shared.class_gaussians import ClassGaussians, by_class, ridged_covariance, shrunk_covariance


def features_of(n: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    """(n, width) with correlated columns and a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator) @ torch.randn(width, width, generator=generator) + 3


def literal_covariance(x: torch.Tensor, ridge: float) -> torch.Tensor:
    centred = x - x.mean(dim=0)
    return centred.T @ centred / (len(x) - 1) + ridge * torch.eye(x.shape[1])


def test_kept_are_the_mean_and_the_factor_of_the_covariance_with_its_ridge():
    gaussians, groups = ClassGaussians(6, ridge=0.01), [features_of(40), features_of(9, seed=1), features_of(30, seed=2)]
    gaussians.add(groups[:1])
    first = gaussians.factors.clone()
    gaussians.add(groups[1:])
    assert len(gaussians) == 3 and torch.equal(gaussians.factors[:1], first)
    for mean, factor, own in zip(gaussians.means, gaussians.factors, groups):
        torch.testing.assert_close(mean, own.mean(dim=0))
        assert torch.equal(factor, factor.tril())
        torch.testing.assert_close(factor @ factor.T, literal_covariance(own, 0.01), rtol=1e-5, atol=1e-5)


def test_fewer_features_than_dimensions_leave_the_ridge_to_carry_the_factor():
    """In float32 the factorisation of such a matrix fails or is noise; here it is right to double precision."""
    own = 100 * features_of(20, width=64)
    gaussians = ClassGaussians(64, ridge=1e-4, dtype=torch.float64)
    gaussians.add([own])
    covariance = gaussians.factors[0] @ gaussians.factors[0].T
    assert gaussians.factors.dtype == torch.float64 and torch.isfinite(covariance).all()
    smallest = torch.linalg.eigvalsh(covariance)[: 64 - 19]
    torch.testing.assert_close(smallest, torch.full_like(smallest, 1e-4), rtol=1e-3, atol=0)


def test_one_image_has_the_ridge_as_its_covariance_shrunk_or_not():
    only = torch.tensor([[1.0, 2.0, 3.0]])
    for shrunk, variance in ((False, 4e-4), (True, 8e-4)):
        gaussians = ClassGaussians(3, ridge=4e-4, shrunk=shrunk)
        gaussians.add([only])
        assert gaussians.means.tolist() == only.tolist()
        torch.testing.assert_close(gaussians.factors[0], variance**0.5 * torch.eye(3))


def test_shrinkage_adds_the_mean_of_the_diagonal_and_of_what_is_beside_it():
    covariance = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, -3.0], [0.0, -3.0, 9.0]])
    a, b = (4 + 2 + 9) / 3, (1 + 1 - 3 - 3) / 4  # zeros beside the diagonal are not counted
    expected = torch.tensor([[4 + a, 1 + b, b], [1 + b, 2 + a, -3 + b], [b, -3 + b, 9 + a]])
    torch.testing.assert_close(shrunk_covariance(covariance), expected)
    own = features_of(50)
    gaussians = ClassGaussians(6, ridge=0.01, shrunk=True)
    gaussians.add([own])
    torch.testing.assert_close(
        gaussians.factors[0] @ gaussians.factors[0].T, shrunk_covariance(ridged_covariance(own, 0.01)), rtol=1e-5, atol=1e-5
    )


def test_draws_have_the_mean_and_the_covariance_of_their_gaussian():
    gaussians, n = ClassGaussians(6, ridge=0.01), 20000
    gaussians.add([features_of(40), features_of(40, seed=1)])
    which = torch.tensor([1, 0, 1])
    drawn = gaussians.sample(which, torch.randn(3, n, 6, generator=torch.Generator().manual_seed(0)))
    assert drawn.shape == (3, n, 6) and not torch.equal(drawn[0], drawn[2])
    for own, c in zip(drawn, which):
        covariance = gaussians.factors[c] @ gaussians.factors[c].T
        error = (own.mean(dim=0) - gaussians.means[c]) / covariance.diagonal().sqrt()
        assert float(error.abs().max()) < 5 / n**0.5
        assert float((torch.cov(own.T) - covariance).norm() / covariance.norm()) < 0.05


def test_every_row_is_drawn_from_its_own_noise_whatever_the_order_of_the_classes():
    gaussians = ClassGaussians(6, ridge=0.01)
    gaussians.add([features_of(40, seed=seed) for seed in range(3)])
    which = torch.tensor([2, 0, 2, 1, 0, 2])
    noise = torch.randn(6, 5, 6, generator=torch.Generator().manual_seed(0))
    for own, c, z in zip(gaussians.sample(which, noise), which, noise, strict=True):
        torch.testing.assert_close(own, gaussians.means[c] + z @ gaussians.factors[c].T)
    assert gaussians.sample(which[:0], noise[:0]).shape == (0, 5, 6)


def test_the_draws_of_all_are_those_of_each():
    gaussians = ClassGaussians(6, ridge=0.01)
    gaussians.add([features_of(40, seed=seed) for seed in range(3)])
    noise = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gaussians.sample_all(noise), gaussians.sample(torch.arange(3), noise))
    scale = torch.tensor([[0.5], [1.0], [2.0]])
    moved = gaussians.sample_all(noise, scale) - gaussians.sample_all(noise)
    torch.testing.assert_close(moved, ((scale - 1) * gaussians.means).unsqueeze(1).expand(3, 5, 6), rtol=1e-4, atol=1e-4)


def test_log_densities_are_those_of_torch():
    gaussians, points = ClassGaussians(6, ridge=0.01, dtype=torch.float64), features_of(7, seed=9)
    gaussians.add([features_of(40), features_of(40, seed=1)])
    found = gaussians.log_density(points)
    assert found.shape == (7, 2) and found.dtype == torch.float64
    for c in range(2):
        reference = MultivariateNormal(gaussians.means[c], scale_tril=gaussians.factors[c])
        torch.testing.assert_close(found[:, c], reference.log_prob(points.double()))


def test_features_are_sorted_by_class_and_a_class_without_any_is_named():
    features, labels = torch.arange(10.0).view(5, 2), torch.tensor([4, 3, 4, 3, 3])
    groups = by_class(features, labels, (3, 4), "abcdef")
    assert [group[:, 0].tolist() for group in groups] == [[2, 6, 8], [0, 4]]
    with pytest.raises(BenchError, match="class 'f' has no training image"):
        by_class(features, labels, (3, 4, 5), "abcdef")
