import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from bench.system.randomness import Draws
from methods.bounds.linear_probe import LinearProbe


def build(backbone, scenario, seed=0, **settings):
    return LinearProbe(LinearProbe.Settings(**settings), backbone, scenario, Draws("test", "linear-probe", seed))


def unit_features(split):
    return F.normalize(split.features().double(), dim=-1).numpy()


def chosen(method, features, labels):
    return method.choose_strength(torch.from_numpy(features), torch.from_numpy(labels))[0]


def test_it_equals_scikit_learn_on_the_same_features(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    joined = stream.joined()
    method = build(small_backbone, stream.scenario, strengths=(10.0,))
    method.learn(joined)
    reference = LogisticRegression(C=10.0, max_iter=1000, tol=1e-8).fit(unit_features(joined.train), joined.train.labels)
    expected = torch.from_numpy(reference.decision_function(unit_features(joined.train)))
    logits = method.logits(joined.train.features(), [0, 1, 2, 3])
    torch.testing.assert_close(logits, expected.float(), rtol=1e-4, atol=1e-4)


def test_task_incremental_fits_one_probe_per_task(small_backbone, make_stream):
    stream = make_stream("task-incremental", sizes=(3, 3))
    method = build(small_backbone, stream.scenario, strengths=(10.0,))
    method.learn(stream.joined())
    for task in stream.tasks:
        features = unit_features(task.train)
        reference = LogisticRegression(C=10.0, max_iter=1000, tol=1e-8).fit(features, task.train.labels)
        logits = method.logits(task.train.features(), task.classes)
        expected = torch.from_numpy(reference.decision_function(features)).float()
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_two_classes_get_the_probabilities_of_scikit_learn(small_backbone, make_stream):
    stream = make_stream("task-incremental", sizes=(2, 2))
    method = build(small_backbone, stream.scenario, strengths=(10.0,))
    method.learn(stream.joined())
    task = stream.tasks[1]
    features = unit_features(task.train)
    reference = LogisticRegression(C=10.0, max_iter=1000, tol=1e-8).fit(features, task.train.labels)
    probabilities = method.logits(task.train.features(), [2, 3]).softmax(dim=-1)
    torch.testing.assert_close(probabilities.double().numpy(), reference.predict_proba(features), rtol=1e-4, atol=1e-4)


def test_strength_is_the_one_that_is_best_on_images_kept_out_of_the_fit(small_backbone, make_stream):
    """A quarter of the labels is wrong, and 60 noise dimensions allow weak regularisation to learn them by heart."""
    rng = np.random.default_rng(0)
    truth = np.repeat([-1, 1], 40)
    labels = np.where(np.arange(80) % 4 == 0, -truth, truth)
    features = np.column_stack([5 * truth, rng.normal(size=(80, 60))])
    method = build(small_backbone, make_stream().scenario, strengths=(0.001, 1000.0))
    by_heart = LogisticRegression(C=1000.0, max_iter=1000, tol=1e-8).fit(features, labels)
    assert by_heart.score(features, labels) == 1  # so it would win if it were judged on what it was fitted to
    assert chosen(method, features, (labels + 1) // 2) == 0.001


def test_the_smaller_strength_wins_a_tie(small_backbone, make_stream):
    labels = np.repeat([0, 1], 10)
    features = np.where(labels, 1.0, -1.0)[:, None] * np.ones((20, 3))  # any strength separates these
    method = build(small_backbone, make_stream().scenario, strengths=(100.0, 1.0, 10.0))
    assert chosen(method, features, labels) == 1.0


def test_a_tenth_of_every_class_is_held_out(small_backbone, make_stream):
    labels = np.repeat([0, 1, 2, 3], [30, 12, 2, 1])
    held_out = build(small_backbone, make_stream().scenario).held_out_rows(labels)
    assert np.bincount(labels[held_out], minlength=4).tolist() == [3, 1, 1, 0]


def test_held_out_images_depend_on_the_seed_only(small_backbone, make_stream):
    scenario, labels = make_stream().scenario, np.repeat([0, 1], 40)
    first, again, other = (build(small_backbone, scenario, seed).held_out_rows(labels).tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_with_one_image_per_class_the_middle_strength_is_taken(small_backbone, make_stream):
    method = build(small_backbone, make_stream().scenario, strengths=(1.0, 7.0, 50.0))
    assert chosen(method, np.eye(4), np.arange(4)) == 7.0


def test_learning_twice_gives_the_same_numbers_and_state_can_be_stored(small_backbone, make_stream):
    stream = make_stream()
    features = stream.joined().train.features()
    first, second, loaded = (build(small_backbone, stream.scenario) for _ in range(3))
    for method in (first, second):
        method.learn(stream.joined())  # its test images are sealed: touching them would raise
    loaded.load_state_dict(first.state_dict())
    assert torch.equal(first.logits(features, [2, 0]), second.logits(features, [2, 0]))
    assert torch.equal(first.logits(features, [2, 0]), loaded.logits(features, [2, 0]))


def test_classes_without_training_images_are_refused_by_name(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    with pytest.raises(ValueError, match="scores only classes that it was trained on; not red, blue"):
        method.logits(torch.ones(1, 24), [0, 2])
    method.learn(stream.tasks[0])
    assert method.logits(torch.ones(1, 24), [1, 0]).shape == (1, 2)
    with pytest.raises(ValueError, match="not yellow"):
        method.logits(torch.ones(1, 24), [0, 3])


def test_the_length_of_a_feature_does_not_matter(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario)
    method.learn(stream.joined())
    features = stream.joined().train.features()
    torch.testing.assert_close(method.logits(7 * features, [0, 1]), method.logits(features, [0, 1]))
