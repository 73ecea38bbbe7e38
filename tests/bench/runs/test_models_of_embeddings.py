"""A kept model of a run on embeddings: it needs no file but its own, and scores embeddings as the run's evaluation did."""


import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.commands.predict import predicted
from bench.errors import BenchError
from bench.images.folders import Folders
from bench.results.run_folder import MODEL
from bench.runs import launch, learning_on, sealed_file, trained_model
from bench.runs.assignments import Assignment, as_texts
from bench.runs.facts import Facts
from bench.runs.plan import build
from bench.runs.request import Request
from bench.system import registry
from tests import embeddings_file as files

METHODS = ("simplecil", "ranpac", "zero-shot", "rail-primal", "bofa", "proof", "clap")


def pooled_tensors() -> dict[str, np.ndarray]:
    """With all that a file may hold."""
    draws, found = np.random.default_rng(1), files.tensors()
    projection = draws.normal(size=(8, files.WIDTH)).astype("float32")
    found["image/projection"] = projection
    for split in ("train", "test"):
        found[f"{split}/pooled"] = (found[f"{split}/features"] @ np.linalg.pinv(projection)).astype("float32")
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory, cache):
    """From a method to the folder of its run, whose embeddings are gone."""
    place = tmp_path_factory.mktemp("embeddings")
    path = files.write(place / "fruit.safetensors", pooled_tensors())
    folders = Folders(cache / "no-data", cache)
    def changes(name: str):
        method = registry.load("method", name)
        return [Assignment(name, *pair, "quick") for pair in as_texts(method.Settings, method.quick).items()]

    request = Request(
        (f"embeddings:{path}-2x2",), METHODS, device="cpu", precision="float32", out=place / "out", keep_model=True,
        set=tuple(change for name in METHODS for change in changes(name)),
    )  # fmt: skip
    with Facts(folders, here=True) as facts:
        runs, _ = build(request, facts)
    for run in runs:
        assert not launch.carry_out(run, folders, lambda run, moment: None).reason
    path.unlink()
    return {run.method: run.folder for run in runs}


@pytest.mark.parametrize("method", METHODS)
def test_it_scores_the_test_embeddings_as_the_run_did(method, kept, tmp_path):
    model, stored = trained_model.load(kept[method]), load_file(kept[method] / "samples.safetensors")
    content, names = pooled_tensors(), ("apple", "pear", "plum", "fig")
    which = "pooled" if model._method.inputs == "pooled" else "features"
    labels = [names.index(name) for name in model.class_names]
    rows = np.concatenate([np.flatnonzero(np.isin(content["test/labels"], labels[2 * task : 2 * task + 2])) for task in range(2)])
    given, tasks = content[f"test/{which}"][rows], [0] * 6 + [1] * 6
    found = [model.class_names.index(name) for name in model.predict(given, tasks=tasks)]
    wanted = torch.cat([stored["prediction/1/0/seen"], stored["prediction/1/1/seen"]])
    assert found == wanted.tolist()
    scores = model.scores(torch.from_numpy(given), tasks=tasks)
    assert torch.equal(scores.logsumexp(dim=-1), torch.cat([stored["energy/1/0/seen"], stored["energy/1/1/seen"]]))


def test_files_of_embeddings_are_read(kept, tmp_path, cache):
    np.save(tmp_path / "new.npy", files.tensors()["test/features"])
    files.write(tmp_path / "new.safetensors")
    run = kept["zero-shot"]
    model = trained_model.load(run)
    one, other = model.scores(tmp_path / "new.npy"), model.scores(str(tmp_path / "new.safetensors"))
    assert torch.equal(one, other) and one.shape == (12, 4)
    options, new = ("seen", 1, "csv", None, Folders(cache, cache)), tmp_path / "new.npy"
    lines = predicted(run, [new], *options).splitlines()
    assert len(lines) == 13 and lines[1].startswith(f"{new}:0,1,")
    (tmp_path / "photo.png").touch()
    for given in ([tmp_path / "photo.png"], [new, tmp_path / "photo.png"]):
        with pytest.raises(BenchError, match="trained on embeddings and cannot encode images"):
            predicted(run, given, *options)


def bad(change) -> np.ndarray:
    array = files.tensors()["test/features"]
    change(array)
    return array


@pytest.mark.parametrize(
    "given, said",
    [
        ("photo.png", "photo.png: the model was trained on embeddings and cannot encode images; give FILE.npy or"),
        (["photo.png"], r"give embeddings \(n, 6\) float32, as train/features of fruit.safetensors, by ViT-B-32 with weights"),
        (np.zeros((32, 32, 3), "uint8"), "cannot encode images"),
        (np.ones((2, 7), "float32"), r"embeddings of shape \(2, 7\): wanted are \(n, 6\)"),
        (bad(lambda array: array.__setitem__((3, 1), np.nan)), "row 3 holds nan or inf, or zeros alone"),
        (bad(lambda array: array.__setitem__(5, 0)), "row 5 holds nan"),
        ("missing.npy", "no such file"),
    ],
)
def test_what_is_no_embedding_is_one_line(given, said, kept):
    with pytest.raises(BenchError, match=said) as error:
        trained_model.load(kept["zero-shot"]).predict(given)
    assert "\n" not in str(error.value)


def test_files_that_hold_none_are_one_line(kept, tmp_path):
    model = trained_model.load(kept["zero-shot"])
    (tmp_path / "junk.npy").write_text("junk")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "junk.safetensors").write_text("junk")
    for name in ("junk.npy", "objects.npy", "junk.safetensors"):
        with pytest.raises(BenchError, match=name) as error:
            model.predict(tmp_path / name)
        assert "\n" not in str(error.value)


def test_what_such_a_model_cannot_do_is_one_line(kept, tmp_path, cache):
    zero_shot = trained_model.load(kept["zero-shot"])
    with pytest.raises(BenchError, match="the embedding of the text 'a photo of a zebra.' and 1 more is wanted"):
        zero_shot.scores(files.tensors()["test/features"], ["apple", "zebra"])
    with pytest.raises(BenchError, match="takes them as they are"):
        zero_shot.preprocess("photo.png")
    with pytest.raises(BenchError, match="was trained on embeddings and cannot encode images"):
        learning_on.learn(kept["simplecil"], tmp_path, tmp_path / "new", None, Folders(cache, cache))


def test_whatever_is_wrong_with_a_file_is_one_line(kept, tmp_path):
    """Cut or changed at any place; or whole, and written by a program that means other things by its facts."""
    whole, file = (kept["simplecil"] / MODEL).read_bytes(), tmp_path / MODEL
    places = random.Random(0)
    broken = [whole[:length] for length in (0, 1, 7, 8, 9, 500, len(whole) - 1)] + [whole + b"x", b"\xff" * 100, bytes(100)]
    for place in [*range(24), *places.sample(range(len(whole)), 100)]:
        broken.append(whole[:place] + bytes([whole[place] ^ 1 << places.randrange(8)]) + whole[place + 1 :])
    facts, state = sealed_file.from_bytes(whole)
    for name, others in {"run": facts["run"], "scenario": facts["scenario"], "embeddings": facts["embeddings"]}.items():
        broken += [sealed_file.to_bytes(state, {**facts, name: other}) for other in (None, 3, "x", [], {})]
        broken += [sealed_file.to_bytes(state, {**facts, name: {**others, "not known": 1}})] if name != "embeddings" else []
    for name in ("given", "method_from", "settings"):
        broken.append(sealed_file.to_bytes(state, {**facts, "run": {**facts["run"], name: 3}}))
    broken += [sealed_file.to_bytes(dict(list(state.items())[1:]), facts)]
    for data in broken:
        file.write_bytes(data)
        with pytest.raises(BenchError) as error:
            trained_model.load(file)
        assert "\n" not in str(error.value) and len(str(error.value)) < 500
    file.unlink()
    with pytest.raises(BenchError, match="no kept model there; repeat its bench run with --keep-model"):
        trained_model.load(tmp_path)
