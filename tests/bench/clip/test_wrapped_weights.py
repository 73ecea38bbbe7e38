"""Weights as training code saves them: whatever wraps the one CLIP is taken off, what lies beside it is said, else refused."""

import io
import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from bench.clip import backbone as backbones
from bench.errors import BenchError, one_line, printable
from tests.bench.clip.tiny_architecture import random_clip, same_numbers, tiny_architecture  # noqa: F401

pytestmark = pytest.mark.usefixtures("tiny_architecture")


def under(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def segments(state: dict, name: str) -> dict:
    """A wrapper's segment inside the names, before each layer."""
    return {key.replace("resblocks.", f"resblocks.{name}."): tensor for key, tensor in state.items()}


STATE = random_clip().state_dict()
HEAD = {"head.weight": torch.zeros(10, 24), "head.bias": torch.zeros(10)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
LORA = {
    "transformer.resblocks.0.attn.lora_A.default.weight": torch.ones(4, 48),
    "visual.transformer.resblocks.1.attn.lora_B.default.weight": torch.ones(32, 4),
}

READ = {
    "plain": STATE,
    **{prefix: under(prefix, STATE) for prefix in (
        "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "clip.", "clip_model.", "module.model.",
        "student.", "net.backbone.clip.", "base_model.model.", "model.0.",
    )},
    "lightning": {"state_dict": under("model.", STATE), "epoch": 1, "hyper_parameters": {"lr": 0.1}},
    "model > state_dict": {"model": {"state_dict": STATE}},
    "state_dict > model": {"state_dict": {"model": STATE}},
    "model_state": {"model_state": STATE},
    "ema": {"ema": under("module.", STATE)},
    "in a list": {"models": [STATE]},
    "with optimizer": {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER, "epoch": 3, "rng": torch.zeros(4)},
    "with a step": {**STATE, "step": 7, "note": None},
    "fsdp": segments(under("_fsdp_wrapped_module.", STATE), "_fsdp_wrapped_module"),
    "checkpointing": {k.replace(".attn.", "._checkpoint_wrapped_module.attn."): v for k, v in STATE.items()},
    "model and equal ema": {"model": STATE, "ema": {name: tensor.clone() for name, tensor in STATE.items()}},
    "double": {name: tensor.double() for name, tensor in STATE.items()},
    "text tower of its own": {
        name if name.startswith(("visual.", "logit_")) else f"text.{name}": tensor for name, tensor in STATE.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("how", READ)
def test_one_whole_clip_is_read_however_it_is_wrapped(tmp_path, how, capsys):
    torch.save(READ[how], tmp_path / "x.pt")
    found = backbones.load("tiny", str(tmp_path / "x.pt"), "cpu")
    same_numbers(found, random_clip())
    beside = {"with optimizer": 3, "model and equal ema": len(STATE)}.get(how, 0)
    assert ("left_out" in found.facts) == bool(beside) == ("left out" in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"state_dict": {**under("model.", STATE), **HEAD}}, "2 tensors of the file are left out"),
        ({**STATE, "fc.weight": torch.zeros(10, 24)}, "1 tensor of the file is left out (fc.weight)"),
        ({**under("clip.", STATE), **under("clip.", LORA)}, "LoRA factors among them: merge them into the weights"),
        ({k.replace("out_proj.weight", "out_proj.base_layer.weight"): v for k, v in STATE.items()} | LORA, "LoRA factors"),
        ({**STATE, "visual.adapter.down.weight": torch.zeros(3)}, "(visual.adapter.down.weight)"),
    ],
    ids=["head", "head without prefix", "lora", "peft", "adapter"],
)
def test_what_lies_beside_is_left_out_and_said_in_the_manifest(tmp_path, content, names, capsys):
    torch.save(content, tmp_path / "x.pt")
    found = backbones.load("tiny", str(tmp_path / "x.pt"), "cpu")
    same_numbers(found, random_clip())
    assert names in found.facts["left_out"] and names in capsys.readouterr().err


def refused(path, match: str) -> str:
    with pytest.raises(BenchError, match=match) as error:
        backbones.load("tiny", str(path), "cpu")
    text = str(error.value)
    assert text == printable(text) and len(text) < 1000, "one line without control characters"
    return text


OTHER = random_clip(seed=4).state_dict()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"model": STATE, "ema": OTHER}, "holds 2 whole CLIPs, under 'model.' and 'ema.'; save the one that is meant alone"),
        ({**under("student.", STATE), **under("teacher.", OTHER)}, "2 whole CLIPs, under 'student.' and 'teacher.'"),
        ({k: v for k, v in STATE.items() if k.startswith("visual.")}, "an image tower alone, its text tower is missing"),
        ({k: v for k, v in STATE.items() if not k.startswith("visual.")}, "a text tower alone, its image tower is missing"),
        ({("image_" if k.startswith("visual.") else "text.x.") + k: v for k, v in STATE.items()}, "save the CLIP inside alone"),
        ({**STATE, "visual.transformer.resblocks.2.ln_1.weight": torch.zeros(32)}, "ln_1.weight is not in tiny.*--backbone"),
        ({**STATE, "visual.strange": torch.zeros(1)}, "visual.strange is not in tiny. Save the CLIP inside alone"),
        ({name: tensor.to(torch.int8) for name, tensor in STATE.items()}, "is int8, numbers of a quantised model"),
        ({**STATE, "ln_final.bias": torch.full((48,), float("nan"))}, "ln_final.bias holds values that are not finite"),
        ({**STATE, "ln_final.bias": torch.full((48,), float("inf"))}, "ln_final.bias holds values that are not finite"),
        ({"weights": {}, "epoch": 3}, "holds no tensors"),
        ({"a\x1b[31m\nb": torch.zeros(1), "c\x00": torch.zeros(1)}, r"holds no CLIP weights \(its tensors: a b, c\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_for_one_clip_says_what_it_found_and_the_way_out(tmp_path, content, match):
    torch.save(content, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", match)


class Model(torch.nn.Module):
    pass


def program() -> bytes:
    buffer = io.BytesIO()
    torch.save(Model(), buffer)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.pt", b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS; fetch the file itself"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page; the download failed"),
        (json.dumps({"weight_map": {}}).encode(), "is JSON text"),
        (b"\x1f\x8b\x08\x00" + b"x" * 30, "is a gzip archive; unpack it first"),
        (b"%PDF-1.7 ...", "is a PDF document"),
        (b"\x89HDF\r\n\x1a\n" + b"0" * 20, "is an HDF5 file"),
        (b"\x93NUMPY\x01\x00", "is a NumPy array"),
        (b"epoch 1 loss 3.2\n", "is plain text"),
        (program(), r"it holds a pickled program and not tensors alone \(it asks for \S+Model\).*save the model's state_dict"),
        (pickle.dumps({"a": 1, "b": print}), "pickled program|no weights can be read"),
        (zipped(), "no weights can be read"),
        (bytes(range(256)) * 4, "no weights can be read|pickled program"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_files_that_are_something_else_than_they_are_called_are_named(tmp_path, content, match, name):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, match)


@pytest.mark.parametrize(("kind", "name"), [("safetensors", "x.pt"), ("zip", "x.safetensors"), ("legacy", "x.safetensors")])
def test_a_right_file_under_a_wrong_name_is_read(tmp_path, kind, name):
    path = tmp_path / name
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    same_numbers(backbones.load("tiny", str(path), "cpu"), random_clip())


@pytest.mark.parametrize("kind", ["safetensors", "zip"])
def test_a_file_that_is_cut_short_is_said_so(tmp_path, kind):
    path = tmp_path / "x.pt"
    (save_file if kind == "safetensors" else torch.save)(STATE, path)
    path.write_bytes(path.read_bytes()[:-5000])
    refused(path, "no weights can be read, the file is damaged or cut short")


def test_the_prefix_of_transformers_names_points_to_their_folder(tmp_path):
    torch.save(under("clip.", {"text_model.embeddings.token_embedding.weight": torch.zeros(2, 2),
                               "vision_model.embeddings.class_embedding": torch.zeros(2)}), tmp_path / "x.pt")  # fmt: skip
    refused(tmp_path / "x.pt", "name the folder, whose config.json belongs to the weights")


def test_what_libraries_say_becomes_one_printable_line():
    assert one_line(ValueError("a\x1b[1mb\x1b[0m\x07\n\n  c\u202e\u200b")) == "ab c"
    assert one_line(KeyError()) == "KeyError" and len(one_line("word " * 500)) == 300
    assert one_line(FileNotFoundError(2, "No such file or directory", "x")) == "No such file or directory"
