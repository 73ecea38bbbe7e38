"""Image sources: limits, concatenation, digests."""

import numpy as np
import pytest

from bench.images.sources import ImageSource, out_of_range


def numbered(n: int, first: int = 0) -> np.ndarray:
    """n images whose pixels all hold the image's number."""
    return np.broadcast_to(np.arange(first, first + n, dtype=np.uint8)[:, None, None, None], (n, 2, 2, 3)).copy()


def test_a_limit_keeps_the_first_images_of_every_class_in_order():
    source = ImageSource.from_arrays(numbered(6), np.array([0, 1, 0, 1, 0, 1])).limited(2)
    assert source.labels.tolist() == [0, 1, 0, 1]
    assert [int(image[0, 0, 0]) for image in source.read(np.arange(4))] == [0, 1, 2, 3]


def test_a_limited_source_has_another_digest():
    source = ImageSource.from_arrays(numbered(6), np.array([0, 1, 0, 1, 0, 1]))
    assert source.limited(1).digest != source.limited(2).digest != source.digest


def test_concatenation_reads_each_image_from_its_own_source():
    first = ImageSource.from_arrays(numbered(3), np.zeros(3))
    second = ImageSource.from_arrays(numbered(3, first=10), np.zeros(3))
    both = ImageSource.concatenate([first, second], [np.array([0, 0, 0]), np.array([1, 1, 1])])
    assert [int(image[0, 0, 0]) for image in both.read(np.array([4, 0, 5]))] == [11, 0, 12]
    assert both.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_digest_changes_with_a_single_pixel():
    images = numbered(3)
    before = ImageSource.from_arrays(images, np.zeros(3)).digest
    images[2, 1, 1, 2] += 1
    assert ImageSource.from_arrays(images, np.zeros(3)).digest != before


def test_a_digest_given_as_a_function_is_made_when_it_is_asked_for_and_once():
    asked = []
    source = ImageSource(np.array([0, 0, 1]), lambda rows: numbered(3)[rows], lambda: asked.append(1) or "digest")
    kept = source.limited(1)
    both = ImageSource.concatenate([source, kept], [source.labels, kept.labels])
    assert asked == []
    assert source.digest == source.digest == "digest"
    assert len({source.digest, kept.digest, both.digest}) == 3
    assert asked == [1]


def test_a_selection_is_in_the_order_asked_for():
    source = ImageSource.from_arrays(numbered(6), np.arange(6)).select(np.array([4, 1, 5])).select(np.array([2, 0]))
    assert source.labels.tolist() == [5, 4]
    assert [int(image[0, 0, 0]) for image in source.read(np.arange(2))] == [5, 4]


def test_images_have_digests_of_their_own_through_selection_and_concatenation():
    source = ImageSource.from_arrays(numbered(6), np.arange(6))
    digests = source.image_digests(np.arange(6))
    assert len(set(digests)) == 6
    both = ImageSource.concatenate([source.select(np.array([3, 1])), source], [np.zeros(2), np.zeros(6)])
    assert both.image_digests(np.array([1, 7, 0])) == [digests[1], digests[5], digests[3]]


def test_images_of_different_sizes_in_memory():
    images = [np.full((2 + k, 3, 3), k, np.uint8) for k in range(3)]
    source = ImageSource.from_list(images, np.array([0, 1, 2]))
    assert [image.shape for image in source.read(np.array([2, 0]))] == [(4, 3, 3), (2, 3, 3)]
    assert source.digest == ImageSource.from_list(images, np.array([0, 1, 2])).digest
    assert source.digest != ImageSource.from_list(images, np.array([0, 1, 1])).digest
    assert source.digest != ImageSource.from_list([images[0].reshape(3, 2, 3), *images[1:]], np.array([0, 1, 2])).digest


@pytest.mark.parametrize(
    ("labels", "rows"), [([0, 1, 2], []), ([0, 3, -1, 2], [1, 2]), ([], []), ([2, 2, 9], [2])], ids=str
)
def test_labels_that_are_none_of_the_classes(labels, rows):
    assert out_of_range(np.array(labels, np.int64), 3).tolist() == rows
