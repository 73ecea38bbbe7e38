"""The minimum is scikit-learn's, from whatever strength the descent comes, in as many portions as there may be."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as ScikitLearns

from methods.bounds import logistic_regression
from methods.bounds.logistic_regression import LogisticRegression

STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def samples(n_classes, spread, seed, n=240, width=12):
    """Unit features around class means, with one direction that all share, as CLIP's have; some classes have few images."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_classes, 3.0))
    labels = np.concatenate([np.arange(n_classes), rng.choice(n_classes, n - n_classes, p=shares)])
    features = rng.normal(size=(n_classes, width))[labels] + spread * rng.normal(size=(n, width)) + 4 * np.eye(width)[0]
    return features / np.linalg.norm(features, axis=1, keepdims=True), labels


def objective(solution, features, labels, strength):
    logs = solution.logits(torch.from_numpy(features)).log_softmax(dim=1)
    penalty = (1.0 if solution.weights.shape[0] == 2 else 0.5) * solution.weights.square().sum()
    return float(penalty - strength * logs.gather(1, torch.from_numpy(labels).unsqueeze(1)).sum())


@pytest.mark.parametrize("n_classes, spread, seed", [(2, 1.0, 0), (3, 2.0, 1), (8, 0.5, 2), (20, 1.0, 3)])
def test_each_strength_in_turn_ends_at_scikit_learns_minimum(n_classes, spread, seed):
    features, labels = samples(n_classes, spread, seed)
    regression = LogisticRegression(torch.from_numpy(features), torch.from_numpy(labels), max_iter=1000)
    solution = regression.start()
    for strength in STRENGTHS:
        solution = regression.solve(strength, solution)
        reference = ScikitLearns(C=strength, max_iter=10_000, tol=1e-9).fit(features, labels)
        weights, biases = torch.from_numpy(reference.coef_), torch.from_numpy(reference.intercept_)
        if n_classes == 2:  # one vector: the second class against the first
            weights, biases = torch.cat([-weights, weights]) / 2, torch.cat([-biases, biases]) / 2
        torch.testing.assert_close(solution.weights, weights, rtol=1e-3, atol=1e-3 * float(weights.abs().max()))
        torch.testing.assert_close(solution.biases - solution.biases.mean(), biases - biases.mean(), rtol=1e-3, atol=1e-2)
        found = objective(solution, features, labels, strength)
        least = objective(logistic_regression.Solution(weights, biases), features, labels, strength)
        assert found == pytest.approx(least, rel=1e-7)
        predicted = solution.logits(torch.from_numpy(features)).argmax(dim=1).numpy()
        assert (predicted == reference.predict(features)).all()


def test_the_start_does_not_matter():
    features, labels = map(torch.from_numpy, samples(5, 1.0, 4))
    regression = LogisticRegression(features, labels, max_iter=1000)
    afresh = regression.solve(30.0, regression.start())
    from_another = regression.solve(30.0, regression.solve(0.1, regression.start()))
    torch.testing.assert_close(afresh.logits(features), from_another.logits(features), rtol=1e-3, atol=1e-2)


def test_portions_of_rows_change_nothing_but_rounding(monkeypatch):
    features, labels = map(torch.from_numpy, samples(5, 1.0, 5))
    regression = LogisticRegression(features, labels, max_iter=1000)
    at_once = regression.solve(1.0, regression.start())
    monkeypatch.setattr(logistic_regression, "ENTRIES", 7 * 5)
    in_portions = regression.solve(1.0, regression.start())
    torch.testing.assert_close(at_once.weights, in_portions.weights, rtol=1e-6, atol=1e-6)


def test_it_stops_after_so_many_iterations():
    features, labels = map(torch.from_numpy, samples(8, 1.0, 6))
    start = LogisticRegression(features, labels, max_iter=1).start()
    one, many = (
        objective(LogisticRegression(features, labels, n).solve(100.0, start), features.numpy(), labels.numpy(), 100.0)
        for n in (1, 1000)
    )
    assert one > 1.05 * many


def test_a_single_class_is_certain():
    features = torch.eye(3, dtype=torch.float64)
    regression = LogisticRegression(features, torch.zeros(3, dtype=torch.long), max_iter=10)
    assert regression.solve(1.0, regression.start()).logits(features).softmax(dim=1).eq(1).all()
