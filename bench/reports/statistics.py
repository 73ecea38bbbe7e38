"""Statistics of a comparison: pure functions, arrays in, numbers out.

How to choose: Demšar 2006, "Statistical comparisons of classifiers over multiple data sets" (JMLR 7), for many methods
on many data sets; Dietterich 1998, "Approximate statistical tests for comparing supervised classification learning
algorithms" (Neural Computation 10), for two models on one test set; Hesterberg 2015, "What teachers should know about
the bootstrap" (The American Statistician 69), for intervals. scipy is imported where it is used: it is slow to load, and
scipy.stats far slower than the functions of scipy.special that it is made of.
"""

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
RESAMPLES = 10_000
MIN_RUNS = 5  # fewer paired runs give no interval: the bootstrap's would be their smallest and largest difference
MIN_BLOCKS = 5  # fewer blocks give no critical difference: it would be nearly as large as the ranks can differ


def bootstrap_interval(
    differences: npt.ArrayLike, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Confidence interval of the mean of paired differences d_1 ... d_n (one a seed, or one a test image).

    Draws n of the n differences with replacement, `resamples` times, and takes quantiles of the means. Plain percentile
    intervals are too short for a small n, so the tail left outside is that of Hesterberg's expanded interval:
    Phi(-sqrt(n / (n-1)) * t), with t the quantile of Student's t with n-1 degrees of freedom at (1 + confidence) / 2.
    At 95% it is 0.025 for a large n, 0.0086 for n = 10 and 0.00095 for n = 5, the smallest n for which it exceeds the
    chance n**-n of drawing one difference n times. For normal differences the interval then holds the truth in 92 of
    100 cases (94 for n = 8). The order of the differences does not matter, and changing their signs changes those of
    the interval. NaN for fewer than two differences.

    200 images gained, 200 unchanged: mean 0.5, standard error sqrt(0.25 / 400) = 0.025, so 0.5 +- 1.96 * 0.025:

    >>> low, high = bootstrap_interval(np.repeat([0, 1], 200))
    >>> round(low, 2), round(high, 2)
    (0.45, 0.55)
    >>> bootstrap_interval(np.full(5, 0.25))
    (0.25, 0.25)
    """
    differences = np.sort(np.asarray(differences, dtype=float))
    n = len(differences)
    if n < 2:
        return float("nan"), float("nan")
    if differences.tolist() < (-differences[::-1]).tolist():
        low, high = bootstrap_interval(-differences, resamples, confidence, seed)
        return -high, -low
    values, counts = np.unique(differences, return_counts=True)  # equal differences are drawn together
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)  # (resamples, distinct values)
    outside = tail(n, confidence)
    low, high = np.quantile(draws @ values / n, [outside, 1 - outside])
    return float(low), float(high)


def tail(n: int, confidence: float) -> float:
    """The share of the resampled means of n differences that the interval of this confidence leaves outside on each side.

    >>> round(tail(5, 0.95), 5), round(tail(10, 0.95), 4)
    (0.00095, 0.0086)
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + confidence) / 2)))  # Phi, and the quantile of Student's t


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test (1947; exact form: binomial with probability 1/2), two-sided p.

    only_a, only_b: images that only model A, only model B classifies rightly; the others say nothing about which one is
    better. p = min(1, 2 * P[X <= min(only_a, only_b)]) with X ~ Binomial(only_a + only_b, 1/2).

    1 against 5: 2 * (1 + 6) / 2**6 = 14/64:

    >>> mcnemar(1, 5)
    0.21875
    >>> mcnemar(0, 0)
    1.0
    """
    from scipy.special import betainc

    smaller, larger = sorted((only_a, only_b))
    if larger - smaller <= 1:
        return 1.0  # X lies at or below the middle in at least half of the cases
    # P[X <= smaller] of n images is the regularised incomplete beta function of n - smaller and smaller + 1
    return float(min(1.0, 2 * betainc(larger, smaller + 1, 0.5)))


def holm(p_values: npt.ArrayLike) -> np.ndarray:
    """Holm's correction (1979) of several p-values: adjusted p, to be compared with the level as it is.

    The i-th smallest of m is multiplied by m - i + 1, and is at least the one before it; at most 1.

    0.01 * 3, 0.02 * 2, 0.03 * 1 -> 0.03, 0.04, and again 0.04, because it may not fall:

    >>> holm([0.02, 0.01, 0.03]).round(4).tolist()
    [0.04, 0.03, 0.04]
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)))
    return adjusted


def block_ranks(scores: npt.ArrayLike) -> np.ndarray:
    """(blocks, methods) ranks of scores within each block; 1 is the highest score, ties share the mean rank.

    >>> block_ranks([[0.9, 0.8, 0.8], [0.7, 0.9, 0.1]]).tolist()
    [[1.0, 2.5, 2.5], [2.0, 1.0, 3.0]]
    """
    from scipy.stats import rankdata

    return rankdata(-np.asarray(scores, dtype=float), axis=1)


def friedman(scores: npt.ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Friedman's test (1937) that all methods rank alike: (chi2, p) for scores (blocks, methods).

    With N blocks, k methods and mean ranks R_j: chi2 = 12 N / (k (k+1)) * sum_j (R_j - (k+1)/2)**2, divided by
    1 - sum (t**3 - t) / (N (k**3 - k)) for groups of t tied scores. p is the share of `resamples` random permutations
    of the ranks within their blocks that reach chi2, the observed one counted among them: the usual chi-squared
    distribution is a poor guide for the few blocks there are here. Nothing but ties gives (0, 1).

    Mean ranks 1.25, 1.75, 3: chi2 = 12 * 4 / 12 * (0.75**2 + 0.25**2 + 1) = 6.5, whose exact p is 0.042:

    >>> chi2, p = friedman([[3, 2, 1], [3, 2, 1], [3, 2, 1], [2, 3, 1]])
    >>> chi2, round(p, 2)
    (6.5, 0.04)
    """
    ranks = block_ranks(scores)
    blocks, methods = ranks.shape
    centred = ranks - (methods + 1) / 2
    spread = (centred**2).sum()  # N (k**3 - k) / 12 without ties
    if spread == 0:
        return 0.0, 1.0
    permuted = np.random.default_rng(seed).permuted(np.broadcast_to(centred, (resamples, blocks, methods)), axis=2)
    drawn = (permuted.sum(axis=1) ** 2).sum(axis=1)  # (resamples,)
    observed = (centred.sum(axis=0) ** 2).sum()
    reached = int((drawn >= observed - 1e-9).sum())
    return float((methods - 1) * observed / spread), (reached + 1) / (resamples + 1)


def critical_difference(methods: int, blocks: int, level: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks: q * sqrt(k (k+1) / (6 N)) for k methods and N blocks.

    q is the quantile of the studentised range at 1 - level, k groups, infinite degrees of freedom, divided by sqrt(2).
    Demšar 2006, section 3.2.2, has k = 4, N = 14: 2.569 * sqrt(4 * 5 / (6 * 14)):

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(1 - level, methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def cliques(ranks: npt.ArrayLike, difference: float) -> list[tuple[int, int]]:
    """The bars of a critical-difference diagram: (first, last) of every largest group that cannot be told apart.

    ranks: mean ranks in ascending order. A group is a stretch of two or more whose ranks differ by at most `difference`;
    a stretch inside another one is not listed.

    1.0 and 1.9, then 1.9 and 2.8 lie within 1; 1.0 and 2.8 do not; 4.5 stands alone:

    >>> cliques([1.0, 1.9, 2.8, 4.5], 1.0)
    [(0, 1), (1, 2)]
    """
    ranks = np.asarray(ranks, dtype=float)
    ends = np.searchsorted(ranks, ranks + difference + 1e-9, side="right") - 1
    found: list[tuple[int, int]] = []
    for first, last in enumerate(ends):
        if last > first and (not found or last > found[-1][1]):
            found.append((first, int(last)))
    return found
