"""The miniature CLIP: how it is stored, how it is loaded, and how well the shipped weights do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench.clip import mini
from bench.clip.backbone import encode_tokens
from protocols.datasets.mini_world.downstream import DATASETS
from protocols.datasets.mini_world.tools import evaluate
from protocols.datasets.mini_world.tools.pretrain import Recipe


@pytest.fixture(scope="module")
def model() -> CLIP:
    return mini.load()


def trained_token_ids(path: Path = mini.WEIGHTS) -> set[int]:
    """The token ids that carry meaning, start and end included."""
    return set(load_file(path)["token_embedding.trained_ids"].tolist())


@pytest.fixture(scope="module")
def zero_shot(model) -> dict[str, float]:
    return {name: evaluate.zero_shot(model, name) for name in DATASETS}


def test_shipped_file_is_small_and_comes_from_a_finished_run():
    assert mini.WEIGHTS.stat().st_size <= 5_000_000
    with safe_open(mini.WEIGHTS, "pt") as file:
        metadata = file.metadata()
    assert metadata["steps"] == f"{Recipe.steps} of {Recipe.steps}" and metadata["seed"] == str(Recipe.seed)
    assert "mini_world.pretrain" in metadata["command"]


def test_names_are_those_of_open_clip_except_for_the_stem(model):
    config = mini.CONFIG
    plain = CLIP(embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=config["text_cfg"])
    theirs, ours = plain.state_dict(), model.state_dict()
    assert set(theirs) - set(ours) == {"visual.conv1.weight"}
    assert all(name.startswith("visual.conv1.") for name in set(ours) - set(theirs))
    assert all(ours[name].shape == theirs[name].shape for name in set(ours) & set(theirs))


def test_model_behaves_the_same_in_training_and_evaluation_mode(model):
    images = mini.preprocess(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    with torch.inference_mode():
        evaluated = model.encode_image(images)
        trained = model.train().encode_image(images)
        model.eval()
    torch.testing.assert_close(evaluated, trained)


def test_preprocessing_is_openai_s():
    white = mini.preprocess(np.full((1, 32, 32, 3), 255, np.uint8))
    assert white.shape == (1, 3, 32, 32)
    assert white[0, :, 0, 0].tolist() == pytest.approx([1.9303, 2.0749, 2.1459], abs=1e-4)


def test_short_text_encoding_equals_open_clip_s_on_padded_text(model):
    tokens = SimpleTokenizer()(["a photo of a red car.", "star"])  # (2, 77)
    with torch.inference_mode():
        torch.testing.assert_close(encode_tokens(model, tokens), model.encode_text(tokens))


def test_saving_and_loading_keeps_everything_but_the_pretraining_vocabulary(tmp_path):
    torch.manual_seed(0)
    model = mini.build(vocab_size=3)
    path = tmp_path / "weights.safetensors"
    mini.save(model.state_dict(), [49406, 320, 49407], path, {"steps": "0"})
    loaded = mini.load(path)
    assert trained_token_ids(path) == {49406, 320, 49407}
    rows = loaded.token_embedding.weight[[49406, 320, 49407]]
    torch.testing.assert_close(rows, model.token_embedding.weight.half().float())
    torch.testing.assert_close(loaded.visual.proj, model.visual.proj.half().float())
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_untrained_rows_depend_on_the_token_id_alone():
    rows = mini.untrained_rows(np.array([5, 49000, 7]), width=128, std=0.5)
    assert np.array_equal(rows[1], mini.untrained_rows(np.array([49000]), 128, 0.5)[0])
    assert len(np.unique(rows)) == rows.size
    many = mini.untrained_rows(np.arange(3000), 128, 0.5)
    assert many.std() == pytest.approx(0.5, rel=0.01) and abs(many.mean()) < 0.005
    assert many[0, :3].tolist() == pytest.approx([-0.226379, 1.325303, -0.494302], abs=1e-6)


def test_untrained_words_get_rows_of_the_size_of_trained_ones(model):
    table = model.token_embedding.weight.detach()
    trained = sorted(trained_token_ids())
    untrained = np.setdiff1d(np.arange(len(table)), trained)
    assert table.shape == (49408, 128)
    assert table[untrained].std().item() == pytest.approx(table[trained].std().item(), rel=0.01)


def test_class_names_are_made_of_trained_words_except_land_use_and_a_single_dot():
    trained, tokenizer = trained_token_ids(), SimpleTokenizer()
    assert {tokenizer.sot_token_id, tokenizer.eot_token_id} <= trained and 200 < len(trained) < 400
    unknown = {
        name
        for dataset in DATASETS.values()
        for name in dataset.class_names
        if not set(tokenizer.encode(dataset.template.format(name))) <= trained
    }
    assert unknown == {"one dot", *DATASETS["landuse"].class_names}


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no miniature CLIP weights at .*absent.safetensors"):
        mini.load(tmp_path / "absent.safetensors")


def test_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(mini.WEIGHTS.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="are damaged") as caught:
        mini.load(path)
    assert "\n" not in str(caught.value)


def test_file_of_another_model_is_refused_in_one_line(tmp_path):
    tensors = load_file(mini.WEIGHTS)
    other, smaller = tmp_path / "other.safetensors", tmp_path / "smaller.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    save_file({name: tensor for name, tensor in tensors.items() if name != "visual.proj"}, smaller)
    with pytest.raises(ValueError, match="does not hold miniature CLIP weights"):
        mini.load(other)
    with pytest.raises(ValueError, match="do not fit the model.*visual.proj") as caught:
        mini.load(smaller)
    assert "\n" not in str(caught.value)


LOWEST = {"letters": 0.40, "objects": 0.65, "scenes": 0.65, "shapes": 0.65, "sketches": 0.60, "textures": 0.30}


@pytest.mark.parametrize("name", LOWEST)
def test_zero_shot_accuracy_reaches(name, zero_shot):
    assert zero_shot[name] >= LOWEST[name]


def test_zero_shot_mean_and_the_sets_that_stay_hard(zero_shot):
    assert np.mean(list(zero_shot.values())) >= 0.45
    assert 0.20 <= zero_shot["digits"] <= 0.60
    assert zero_shot["landuse"] <= 0.25 and zero_shot["counts"] <= 0.30


@pytest.mark.slow
def test_a_linear_probe_leaves_room_above_zero_shot(model, zero_shot):
    probes = {name: evaluate.linear_probe(model, name) for name in DATASETS}
    gaps = {name: probes[name] - zero_shot[name] for name in DATASETS}
    assert np.mean(list(probes.values())) >= 0.75
    assert 0.15 <= np.mean(list(gaps.values())) <= 0.40
    assert sum(0.15 <= gap <= 0.40 for gap in gaps.values()) >= 4


@pytest.mark.slow
def test_image_encoding_is_fast(model):
    assert evaluate.images_per_cpu_second(model) >= 800
