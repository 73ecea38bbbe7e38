"""The feature store: encoded once, kept whole."""

import numpy as np
import pytest

from bench.images.dataset import ImageSource
from bench.streams.features import FeatureStore


@pytest.fixture
def source():
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    return ImageSource.from_arrays(images, np.arange(5))


def entry(root, suffix: str):
    return next(root.rglob(f"*{suffix}"))


def test_features_are_those_of_the_encoder(small_backbone, source, tmp_path):
    found = FeatureStore(small_backbone, tmp_path).features(source)
    direct = small_backbone.encode_images(small_backbone.preprocess(source.read(np.arange(5))))
    assert np.array_equal(found, direct.numpy())


def test_a_second_store_reads_and_does_not_encode(small_backbone, source, tmp_path):
    first = FeatureStore(small_backbone, tmp_path)
    cold = first.features(source)
    second = FeatureStore(small_backbone, tmp_path)
    passes = small_backbone.image_passes
    assert np.array_equal(second.features(source), cold)
    assert (first.encoded, second.encoded, small_backbone.image_passes) == (5, 0, passes)


def test_views_and_sources_are_kept_apart(small_backbone, source, tmp_path):
    store = FeatureStore(small_backbone, tmp_path)
    plain, mirrored = store.features(source), store.features(source, "mirrored")
    assert not np.array_equal(plain, mirrored)
    assert len(store.features(source.limited(1))) == 5
    assert store.encoded == 15


@pytest.mark.parametrize("damage", ["flip a byte", "cut short", "lose the checksum"])
def test_a_damaged_entry_is_noticed_and_made_again(small_backbone, source, tmp_path, damage, capsys):
    expected = FeatureStore(small_backbone, tmp_path).features(source).copy()
    path = entry(tmp_path, ".npy")
    data = bytearray(path.read_bytes())
    if damage == "flip a byte":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "cut short":
        path.write_bytes(data[:-10])
    else:
        entry(tmp_path, ".json").write_text("{}")
    store = FeatureStore(small_backbone, tmp_path)
    assert np.array_equal(store.features(source), expected)
    assert store.encoded == 5
    assert "damaged" in capsys.readouterr().err
