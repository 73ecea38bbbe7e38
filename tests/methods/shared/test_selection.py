"""Exemplar choice: the examples of the specification, and properties that hold for every rule."""

import doctest

import numpy as np
import pytest

from methods.shared import selection

RULES = [*selection.SCORES, "herding"]


def predictions(seed: int = 0):
    random = np.random.default_rng(seed)
    return random.normal(size=(60, 4, 5)), random.integers(0, 5, 60)


def test_docstring_examples():
    result = doctest.testmod(selection)
    assert result.attempted > 0 and result.failed == 0


def test_entropy_keeps_the_most_uncertain_image():
    logits = np.log([[[0.9, 0.1]], [[0.6, 0.4]], [[0.99, 0.01]]])
    assert selection.select("entropy", logits, np.zeros(3, dtype=int), 1).tolist() == [1]


@pytest.mark.parametrize("rule", RULES)
def test_every_class_gets_its_number_of_distinct_images(rule):
    logits, labels = predictions()
    rows = selection.select(rule, logits, labels, 3)
    assert labels[rows].tolist() == [c for c in range(5) for _ in range(3)] and len(set(rows)) == 15


@pytest.mark.parametrize("rule", RULES)
def test_a_smaller_memory_is_the_head_of_a_larger_one(rule):
    logits, labels = predictions()
    large = selection.select(rule, logits, labels, 5).reshape(5, 5)
    np.testing.assert_array_equal(selection.select(rule, logits, labels, 2).reshape(5, 2), large[:, :2])


@pytest.mark.parametrize("rule", RULES)
def test_small_classes_are_kept_whole_and_nothing_is_changed(rule):
    logits, labels = predictions()
    logits.flags.writeable = labels.flags.writeable = False
    assert sorted(selection.select(rule, logits, labels, 100)) == list(range(60))


def test_the_released_mix_up_keeps_the_predictions_of_a_batch_together():
    logits, _ = predictions()
    mixed = selection.mix_samples_as_released(logits, 32)
    for rows in (slice(0, 32), slice(32, 60)):
        before, after = (np.sort(part[rows].reshape(-1, 5), axis=0) for part in (logits, mixed))
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(mixed[0, 0], logits[0, 0])
    np.testing.assert_array_equal(mixed[0, 1], logits[1, 0])  # the second "sample" of image 0 is image 1's first


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_herding_picks_what_the_formula_picks_and_the_first_of_equals(kind):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(kind)
    vectors[40:] = vectors[:20]  # equal images
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mean, total, expected = unit.mean(axis=0), np.zeros(8), []
    for k in range(1, 31):
        left = [i for i in range(60) if i not in expected]
        best = min(left, key=lambda i: (np.linalg.norm(mean - (total + unit[i]) / k), i))
        expected.append(best)
        total = total + unit[best]
    assert selection.herding(vectors, 30).tolist() == expected
