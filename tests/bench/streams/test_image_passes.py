"""Methods on stored features need no image encoder once the features are stored."""

import dataclasses
import shutil

import pytest

from bench.system import registry
from tests.bench.small_runs import execute, manifest, small_run
from tests.every_method import every_method

ON_FEATURES = [name for name in registry.names("method") if registry.load("method", name).inputs in ("features", "pooled")]


@pytest.mark.parametrize("name", every_method(["cgil", "coop", "ranpac", "simplecil", "zero-shot"], ON_FEATURES))
def test_no_image_is_encoded_twice(name, tmp_path, cache):
    """A cold store encodes images, a warm one none: neither in training, on mirrored views too, nor in evaluation."""
    fields = {field.name for field in dataclasses.fields(registry.load("method", name).Settings)}
    views = {"mirrored_view": True} if "mirrored_view" in fields else {}
    if "crop_scale" in fields:  # a crop has no stored features, nor has what is mirrored after it
        views = {"crop_scale": 1.0, "mirrored_view": False}
    if "pixel_noise" in fields:  # images with noise on their pixels are others in every epoch
        views = {"image_weight": 0.0}
    passes = []
    shutil.rmtree(cache / "features", ignore_errors=True)
    for attempt in ("cold", "warm"):
        run = small_run(name, tmp_path / attempt, **views)
        execute(run, cache)
        passes.append(manifest(run)["cost"]["image_passes"])
    assert passes[0] > 0
    assert passes[1] == 0


def test_those_that_keep_the_encoder_frozen_are_among_them():
    wanted = {"zero-shot", "continual-clip", "coop", "cgil", "clap", "clip-adapter", "ranpac", "rail-primal", "simplecil"}
    assert wanted <= set(ON_FEATURES)
