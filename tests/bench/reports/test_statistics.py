"""Intervals, tests and ranks against numbers worked out by hand or printed elsewhere."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, friedmanchisquare, norm, t

from bench.reports import statistics


def test_the_interval_of_many_differences_is_the_normal_one():
    differences = np.random.default_rng(0).normal(0.3, 2.0, size=400)
    half = 1.96 * differences.std() / np.sqrt(400)
    low, high = statistics.bootstrap_interval(differences)
    assert low == pytest.approx(differences.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(differences.mean() + half, abs=0.05 * half)


@pytest.mark.parametrize("n", [5, 8, 30])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(n):
    random = np.random.default_rng(n)
    intervals = [statistics.bootstrap_interval(random.normal(size=n), resamples=2000, seed=i) for i in range(600)]
    assert 0.88 < np.mean([low <= 0 <= high for low, high in intervals]) < 0.98


@pytest.mark.parametrize("seed", range(5))
def test_swapping_the_two_sides_mirrors_the_interval(seed):
    differences = np.random.default_rng(seed).integers(-1, 2, size=40)
    low, high = statistics.bootstrap_interval(differences)
    assert statistics.bootstrap_interval(-differences) == (-high, -low)


def test_the_interval_depends_on_the_seed_only_and_not_on_the_order():
    differences = np.random.default_rng(0).normal(size=12)
    kept = differences.copy()
    interval = statistics.bootstrap_interval(differences)
    assert statistics.bootstrap_interval(differences[::-1]) == interval
    assert statistics.bootstrap_interval(differences, seed=1) != interval
    assert np.array_equal(differences, kept)


def test_one_difference_has_no_interval():
    assert np.isnan(statistics.bootstrap_interval([0.1])).all()


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(0, 5, 2 / 32), (2, 3, 1.0), (3, 9, 2 * 299 / 4096), (0, 0, 1.0)])
def test_mcnemar_counts_the_outcomes_of_a_fair_coin(only_a, only_b, p):
    assert statistics.mcnemar(only_a, only_b) == pytest.approx(p)  # C(12,0)+C(12,1)+C(12,2)+C(12,3) = 299
    assert statistics.mcnemar(only_b, only_a) == statistics.mcnemar(only_a, only_b)


@pytest.mark.parametrize("images", [1, 2, 7, 40, 1000, 5001])
def test_mcnemar_is_the_exact_binomial_test(images):
    """The function that it is computed by is faster to load than scipy's test, and must say the same."""
    for only_a in {0, 1, images // 3, images // 2, images}:
        expected = binomtest(only_a, images).pvalue
        assert statistics.mcnemar(only_a, images - only_a) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 10, 400])
def test_the_tail_of_the_interval_is_hesterbergs(n, monkeypatch):
    """Phi(-sqrt(n / (n-1)) * t) by scipy's distributions, which are slow to load, is what the quantiles are taken at."""
    asked = []
    monkeypatch.setattr(np, "quantile", lambda means, places: asked.append(places) or (0.0, 0.0))
    statistics.bootstrap_interval(np.arange(n))
    tail = norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1))
    assert asked == [[tail, 1 - tail]]


def test_holm_multiplies_the_smallest_most_and_keeps_the_order():
    assert statistics.holm([0.04, 0.001, 0.5, 0.02]).tolist() == pytest.approx([0.08, 0.004, 0.5, 0.06])
    assert statistics.holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert statistics.holm([]).tolist() == []


def test_ranks_of_a_block_add_up_whatever_the_ties():
    scores = np.random.default_rng(0).integers(0, 3, size=(20, 6))
    assert statistics.block_ranks(scores).sum(axis=1).tolist() == [21.0] * 20
    assert statistics.block_ranks(scores[::-1])[::-1].tolist() == statistics.block_ranks(scores).tolist()


def test_friedmans_statistic_is_scipys_with_and_without_ties():
    random = np.random.default_rng(0)
    for scores in (random.normal(size=(9, 4)), random.integers(0, 3, size=(9, 4))):
        assert statistics.friedman(scores)[0] == pytest.approx(friedmanchisquare(*scores.T).statistic)


def test_friedmans_p_is_the_share_of_permutations():
    scores = np.array([[3, 2, 1], [3, 1, 2], [2, 3, 1], [3, 2, 1]])
    observed = statistics.friedman(scores)[0]
    orders = itertools.product(itertools.permutations([1, 2, 3]), repeat=4)
    exact = np.mean([((np.sum(ranks, axis=0) - 8) ** 2).sum() * 3 / 12 >= observed - 1e-9 for ranks in orders])
    assert statistics.friedman(scores)[1] == pytest.approx(exact, abs=0.02)
    # two methods, five blocks, one always ahead: 2 of the 32 sign patterns
    assert statistics.friedman([[2, 1]] * 5)[1] == pytest.approx(2 / 32, abs=0.01)


def test_methods_that_always_tie_are_alike():
    assert statistics.friedman(np.ones((6, 3))) == (0.0, 1.0)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_uses_the_published_quantiles(methods, q):
    blocks = 7  # q as in table 5a of Demšar 2006
    expected = q * np.sqrt(methods * (methods + 1) / (6 * blocks))
    assert statistics.critical_difference(methods, blocks) == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize(
    ("ranks", "difference", "bars"),
    [
        ([1.0, 2.0, 3.0], 0.5, []),
        ([1.0, 2.0, 3.0], 2.0, [(0, 2)]),
        ([1.0, 2.0, 3.0, 4.0], 1.0, [(0, 1), (1, 2), (2, 3)]),
        ([1.5, 1.5, 3.0], 0.0, [(0, 1)]),
        ([1.0], 1.0, []),
    ],
)
def test_bars_join_the_largest_groups_only(ranks, difference, bars):
    assert statistics.cliques(ranks, difference) == bars
