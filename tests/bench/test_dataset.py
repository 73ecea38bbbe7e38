"""Image sources: limits, concatenation, digests."""

import numpy as np

from bench.dataset import ImageSource


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
