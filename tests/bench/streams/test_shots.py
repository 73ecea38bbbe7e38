"""Which images are the shots: this package's rule and LADA's."""

import hashlib
import random

import numpy as np
import pytest

from bench.streams.shots import RULES, digest, few_shots, seed_0


def drawn_as_released(labels: list[int], shots: int) -> list[int]:
    """What a program does that seeds Python's generator, groups the list of images by class, and samples each group."""
    state = random.getstate()
    random.seed(0)
    groups: dict[int, list[int]] = {}
    for image, label in enumerate(labels):
        groups.setdefault(label, []).append(image)
    found = []
    for images in groups.values():
        found += random.sample(images, shots) if len(images) >= shots else random.choices(images, k=shots)
    random.setstate(state)
    return sorted(found)


@pytest.mark.parametrize("labels", [[2] * 40 + [0] * 20 + [1] * 30, [1, 0, 2] * 25, [0] * 16 + [1] * 5 + [2] * 17])
def test_seed_0_draws_as_a_program_that_seeds_and_samples_class_after_class(labels):
    assert seed_0(np.array(labels), 16, "any").tolist() == drawn_as_released(labels, 16)


def test_the_first_draw_is_pinned():
    """Python promises no equal sequence of `sample` between versions: one that drew others would be noticed here."""
    assert seed_0(np.zeros(100, int), 4, "any").tolist() == [5, 49, 53, 97]


def test_a_small_class_is_drawn_with_repetition_by_seed_0_and_whole_by_the_own_rule():
    labels = np.repeat([0, 1], [3, 20])
    rows = seed_0(labels, 16, "any")
    assert np.bincount(labels[rows]).tolist() == [16, 16] and set(rows[:16]) <= {0, 1, 2}
    assert np.bincount(labels[few_shots(labels, 16, "any")]).tolist() == [3, 16]


def test_the_order_in_which_classes_appear_decides():
    first, other = (seed_0(np.repeat(labels, [30, 40]), 4, "any") for labels in ([0, 1], [1, 0]))
    assert first.tolist() == other.tolist()
    assert seed_0(np.repeat([0, 1], [40, 30]), 4, "any").tolist() != first.tolist()
    assert RULES["own"].rows is few_shots and RULES["seed-0"].rows is seed_0


def test_the_digest_is_of_names_and_labels_in_any_order():
    known = digest(["b.jpg", "a.jpg", "a.jpg"], [1, 0, 0])
    assert known == digest(["a.jpg", "b.jpg", "a.jpg"], [0, 1, 0])
    assert known == hashlib.sha256(b"0 a.jpg\n0 a.jpg\n1 b.jpg").hexdigest()
    assert len({known, digest(["a.jpg", "b.jpg"], [0, 1]), digest(["a.jpg", "b.jpg", "a.jpg"], [0, 1, 1])}) == 3
