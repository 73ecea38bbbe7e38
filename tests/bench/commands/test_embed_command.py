"""`bench data embed` and `bench data check FILE`: from images to a file and to a line, or to one line that says why not."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open

from bench.commands.main import main
from tests import embeddings_file as files


@pytest.fixture
def call(tmp_path, cache, monkeypatch):
    """call("data", "embed", ...) -> (exit code, standard output, standard error)"""
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


@pytest.fixture
def fruit(tmp_path):
    """A folder of images: two classes of three training and two test images."""
    draws = np.random.default_rng(0)
    for split, images in (("train", 3), ("test", 2)):
        for name in ("red_apple", "pear"):
            (tmp_path / "fruit" / split / name).mkdir(parents=True)
            for k in range(images):
                pixels = draws.integers(0, 256, (40, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "fruit" / split / name / f"{k}.png")
    return tmp_path / "fruit"


def test_a_folder_becomes_a_file_that_runs_as_the_folder_does(call, fruit, tmp_path):
    code, said, progress = call("data", "embed", "folder:fruit", "-o", "out/fruit.safetensors", "--device", "cpu")
    assert code == 0 and "2 classes, width 128, of mini with weights mini@" in said
    assert "folder:fruit: train: 6 images" in progress
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fruit.safetensors"]
    with safe_open(tmp_path / "out" / "fruit.safetensors", "np") as file:
        metadata, features, text = file.metadata(), file.get_tensor("train/features"), file.get_tensor("text/features")
    assert json.loads(metadata["class_names"]) == ["pear", "red apple"] and metadata["dataset"] == "folder:fruit"
    assert features.shape == (6, 128) and features.dtype == np.float32 and text.shape == (2, 1, 128)
    assert abs(np.linalg.norm(features, axis=1) - 1).min() > 0.01  # as the feature store has them: not normalised
    code, said, _ = call("data", "check", "out/fruit.safetensors")
    assert code == 0 and said.endswith("out/fruit.safetensors: as it should be\n")
    scores = []
    for protocol in ("folder:fruit-2x1", "embeddings:out/fruit.safetensors-2x1"):
        code, said, complaint = call("run", "--protocol", protocol, "--methods", "simplecil,zero-shot", "--device", "cpu")
        assert code == 0, complaint
        scores.append([line.split() for line in said.splitlines() if line.startswith(("simplecil ", "zero-shot "))])
    assert scores[0] == scores[1] and len(scores[0]) == 2


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("data", "embed", "mini-digit", "-o", "a.safetensors"), "did you mean mini-digits"),
        (("data", "embed", "folder:nothing", "-o", "a.safetensors"), "there is no such folder"),
        (("data", "embed", "mini-digits", "-o", "."), "a folder; name a file"),
        (("data", "embed", "mini-digits", "--backbone", "ViT-B-32", "-o", "a.safetensors"), "needs --pretrained"),
        (("data", "check", "nothing.safetensors"), "there is no such file"),
        (("data", "check", "bad.safetensors"), "train/features: row 0 holds nan or inf"),
        (("run", "--protocol", "embeddings:bad.safetensors-2x2", "--methods", "all"), "train/features: row 0 holds nan or inf"),
        (("run", "--protocol", "embeddings:own.safetensors-5x2", "--methods", "all"), "5x2 makes 10 classes, there are 4"),
        (("run", "--protocol", "embeddings:own.safetensors-2x2", "--methods", "coop"), "coop: needs CLIP itself"),
        (("run", "--protocol", "embeddings:own two.safetensors-2x2", "--methods", "all"), "rename the file"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(arguments, said, call, tmp_path):
    content = files.tensors()
    files.write(tmp_path / "own.safetensors", content), files.write(tmp_path / "own two.safetensors", content)
    content["train/features"][0, 0] = np.nan
    files.write(tmp_path / "bad.safetensors", content)
    before = sorted(tmp_path.iterdir())
    code, out, complaint = call(*arguments)
    assert (code, out) == (2, "") and said in complaint and complaint.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_is_checked_as_a_protocol_and_looked_at_before_a_run(call, tmp_path):
    content = {name: array for name, array in files.tensors().items() if name != "text/features"}
    files.write(tmp_path / "own.safetensors", content, files.metadata(templates=None, logit_scale=None))
    code, said, _ = call("check", "embeddings:own.safetensors-2x2")
    assert code == 0 and said.endswith("9 passed, 0 failed\n"), said
    code, said, _ = call("run", "--protocol", "embeddings:own.safetensors-2x2", "--methods", "simplecil", "--preflight")
    assert code == 0 and "weights\n  ok       none are needed" in said and "nothing is missing" in said


def test_a_data_set_without_images_of_a_class_leaves_no_file(call, tmp_path, monkeypatch):
    from bench.images.dataset import Dataset
    from bench.images.sources import ImageSource
    from bench.system import registry

    digits = registry.load("dataset", "mini-digits")

    def open_split(split: str, folders) -> ImageSource:
        whole = digits.open_split(split, folders)
        return whole.select(np.flatnonzero(whole.labels > 0)[:40])

    monkeypatch.setattr(registry, "load", lambda kind, name: Dataset(digits.info, open_split))
    code, _, complaint = call("data", "embed", "mini-digits", "-o", "digits.safetensors", "--device", "cpu")
    assert code == 2 and "digits.safetensors is not written: no train image of class" in complaint
    assert not list(tmp_path.iterdir())
