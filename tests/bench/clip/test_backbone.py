"""Encoding images and text."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bench.clip import backbone as backbones
from bench.clip.text_tower import encode_tokens
from bench.errors import BenchError
from bench.streams.stream import Scenario

TEXTS = ["a photo of a cat.", "the quick brown fox", "x"]


def test_text_cut_at_the_longest_prompt_equals_77_tokens(small_backbone):
    full = small_backbone.clip.encode_text(small_backbone.tokenize(TEXTS))
    assert torch.allclose(small_backbone.encode_text(TEXTS), full, atol=1e-6)


def test_encoding_embedded_tokens_equals_encoding_text(small_backbone):
    tokens = small_backbone.tokenize(TEXTS)
    embedded = small_backbone.encode_embedded(small_backbone.embed_tokens(tokens), tokens.argmax(dim=-1))
    assert torch.allclose(embedded, small_backbone.encode_text(TEXTS), atol=1e-6)


def test_images_of_the_right_size_are_preprocessed_as_the_transform_does(small_backbone):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    one_by_one = torch.stack([small_backbone.transform(Image.fromarray(image)) for image in images])
    assert torch.allclose(small_backbone.preprocess(images), one_by_one, atol=1e-6)


def test_images_of_mixed_sizes_are_resized(small_backbone):
    images = [np.zeros((50, 40, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)]
    assert small_backbone.preprocess(images).shape == (2, 3, 32, 32)


def test_pixels_become_the_square_images_again_and_these_the_same_pixels(small_backbone):
    images = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    pixels = small_backbone.preprocess(images)
    squares = small_backbone.to_uint8(pixels)
    assert squares.dtype == torch.uint8 and torch.equal(squares, torch.from_numpy(images))
    assert torch.equal(small_backbone.preprocess(squares.numpy()), pixels)
    beyond = torch.full((1, 3, 32, 32), 100.0)  # a method may have moved them
    assert small_backbone.to_uint8(beyond).unique().tolist() == [255] and small_backbone.to_uint8(-beyond).max() == 0


def test_mean_and_deviation_are_those_of_the_preprocessing(small_backbone):
    normalise = small_backbone.transform.transforms[-1]
    for found, stated in ((small_backbone.mean, normalise.mean), (small_backbone.std, normalise.std)):
        assert found.shape == (3, 1, 1) and found.dtype == torch.float32
        torch.testing.assert_close(found.flatten(), torch.tensor(stated))


def test_preprocessing_is_described_without_addresses_of_this_process(small_backbone):
    assert " at 0x" not in small_backbone.preprocessing
    assert "Normalize" in small_backbone.preprocessing


def test_a_template_ensemble_is_the_normalised_mean_of_unit_vectors(small_backbone):
    scenario = Scenario("class-incremental", ("cat", "dog"), (("a {}.", "my {}."), ("the {}.",)), (0, 0))
    found = small_backbone.classifier(scenario.prompts_of([0, 1]))
    cat = F.normalize(small_backbone.encode_text(["a cat.", "my cat."]), dim=-1).mean(dim=0)
    assert torch.allclose(found[0], F.normalize(cat, dim=0), atol=1e-6)
    assert torch.allclose(found[1], F.normalize(small_backbone.encode_text(["the dog."])[0], dim=0), atol=1e-6)


def test_the_call_of_before_gives_the_same_vectors_and_says_how_it_is_written_now(small_backbone):
    """Methods that `bench new` wrote until now give a scenario and classes."""
    scenario = Scenario("class-incremental", ("cat", "dog"), (("a {}.", "my {}."), ("the {}.",)), (0, 0))
    copy = small_backbone.trainable_copy()
    with torch.no_grad():
        copy.text_projection.mul_(torch.linspace(0.5, 1.5, len(copy.text_projection))[:, None])
    with pytest.warns(DeprecationWarning, match=r"classifier\(scenario.prompts_of\(classes, template\)"):
        found = small_backbone.classifier(scenario, [1, 0], "one {}", copy)
    assert torch.equal(found, small_backbone.classifier(scenario.prompts_of([1, 0], "one {}"), clip=copy))
    assert not torch.allclose(found, small_backbone.classifier([["one dog"], ["one cat"]]), atol=1e-3)  # the copy's
    with pytest.warns(DeprecationWarning):
        assert torch.equal(small_backbone.classifier(scenario, [0]), small_backbone.classifier([["a cat.", "my cat."]]))


def test_a_trainable_copy_shares_nothing_with_the_backbone(small_backbone):
    copy = small_backbone.trainable_copy()
    with torch.no_grad():
        copy.visual.proj.add_(1)
    assert not torch.equal(copy.visual.proj, small_backbone.clip.visual.proj)
    assert copy.visual.proj.requires_grad and not copy.logit_scale.requires_grad


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-61", None, "unknown backbone 'ViT-B-61'; did you mean ViT-B-16"),
        ("ViT-B-16", None, "needs --pretrained"),
        ("ViT-B-16", "opena", "did you mean openai"),
        ("ViT-B-16", "weights/absent.pt", "no such file"),
    ],
)
def test_a_backbone_that_cannot_be_loaded_is_explained(name, pretrained, message):
    with pytest.raises(BenchError, match=message.replace("?", r"\?")):
        backbones.load(name, pretrained, "cpu")


def test_damaged_weights_are_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not weights")
    with pytest.raises(BenchError, match="broken.safetensors"):
        backbones.load("mini", str(path), "cpu")


def test_a_checkpoint_saved_by_torch_loads_into_an_open_clip_architecture(tmp_path):
    import open_clip

    with torch.random.fork_rng():
        torch.manual_seed(3)
        clip = open_clip.create_model("RN50-quickgelu")
    path = tmp_path / "clip.pt"
    torch.save(clip.state_dict(), path)
    loaded = backbones.load("RN50-quickgelu", str(path), "cpu")
    assert torch.equal(loaded.clip.text_projection, clip.text_projection)
    assert loaded.digest == backbones.file_digest(path)


def test_kept_text_features_are_those_of_the_present_number_of_threads(small_backbone):
    """Threads change the rounding: what other threads have computed in this process may not reach a run."""
    texts = [f"a photo of a {number}." for number in range(9)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = encode_tokens(small_backbone.clip, small_backbone.tokenize(texts))
        torch.set_num_threads(2)
        small_backbone.encode_text(texts)
        torch.set_num_threads(1)
        assert torch.equal(small_backbone.encode_text(texts), alone)
    finally:
        torch.set_num_threads(before)
