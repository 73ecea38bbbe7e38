"""Expected calibration error, against worked examples, torchmetrics and the records."""

import doctest

import numpy as np
import pytest

from bench.results import calibration, metrics, run_data


def random_scores(n: int, classes: int = 6, seed: int = 0):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, size=(n, classes))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = random.integers(0, classes, n)
    return probability, labels


def test_docstring_examples():
    assert doctest.testmod(calibration).failed == 0


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_equals_torchmetrics(bins):
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    probability, labels = random_scores(500)
    theirs = multiclass_calibration_error(torch.tensor(probability), torch.tensor(labels), probability.shape[1], n_bins=bins)
    ours = calibration.ece(probability.max(axis=1), probability.argmax(axis=1) == labels, bins)
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_confidences_on_the_edges_belong_to_the_bin_below():
    assert calibration.ece(np.array([1.0, 0.95]), np.array([True, False])) == pytest.approx(abs(1 - 1.95) / 2)
    assert calibration.ece(np.array([0.0, 0.05]), np.array([False, True])) == pytest.approx(abs(1 - 0.05) / 2)


def test_image_order_does_not_matter_for_the_whole_set_but_does_for_batches():
    probability, labels = random_scores(300)
    confidence, correct = probability.max(axis=1), probability.argmax(axis=1) == labels
    shuffled = np.random.default_rng(1).permutation(300)
    assert calibration.ece(confidence[shuffled], correct[shuffled]) == pytest.approx(calibration.ece(confidence, correct))
    assert calibration.ece_batched([(confidence, correct)], 300) == pytest.approx(calibration.ece(confidence, correct))
    assert calibration.ece_batched([(confidence, correct)]) > calibration.ece(confidence, correct)


def test_batches_never_span_tasks_and_the_last_one_may_be_smaller():
    probability, labels = random_scores(50)
    confidence, correct = probability.max(axis=1), probability.argmax(axis=1) == labels
    tasks = [(confidence[:33], correct[:33]), (confidence[33:], correct[33:])]
    parts = [slice(0, 32), slice(32, 33), slice(33, 50)]
    expected = np.mean([calibration.ece(confidence[part], correct[part]) for part in parts])
    assert calibration.ece_batched(tasks) == pytest.approx(expected)


def test_input_is_not_changed():
    probability, labels = random_scores(40)
    confidence, correct = probability.max(axis=1), probability.argmax(axis=1) == labels
    confidence.flags.writeable = correct.flags.writeable = False
    calibration.ece(confidence, correct)
    calibration.ece_batched([(confidence, correct)])


def test_a_runs_calibration_is_that_of_its_last_row():
    probability, labels = random_scores(90, classes=4, seed=3)
    confidence, prediction = probability.max(axis=1).astype(np.float32), probability.argmax(axis=1)
    samples = {}
    for task, rows in enumerate((slice(0, 50), slice(50, 90))):
        samples[f"labels/{task}"] = labels[rows]
        samples[f"confidence/1/{task}/seen"] = confidence[rows]
        samples[f"prediction/1/{task}/seen"] = prediction[rows]
    matrices = {"seen": np.array([[0.5, np.nan], [0.5, 0.5]])}
    values = metrics.of_run(run_data.RunData("class-incremental", matrices, np.array([50, 40]), samples), ["ece", "ece_batch32"])
    assert values["ece"] == pytest.approx(calibration.ece(confidence, prediction == labels))
    assert values["ece_batch32"] > values["ece"]
    del samples["confidence/1/0/seen"]
    missing = metrics.of_run(run_data.RunData("class-incremental", matrices, np.array([50, 40]), samples), ["ece", "ece_batch32"])
    assert missing == {"ece": None, "ece_batch32": None}
