"""Folders of weights: transformers' names and settings, open_clip's, and what does not belong together."""

import json

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from bench.clip import backbone as backbones
from bench.errors import BenchError
from tests.bench.clip.tiny_architecture import SETTINGS, random_clip, same_numbers, tiny_architecture  # noqa: F401

pytestmark = pytest.mark.usefixtures("tiny_architecture")

PREPROCESSOR = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2, "do_center_crop": True}


def as_transformers(clip: CLIP) -> dict[str, torch.Tensor]:
    """The weights under the names of transformers' CLIPModel, written down tensor by tensor."""
    renamed = {
        "logit_scale": clip.logit_scale,
        "text_model.embeddings.token_embedding.weight": clip.token_embedding.weight,
        "text_model.embeddings.position_embedding.weight": clip.positional_embedding,
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "text_model.final_layer_norm.weight": clip.ln_final.weight,
        "text_model.final_layer_norm.bias": clip.ln_final.bias,
        "text_projection.weight": clip.text_projection.T,
        "vision_model.embeddings.class_embedding": clip.visual.class_embedding,
        "vision_model.embeddings.patch_embedding.weight": clip.visual.conv1.weight,
        "vision_model.embeddings.position_embedding.weight": clip.visual.positional_embedding,
        "vision_model.pre_layrnorm.weight": clip.visual.ln_pre.weight,
        "vision_model.pre_layrnorm.bias": clip.visual.ln_pre.bias,
        "vision_model.post_layernorm.weight": clip.visual.ln_post.weight,
        "vision_model.post_layernorm.bias": clip.visual.ln_post.bias,
        "visual_projection.weight": clip.visual.proj.T,
    }
    for tower, transformer in (("text_model", clip.transformer), ("vision_model", clip.visual.transformer)):
        for number, block in enumerate(transformer.resblocks):
            start = f"{tower}.encoder.layers.{number}."
            for kind in ("weight", "bias"):
                query, key, value = getattr(block.attn, f"in_proj_{kind}").chunk(3)
                renamed |= {
                    f"{start}self_attn.q_proj.{kind}": query,
                    f"{start}self_attn.k_proj.{kind}": key,
                    f"{start}self_attn.v_proj.{kind}": value,
                    f"{start}self_attn.out_proj.{kind}": getattr(block.attn.out_proj, kind),
                    f"{start}layer_norm1.{kind}": getattr(block.ln_1, kind),
                    f"{start}layer_norm2.{kind}": getattr(block.ln_2, kind),
                    f"{start}mlp.fc1.{kind}": getattr(block.mlp.c_fc, kind),
                    f"{start}mlp.fc2.{kind}": getattr(block.mlp.c_proj, kind),
                }
    return {name: tensor.detach().clone().contiguous() for name, tensor in renamed.items()}


@pytest.fixture
def transformers_folder(tmp_path):
    """make(clip, activation): a folder as CLIPModel.save_pretrained leaves it; `towers` changes both towers' settings."""

    def make(clip: CLIP, activation: str | None = "quick_gelu", ending: str = ".safetensors", **towers):
        own = {"hidden_act": activation} if activation else {}
        config = {
            "model_type": "clip",
            "text_config": {"num_attention_heads": 3} | own | towers,
            "vision_config": {"num_attention_heads": 2} | own | towers,
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        if ending == ".safetensors":
            save_file(as_transformers(clip), tmp_path / "model.safetensors")
        else:
            torch.save(as_transformers(clip), tmp_path / "pytorch_model.bin")
        return tmp_path

    return make


@pytest.fixture
def open_clip_folder(tmp_path):
    """make(clip, quick): a folder as open_clip publishes models; `settings` are the model's."""

    def make(clip: CLIP, quick: bool, settings: dict = SETTINGS, name: str = "open_clip_model.safetensors"):
        preprocessing = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "resize_mode": "squash", "mode": "RGB"}
        config = {"model_cfg": settings | ({"quick_gelu": True} if quick else {}), "preprocess_cfg": preprocessing}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        save = save_file if name.endswith("safetensors") else torch.save
        save(clip.state_dict(), tmp_path / name)
        return tmp_path

    return make


def rewrite(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- transformers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
@pytest.mark.parametrize(
    ("activation", "variant"), [("quick_gelu", "tiny-quickgelu"), ("gelu", "tiny"), (None, "tiny-quickgelu")]
)
def test_a_transformers_folder_gives_the_model_it_was_saved_from(transformers_folder, ending, activation, variant):
    clip = random_clip(variant)
    found = backbones.load("tiny", str(transformers_folder(clip, activation, ending)), "cpu")
    same_numbers(found, clip)
    assert "from the weights: config.json" in found.facts["activation"]


def test_preprocessing_is_that_of_the_folder(transformers_folder):
    folder = transformers_folder(random_clip())
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    found = backbones.load("tiny", str(folder), "cpu")
    assert "mean=(0.1, 0.2, 0.3)" in found.preprocessing and "bilinear" in found.preprocessing
    rewrite(folder / "preprocessor_config.json", resample=3, do_center_crop=False)
    backbones.load.cache_clear()
    found = backbones.load("tiny", str(folder), "cpu")
    assert "bicubic" in found.preprocessing and "size=(32, 32)" in found.preprocessing


def test_weights_in_several_files_are_put_together(transformers_folder):
    clip = random_clip()
    folder = transformers_folder(clip, "gelu")
    tensors = as_transformers(clip)
    parts = {f"model-0000{k}-of-00003.safetensors": dict(list(tensors.items())[k - 1 :: 3]) for k in (1, 2, 3)}
    for name, part in parts.items():
        save_file(part, folder / name)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = backbones.load("tiny", str(folder), "cpu")
    same_numbers(found, clip)
    assert sorted(found.facts["weights_files"]) == ["config.json", *parts]
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(BenchError, match="model-00002-of-00003.safetensors, which is not in the folder"):
        backbones.identity("tiny", str(folder))


def test_a_changed_setting_is_another_backbone(transformers_folder):
    folder = transformers_folder(random_clip())
    before = backbones.identity("tiny", str(folder))
    assert backbones.load("tiny", str(folder), "cpu").digest == before
    transformers_folder(random_clip(), "gelu")
    backbones.load.cache_clear()
    after = backbones.load("tiny", str(folder), "cpu")
    assert after.digest == backbones.identity("tiny", str(folder)) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "siglip"}, "a CLIPModel is wanted .*siglip"),
        ({"text_config": {"num_attention_heads": 3, "hidden_act": "gelu"}}, "hidden_act gelu and quick_gelu"),
        ({"vision_config": {"num_attention_heads": 4}}, "its number of vision heads is 4, that of tiny 2"),
        ({"text_config": {"num_attention_heads": 3, "layer_norm_eps": 1e-6}}, "text tower is 1e-06, that of tiny 1e-05"),
    ],
)
def test_settings_that_do_not_fit_the_architecture_are_refused(transformers_folder, changes, message):
    folder = transformers_folder(random_clip())
    rewrite(folder / "config.json", **changes)
    with pytest.raises(BenchError, match=message) as caught:
        backbones.load("tiny", str(folder), "cpu")
    assert str(folder) in str(caught.value)


def test_weights_of_another_size_are_refused(transformers_folder):
    folder = transformers_folder(random_clip("tiny-64"))
    with pytest.raises(BenchError, match=r"visual.positional_embedding is \(65, 32\) in the file and \(17, 32\) in tiny"):
        backbones.load("tiny", str(folder), "cpu")


def test_a_tensor_without_counterpart_and_a_lost_one_are_named(transformers_folder):
    clip = random_clip()
    folder = transformers_folder(clip)
    tensors = as_transformers(clip)
    del tensors["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    save_file({**tensors, "vision_model.strange": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(BenchError, match="resblocks.1.attn.in_proj_bias is .*vision_model.strange is not in tiny"):
        backbones.load("tiny", str(folder), "cpu")


# -- open_clip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_an_open_clip_folder_gives_the_model_it_was_saved_from(open_clip_folder, quick, file):
    clip = random_clip("tiny-quickgelu" if quick else "tiny")
    found = backbones.load("tiny", str(open_clip_folder(clip, quick, name=file)), "cpu")
    same_numbers(found, clip)
    assert found.activation == ("quick_gelu" if quick else "gelu")
    assert "mean=(0.1, 0.2, 0.3)" in found.preprocessing and "size=(32, 32)" in found.preprocessing


def test_the_number_of_heads_is_compared_since_no_shape_shows_it(open_clip_folder):
    folder = open_clip_folder(random_clip(), False)
    with pytest.raises(BenchError, match="its number of text heads is 3, that of tiny-two-heads 2"):
        backbones.load("tiny-two-heads", str(folder), "cpu")


def test_open_clip_s_files_go_before_those_of_transformers(open_clip_folder, transformers_folder):
    clip = random_clip(seed=1)
    folder = transformers_folder(random_clip(seed=2))
    open_clip_folder(clip, False)
    same_numbers(backbones.load("tiny", str(folder), "cpu"), clip)


# -- neither ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither a transformers folder"),
        ({"config.json": "{}"}, "neither a transformers folder"),
        ({"config.json": "{", "pytorch_model.bin": ""}, "not valid JSON"),
        ({"config.json": "[]", "pytorch_model.bin": ""}, "a JSON object is wanted"),
        ({"open_clip_config.json": "{}", "open_clip_model.safetensors": ""}, "no settings of a model"),
        (
            {"open_clip_config.json": '{"vision_cfg": {"wings": 2}, "text_cfg": {}}', "open_clip_model.safetensors": ""},
            "not settings of an open_clip model .*wings",
        ),
    ],
)
def test_other_folders_are_explained_in_one_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(BenchError, match=message) as caught:
        backbones.load("tiny", str(tmp_path), "cpu")
    assert "\n" not in str(caught.value)
