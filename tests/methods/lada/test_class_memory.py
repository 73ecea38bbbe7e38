import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.lada.class_memory import centres, is_unit, memory_scores, table_of
from methods.lada.class_mixtures import FLOOR, ClassMixtures, fit_mixture, start_labels


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- memory -----------------------------------------------------------------------------------------------------


def test_a_class_scores_the_sum_over_its_own_units():
    units = [drawn(3, 6, seed=1), drawn(1, 6, seed=2), drawn(2, 6, seed=3)]  # not of unit length
    features = F.normalize(drawn(4, 6), dim=1)
    table, counts = table_of(units, 3)
    assert table.shape == (3, 3, 6) and counts.tolist() == [3, 1, 2]
    found = memory_scores(features, table, counts, beta=1.7)
    for column, own in enumerate(units):
        expected = torch.stack([sum(torch.exp(-1.7 * (1 - f @ w)) for w in own) for f in features])
        torch.testing.assert_close(found[:, column], expected)


def test_empty_places_count_for_nothing_and_are_not_trained():
    table, counts = table_of([drawn(2, 6), drawn(1, 6)], 3)
    table.requires_grad_(True)
    memory_scores(drawn(4, 6, seed=1), table, counts, 1.0).sum().backward()
    taken = is_unit(counts, 3)
    assert taken.tolist() == [[True, True, False], [True, False, False]]
    assert table.grad[taken].abs().min() > 0 and not table.grad[~taken].any()


def test_memory_starts_as_the_images_where_there_are_no_more_than_units():
    features = F.normalize(drawn(5, 6), dim=1)
    assert torch.equal(centres(features, 5), features) and torch.equal(centres(features, 16), features)


def test_memory_starts_as_the_means_of_clusters_which_are_shorter_than_one():
    middle = F.normalize(drawn(3, 6), dim=1)
    features = F.normalize(middle.repeat_interleave(8, dim=0) + 0.05 * drawn(24, 6, seed=1), dim=1)
    found = centres(features, 3)
    expected = features.view(3, 8, 6).mean(dim=1)
    order = (found @ expected.T).argmax(dim=0)
    torch.testing.assert_close(found[order], expected)
    assert bool((found.norm(dim=1) < 1).all())
    assert torch.equal(centres(features, 3), found)  # the same on every call


@pytest.mark.filterwarnings("error")
def test_images_that_occur_repeatedly_give_units_that_coincide():
    features = F.normalize(drawn(2, 6), dim=1).repeat(10, 1)
    found = centres(features, 4)
    assert found.shape == (4, 6) and len(found.round(decimals=5).unique(dim=0)) == 2


# -- mixtures ---------------------------------------------------------------------------------------------------


def test_a_mixture_is_expectation_maximisation_with_round_components():
    """Against a loop of its own."""
    x, labels = drawn(30, 3).double().numpy() + np.repeat(np.eye(3), 10, axis=0), np.repeat([0, 1], 15)

    def maximise(members):
        sizes = members.sum(axis=0)
        means = members.T @ x / sizes[:, None]
        squares = ((x[:, None] - means) ** 2).sum(axis=2)  # (n, k)
        return sizes / 30, means, (members * squares).sum(axis=0) / sizes / 3 + FLOOR

    members, before, rounds = np.eye(2)[labels], -np.inf, 0
    while True:
        weights, means, variances = maximise(members)
        squares = ((x[:, None] - means) ** 2).sum(axis=2)
        joint = np.log(weights) - 0.5 * (3 * np.log(2 * np.pi * variances) + squares / variances)
        likelihoods = np.logaddexp.reduce(joint, axis=1)
        members, now, rounds = np.exp(joint - likelihoods[:, None]), likelihoods.mean(), rounds + 1
        if abs(now - before) < 1e-3:
            break
        before = now
    found = fit_mixture(x, labels)
    assert found.rounds == rounds > 3 and found.log_likelihood == pytest.approx(now)
    for name, expected in zip(("weights", "means", "variances"), maximise(members)):
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-6, atol=1e-9)


def test_components_of_a_class_lie_together_and_their_weights_sum_to_one():
    mixtures = ClassMixtures(4, 3, torch.float32)
    mixtures.add((0, 1, 2), [drawn(12, 4), drawn(2, 4, seed=1), drawn(1, 4, seed=2)])
    assert mixtures.owners.tolist() == [0, 0, 0, 1, 1, 2]  # never more components than images
    for c in range(3):
        assert float(mixtures.weights[mixtures.owners == c].sum()) == pytest.approx(1)
    torch.testing.assert_close(mixtures.means[5], drawn(1, 4, seed=2)[0])
    assert float(mixtures.variances[5]) == pytest.approx(FLOOR)
    assert mixtures.means.dtype == mixtures.variances.dtype == torch.float32


def test_draws_have_the_components_means_and_one_variance_each():
    mixtures = ClassMixtures(4, 2, torch.float64)
    mixtures.add((0,), [torch.cat([drawn(40, 4) * 0.5, drawn(40, 4, seed=1) + 30]).double()])
    noise = drawn(2, 4, seed=2)
    expected = [mean + variance**0.5 * z for mean, variance, z in zip(mixtures.means, mixtures.variances, noise.double())]
    torch.testing.assert_close(mixtures.sample(noise), torch.stack(expected))
    variances = sorted(mixtures.variances.tolist())
    assert variances[0] == pytest.approx(0.25, rel=0.3) and variances[1] == pytest.approx(1, rel=0.3)


@pytest.mark.filterwarnings("error")
def test_the_start_is_the_same_on_every_call_and_quiet_with_repeated_images():
    x = drawn(20, 4).numpy()
    assert start_labels(x, 4).tolist() == start_labels(x, 4).tolist()
    mixtures = ClassMixtures(4, 4, torch.float32)
    mixtures.add((0,), [drawn(2, 4).repeat(8, 1)])
    assert torch.isfinite(mixtures.means).all() and torch.isfinite(mixtures.variances).all()
