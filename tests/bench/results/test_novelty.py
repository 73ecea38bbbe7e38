"""Novelty detection, against worked examples, scikit-learn's curves, torchmetrics and the records."""

import doctest

import numpy as np
import pytest

from bench.results import metrics, novelty, run_data

FUNCTIONS = [novelty.auroc, novelty.aupr, novelty.fpr95]


def random_scores(seed: int = 0, digits: int = 6):
    random = np.random.default_rng(seed)
    return random.normal(1, 1, 120).round(digits), random.normal(0, 1, 80).round(digits)


def test_docstring_examples():
    assert doctest.testmod(novelty).failed == 0


@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_aupr_equal_torchmetrics(seed):
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    seen, novel = random_scores(seed, digits=1)  # many ties
    scores = torch.tensor(np.concatenate([seen, novel])).sigmoid()
    truth = torch.tensor([1] * len(seen) + [0] * len(novel))
    assert novelty.auroc(seen, novel) == pytest.approx(float(binary_auroc(scores, truth)), abs=1e-6)
    assert novelty.aupr(seen, novel) == pytest.approx(float(binary_average_precision(scores, truth)), abs=1e-6)


@pytest.mark.parametrize("digits", [1, 6])
@pytest.mark.parametrize("seed", range(5))
def test_fpr95_is_a_point_of_the_roc_curve(seed, digits):
    from sklearn.metrics import roc_curve

    seen, novel = random_scores(seed, digits)
    truth = np.r_[np.ones(len(seen)), np.zeros(len(novel))]
    fpr, tpr, _ = roc_curve(truth, np.r_[seen, novel], drop_intermediate=False)
    up_to_first_complete = np.arange(1, np.argmax(tpr == 1) + 1)  # the first point is above every score
    distance = np.abs(tpr[up_to_first_complete] - 0.95)
    nearest = up_to_first_complete[np.flatnonzero(distance == distance.min())[-1]]
    assert novelty.fpr95(seen, novel) == pytest.approx(fpr[nearest])


def test_ties_between_thresholds():
    seen, novel = np.array([4.0, 3.0, 2.0, 1.0]), np.array([3.5, 2.5, 0.5])
    assert novelty.fpr95(seen, novel, recall=0.75) == pytest.approx(2 / 3)  # threshold 2.0
    assert novelty.fpr95(seen, np.array([3.5, 2.5, 1.5]), recall=0.75) == 1.0  # 2.0 and 1.5 have recall 0.75: the lower
    assert novelty.fpr95(seen, np.array([3.5, 2.5, 1.5]), recall=0.625) == 1.0  # recalls 0.5 and 0.75 are equally near


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_only_the_ranking_counts_and_nothing_is_changed(function):
    seen, novel = random_scores()
    seen.flags.writeable = novel.flags.writeable = False
    assert function(np.exp(seen), np.exp(novel)) == pytest.approx(function(seen, novel))
    assert function(seen[::-1], novel[::-1]) == pytest.approx(function(seen, novel))


def test_separable_scores_are_detected_perfectly():
    seen, novel = np.array([2.0, 3.0]), np.array([0.0, 1.0])
    assert [function(seen, novel) for function in FUNCTIONS] == [1.0, 1.0, 0.0]


def run_with(samples: dict, tasks: int = 3) -> run_data.RunData:
    return run_data.RunData("class-incremental", {"seen": np.full((tasks, tasks), 0.5)}, np.full(tasks, 20.0), samples)


def test_a_runs_value_is_the_mean_over_every_task_but_the_last():
    random = np.random.default_rng(2)
    names = [f"{name}/{t}/{k}/seen" for name in ("energy", "confidence", "entropy") for t in range(3) for k in range(3)]
    cells = {name: random.normal(size=20) for name in names}
    values = metrics.of_run(run_with(cells), ["auroc", "fpr95", "aupr_max_softmax", "auroc_entropy"])
    energy = [np.concatenate([cells[f"energy/{t}/{k}/seen"] for k in range(3)]) for t in range(2)]
    expected = np.mean([novelty.auroc(energy[t][: 20 * (t + 1)], energy[t][20 * (t + 1) :]) for t in range(2)])
    assert values["auroc"] == pytest.approx(expected)
    entropy = [np.concatenate([cells[f"entropy/{t}/{k}/seen"] for k in range(3)]) for t in range(2)]
    expected = np.mean([novelty.auroc(-entropy[t][: 20 * (t + 1)], -entropy[t][20 * (t + 1) :]) for t in range(2)])
    assert values["auroc_entropy"] == pytest.approx(expected)
    del cells["energy/1/2/seen"]
    assert metrics.of_run(run_with(cells), ["auroc", "auroc_entropy"])["auroc"] is None
