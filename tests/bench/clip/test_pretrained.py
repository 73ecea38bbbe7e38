"""What --pretrained can name, the activation that weights need, digests, and what is said when something is wrong."""

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from bench.clip import backbone as backbones
from bench.clip import loading
from bench.errors import BenchError
from bench.images.sources import ImageSource
from bench.streams.features import FeatureStore
from tests.bench.clip.tiny_architecture import VARIANTS, random_clip, same_numbers, tiny_architecture  # noqa: F401

pytestmark = pytest.mark.usefixtures("tiny_architecture")


def is_quick(backbone) -> bool:
    """Whether every activation of both towers is QuickGELU (True) or none (False)."""
    blocks = [*backbone.clip.visual.transformer.resblocks, *backbone.clip.transformer.resblocks]
    kinds = {isinstance(block.mlp.gelu, QuickGELU) for block in blocks}
    assert len(kinds) == 1
    return kinds.pop()


@pytest.fixture
def tag(monkeypatch, tmp_path):
    """tag(name, **settings): a pretrained tag "mine" of an architecture, whose file is on this machine."""

    def add(name: str, **settings):
        path = tmp_path / "downloaded.pt"
        torch.save(random_clip().state_dict(), path)
        settings = {"file": str(path), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear"} | settings
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"mine": settings})
        return path

    return add


# -- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".safetensors"])
def test_a_state_dict_loads_whatever_the_format(tmp_path, ending):
    clip, path = random_clip(), tmp_path / f"weights{ending}"
    save = save_file if ending == ".safetensors" else torch.save
    save(clip.state_dict(), path)
    found = backbones.load("tiny", str(path), "cpu")
    same_numbers(found, clip)
    assert found.digest == backbones.file_digest(path) == backbones.identity("tiny", str(path))
    assert found.facts["weights_files"] == {path.name: found.digest}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_training_checkpoint_loads(tmp_path, prefix):
    clip, path = random_clip(), tmp_path / "epoch_5.pt"
    state = {prefix + name: tensor for name, tensor in clip.state_dict().items()}
    torch.save({"epoch": 5, "name": "a run", "state_dict": state, "optimizer": {"lr": 0.1}}, path)
    same_numbers(backbones.load("tiny", str(path), "cpu"), clip)


def test_half_precision_weights_become_float32(tmp_path):
    clip, path = random_clip().half(), tmp_path / "half.pt"
    torch.save(clip.state_dict(), path)
    found = backbones.load("tiny", str(path), "cpu")
    assert all(parameter.dtype == torch.float32 for parameter in found.clip.parameters())
    same_numbers(found, clip.float())


def test_buffers_of_older_files_and_a_logit_scale_in_brackets_do_no_harm(tmp_path):
    clip, path = random_clip(), tmp_path / "old.pt"
    torch.save({**clip.state_dict(), "attn_mask": clip.attn_mask, "logit_scale": clip.logit_scale.detach()[None]}, path)
    same_numbers(backbones.load("tiny", str(path), "cpu"), clip)


def test_a_residual_network_without_step_counters_loads_and_gives_features(tmp_path):
    clip, path = random_clip("tiny-resnet"), tmp_path / "resnet.pt"
    torch.save({name: tensor for name, tensor in clip.state_dict().items() if "num_batches" not in name}, path)
    found = backbones.load("tiny-resnet", str(path), "cpu")
    same_numbers(found, clip)
    source = ImageSource.from_arrays(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8), np.arange(3))
    store = FeatureStore(found, tmp_path)
    assert store.features(source).shape == (3, 24)
    with pytest.raises(BenchError, match="needs a vision transformer"):
        store.features(source, layer="pooled")


def test_a_text_tower_of_its_own_kind_loads_as_plain_clip(tmp_path):
    settings = {key: value for key, value in VARIANTS["tiny-custom-text"].items() if key != "custom_text"}
    torch.manual_seed(5)
    clip, path = open_clip.CustomTextCLIP(**settings).eval(), tmp_path / "custom.pt"
    torch.save(clip.state_dict(), path)
    same_numbers(backbones.load("tiny-custom-text", str(path), "cpu"), clip)


def test_weights_with_a_random_seed_are_the_same_every_time():
    backbones.load.cache_clear()
    first = backbones.load("tiny", "none", "cpu")
    backbones.load.cache_clear()
    torch.manual_seed(77)
    again = backbones.load("tiny", "none", "cpu")
    assert first is not again and first.digest == again.digest
    quick = backbones.load("tiny-quickgelu", "none", "cpu")  # the same numbers put to another use: other features
    assert quick.digest == first.digest and quick.arithmetic != first.arithmetic


def test_loading_leaves_torch_s_random_numbers_alone():
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    backbones.load.cache_clear()
    backbones.load("tiny", "none", "cpu")
    assert torch.equal(torch.rand(3), wanted)


# -- tags -------------------------------------------------------------------------------------------------------


def test_a_tag_brings_its_weights_its_preprocessing_and_the_digest_of_its_file(tag):
    path = tag("tiny")
    found = backbones.load("tiny", "mine", "cpu")
    same_numbers(found, random_clip())
    assert backbones.identity("tiny", "mine") == "tiny:mine"
    assert found.digest == backbones.file_digest(path)
    assert "mean=(0.1, 0.2, 0.3)" in found.preprocessing and "bilinear" in found.preprocessing
    assert found.facts["preprocessing"] == found.preprocessing


def test_a_tag_goes_before_a_file_of_its_name_unless_a_path_is_given(tag, tmp_path, monkeypatch):
    tag("tiny")
    monkeypatch.chdir(tmp_path)
    clip = random_clip(seed=9)
    torch.save(clip.state_dict(), tmp_path / "mine")
    assert backbones.identity("tiny", "mine") == "tiny:mine"
    same_numbers(backbones.load("tiny", "./mine", "cpu"), clip)


def test_weights_that_cannot_be_downloaded_are_named_in_one_line(tag, monkeypatch):
    tag("tiny").unlink()
    monkeypatch.delenv("BENCH_OFFLINE", raising=False)

    def unreachable(*_, **__):
        raise OSError("We couldn't connect to the hub.\nCheck your connection.")

    monkeypatch.setattr(open_clip, "download_pretrained", unreachable)
    backbones.load.cache_clear()
    with pytest.raises(BenchError, match="mine of tiny are not on this machine .*We couldn't .*--pretrained") as caught:
        backbones.load("tiny", "mine", "cpu")
    assert "\n" not in str(caught.value)


# -- the activation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "tiny-quickgelu"])
@pytest.mark.parametrize("quick", [True, False])
def test_a_tag_decides_on_the_activation(tag, name, quick):
    tag(name, quick_gelu=quick)
    backbones.load.cache_clear()
    found = backbones.load(name, "mine", "cpu")
    assert is_quick(found) == quick
    assert found.activation == ("quick_gelu" if quick else "gelu")
    assert "from the weights: tag mine" in found.facts["activation"]
    assert ("by itself has" in found.facts["activation"]) == (quick != (name == "tiny-quickgelu"))


@pytest.mark.parametrize("name", ["tiny", "tiny-quickgelu"])
def test_for_a_file_of_unknown_origin_the_name_decides_and_the_results_say_so(tmp_path, name):
    path = tmp_path / "weights.pt"
    torch.save(random_clip().state_dict(), path)
    found = backbones.load(name, str(path), "cpu")
    assert is_quick(found) == (name == "tiny-quickgelu")
    assert found.facts["activation"].startswith(f"{found.activation} (assumed from the name {name}")
    same_numbers(found, random_clip(name))


def test_what_only_openai_s_archives_hold_asks_for_quick_gelu(tmp_path):
    path, clip = tmp_path / "ViT-tiny.pt", random_clip("tiny-quickgelu")
    facts = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}
    torch.save({**clip.state_dict(), **facts}, path)
    found = backbones.load("tiny", str(path), "cpu")
    assert is_quick(found) and "OpenAI's archive; tiny by itself has gelu" in found.facts["activation"]
    same_numbers(found, clip)


@pytest.mark.parametrize("url", ["https://x/openaipublic/{whole}/ViT.pt", "https://x/mlfoundations/vit-quickgelu-{start}.pt"])
def test_a_published_file_is_recognised_by_its_digest(tmp_path, monkeypatch, url):
    path = tmp_path / "renamed.pt"
    torch.save(random_clip().state_dict(), path)
    digest = backbones.file_digest(path)
    published = {"url": url.format(whole=digest, start=digest[:8]), "quick_gelu": True, "mean": (0.5, 0.5, 0.5)}
    tags = {"other": {"url": "https://x/a-00000000.pt"}, "known": published}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", tags)
    found = backbones.load("tiny", str(path), "cpu")
    assert is_quick(found) and "the file of tag known" in found.facts["activation"]
    assert "mean=(0.5, 0.5, 0.5)" in found.preprocessing


def test_every_tag_of_openai_asks_for_quick_gelu_and_can_be_recognised():
    for name in open_clip.list_pretrained_models_by_tag("openai"):
        settings = open_clip.get_pretrained_cfg(name, "openai")
        digest = settings["url"].split("/")[-2]
        assert settings["quick_gelu"] and len(digest) == 64
        assert loading._recognised(name, digest)[0] == "openai"


# -- what goes wrong --------------------------------------------------------------------------------------------


def broken(tmp_path, what: str) -> str:
    """The path of a file that cannot be used."""
    state, path = random_clip().state_dict(), tmp_path / "weights.pt"
    if what == "empty":
        path.write_bytes(b"")
    elif what == "text":
        path.write_text("<html>not found</html>")
    elif what.startswith("cut"):
        path = path.with_suffix(what.removeprefix("cut "))
        (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
        path.write_bytes(path.read_bytes()[:-5000])
    elif what == "a number":
        torch.save(7, path)
    elif what == "other tensors":
        torch.save({"fc.weight": torch.zeros(3, 3)}, path)
    elif what == "one too few":
        torch.save({name: tensor for name, tensor in state.items() if name != "ln_final.bias"}, path)
    elif what == "one too many":
        torch.save({**state, "visual.extra": torch.zeros(1)}, path)
    elif what == "another image size":
        torch.save(random_clip("tiny-64").state_dict(), path)
    return str(path)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty", "is an empty file, no weights"),
        ("text", "is a web page; the download failed, fetch the file again"),
        ("cut .pt", "no weights can be read"),
        ("cut .safetensors", "no weights can be read"),
        ("a number", "holds no tensors"),
        ("other tensors", "holds no CLIP weights"),
        ("one too few", "does not fit tiny: ln_final.bias is not in the file"),
        ("one too many", "does not fit tiny: visual.extra is not in tiny"),
        (
            "another image size",
            r"visual.positional_embedding is \(65, 32\) in the file and \(17, 32\) in tiny.*--backbone",
        ),
    ],
)
def test_unusable_files_are_explained_in_one_line(tmp_path, what, message):
    path = broken(tmp_path, what)
    with pytest.raises(BenchError, match=message) as caught:
        backbones.load("tiny", path, "cpu")
    assert path in str(caught.value) and "\n" not in str(caught.value)


class Intruder:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, legacy):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"state_dict": Intruder(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BenchError, match="refused"):
        backbones.load("tiny", str(path), "cpu")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("tiny", None, "needs --pretrained"),
        ("tiny", "weights/absent.pt", "no such file or folder"),
        ("tiny-both-ways", "none", "cannot be a backbone: its text tower reads all tokens"),
        ("coca_ViT-B-32", "none", "cannot be a backbone: its text tower is part of a captioner"),
        ("roberta-ViT-B-32", "none", "is roberta-base, not CLIP's own"),
        ("ViT-B-16-SigLIP", "webli", "has another tokenizer"),
        ("mini", "absent.safetensors", "weights file is missing"),
    ],
)
def test_names_are_checked_before_anything_is_loaded(name, weights, message):
    for ask in (backbones.identity, lambda *names: backbones.load(*names, "cpu")):
        with pytest.raises(BenchError, match=message):
            ask(name, weights)


def test_a_file_of_a_transformers_folder_is_not_taken_without_its_settings(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"text_model.embeddings.token_embedding.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(BenchError, match="name the folder"):
        backbones.load("tiny", str(path), "cpu")


# -- what results record ----------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_manifest_records_activation_precision_preprocessing_and_files(bench, tmp_path):
    found = bench("run", "--protocol", "mini60-6x10", "--methods", "zero-shot", "--limit-train", "1", "--limit-test", "1")
    assert found.returncode == 0, found.stderr
    manifest = json.loads(next((tmp_path / "results").rglob("manifest.json")).read_text())
    facts = manifest["backbone"]
    assert facts["activation"] == "gelu (as mini has it)" and facts["precision"] == "float32"
    assert facts["weights_files"] == {"mini-clip.safetensors": manifest["weights_digest"]}
    assert "Normalize" in facts["preprocessing"]
