"""Runs on embeddings: the numbers of the run on images, for every method that can do without CLIP itself; who cannot, and why."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from bench.clip import backbone as backbones
from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.learning.stated import needs_of
from bench.results import records
from bench.runs import launch, plan
from bench.runs.assignments import Assignment, as_texts
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.runs.run import weights_label
from bench.streams import names
from bench.streams.embed import embed
from bench.system import registry
from tests import embeddings_file as files

IMAGES = "mini-digits-5x2"
OPTIONS = "+exemplars=2-per-class"
OF_THE_STREAM = ("run_id", "protocol", "protocol_version")  # columns that differ because the streams have two names


def without_clip(name: str) -> bool:
    """Does the method run on embeddings alone, with its settings on the mini world?"""
    method = registry.load("method", name)
    return "towers" not in needs_of(method, method.settings_for(IMAGES))


METHODS = [name for name in registry.names("method") if without_clip(name)]


@pytest.fixture(scope="module")
def folders(cache):
    return Folders(cache / "no-data", cache)


@pytest.fixture(scope="module")
def digits(folders, tmp_path_factory):
    """The embeddings of a data set of the mini world."""
    out = tmp_path_factory.mktemp("embeddings") / "digits.safetensors"
    label = weights_label("mini", None, backbones.identity("mini", None))
    return embed(registry.load("dataset", "mini-digits"), backbones.load("mini", None, "cpu"), label, folders, out).path


def runs_of(protocol: str, methods: tuple[str, ...], folders, out, **more):
    """The plan of a short run of each method, and what a user is told."""
    changes = []
    for name in registry.names("method") if methods == ("all",) else methods:
        method = registry.load("method", name)
        changes += [Assignment(name, *pair, "quick") for pair in as_texts(method.Settings, method.quick).items()]
    given = {"set": tuple(changes) if methods != ("all",) else (), "limit_train": 4, "limit_test": 3, **more}
    request = Request((protocol,), methods, device="cpu", precision="float32", out=out, **given)
    with Facts(folders, here=True) as facts:
        return plan.build(request, facts)


def carried_out(protocol: str, method: str, folders, out):
    (run,), _ = runs_of(protocol, (method,), folders, out)
    outcome = launch.carry_out(run, folders, lambda run, moment: None)
    assert not outcome.reason
    table = records.read_csv(run.files.records).drop(columns=list(OF_THE_STREAM))
    return run, table, load_file(run.files.samples)


def test_about_fifteen_methods_run_on_embeddings():
    assert len(METHODS) >= 14
    assert {"simplecil", "ranpac", "rail-primal", "zero-shot", "proof", "clap", "bofa", "linear-probe"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_give_the_records_of_the_images(method, digits, folders, tmp_path):
    """Bit for bit, the probability and the entropy of every test image included."""
    _, wanted, samples = carried_out(IMAGES + OPTIONS, method, folders, tmp_path / "images")
    _, found, own = carried_out(f"embeddings:{digits}-5x2{OPTIONS}", method, folders, tmp_path / "embeddings")
    assert len(wanted) and found.equals(wanted)
    assert own.keys() == samples.keys() and all(torch.equal(own[name], samples[name]) for name in samples)


def test_all_leaves_out_by_name_who_needs_clip_itself(digits, folders, tmp_path):
    runs, notes = runs_of(f"embeddings:{digits}-5x2", ("all",), folders, tmp_path)
    assert [run.method for run in runs] == ["zero-shot", *(name for name in METHODS if name != "zero-shot")]
    (line,) = [note for note in notes if note.startswith("left out on embeddings:digits-5x2")]
    assert "coop, " in line and "zscl-star: need CLIP itself: pixels, other texts, or gradients through a tower" in line
    left_out = line.split(": ")[1].split(", ")
    assert sorted([*left_out, *METHODS]) == registry.names("method")


def test_who_was_named_and_cannot_run_is_an_error_before_anything_runs(digits, folders, tmp_path):
    with pytest.raises(BenchError, match="finetune, coop: need CLIP itself.*has embeddings alone"):
        runs_of(f"embeddings:{digits}-5x2", ("zero-shot", "finetune", "coop"), folders, tmp_path)
    assert not any(tmp_path.iterdir())


def test_without_text_class_means_run_on_what_there_is(folders, tmp_path):
    content = {name: array for name, array in files.tensors().items() if name != "text/features"}
    path = files.write(tmp_path / "own.safetensors", content, files.metadata(templates=None, logit_scale=None))
    runs, notes = runs_of(f"embeddings:{path}-2x2", ("all",), folders, tmp_path)
    assert {run.method: run.overrides for run in runs} == {
        "linear-probe": "", "ranpac": "feature=projected", "simplecil": "feature=projected",
    }  # fmt: skip
    said = "\n".join(notes)
    assert "simplecil runs with feature=projected on embeddings:own-2x2: otherwise it needs image features before" in said
    assert "zero-shot" in said and "rail-primal" in said and "text embeddings (text/features)" in said
    with pytest.raises(BenchError, match=r"zero-shot: needs text embeddings \(text/features\)"):
        runs_of(f"embeddings:{path}-2x2", ("simplecil", "zero-shot"), folders, tmp_path)
    pooled = (Assignment("simplecil", "feature", "pooled", "--set"),)
    with pytest.raises(BenchError, match="simplecil: needs image features before the projection"):
        runs_of(f"embeddings:{path}-2x2", ("simplecil",), folders, tmp_path, set=pooled)


def test_class_means_agree_with_an_independent_computation(folders, tmp_path):
    """The nearest class mean by cosine, in numpy."""
    import numpy as np

    content, path = files.tensors(), files.write(tmp_path / "own.safetensors")
    whole = {"limit_train": None, "limit_test": None}
    (run,), _ = runs_of(f"embeddings:{path}-2x2+order=natural", ("simplecil",), folders, tmp_path, **whole)
    assert not launch.carry_out(run, folders, lambda run, moment: None).reason
    means = np.stack([content["train/features"][content["train/labels"] == k].mean(axis=0) for k in range(4)])
    tests = content["test/features"] / np.linalg.norm(content["test/features"], axis=1, keepdims=True)
    predicted = (tests @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(axis=1)
    own = load_file(run.files.samples)
    assert torch.cat([own["prediction/1/0/seen"], own["prediction/1/1/seen"]]).tolist() == predicted.tolist()


def test_a_run_is_the_content_of_its_file_and_not_its_place(folders, tmp_path):
    def run_on(path, text: bool = True, **said):
        content = {name: array for name, array in files.tensors().items() if text or name != "text/features"}
        files.write(path, content, files.metadata(**said))
        return runs_of(f"embeddings:{path}-2x2", ("simplecil",), folders, tmp_path / "out")[0][0]

    here = run_on(tmp_path / "a" / "own.safetensors")
    assert (here.protocol, here.backbone, here.weights_label) == ("embeddings:own-2x2", "ViT-B-32", "openai")
    assert run_on(tmp_path / "b" / "own.safetensors").run_id == here.run_id
    others = [run_on(tmp_path / "c" / "own.safetensors", weights="laion2b")]
    others += [run_on(tmp_path / "d" / "own.safetensors", text=False)]
    assert len({here.run_id, *(other.run_id for other in others)}) == 3
    assert dataclasses.replace(here, given="").images == here.images != others[1].images


@pytest.mark.parametrize(
    "options, said",
    [
        ({"backbone": "ViT-L-14"}, "of ViT-B-32 with weights openai, not of ViT-L-14; leave --backbone"),
        ({"backbone": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}, "not of ViT-B-32 laion2b_s34b_b79k"),
        ({"data": "synthetic"}, "no images that stand-ins could take the place of"),
    ],
)
def test_conditions_that_the_file_decides(options, said, folders, tmp_path):
    path = files.write(tmp_path / "own.safetensors")
    with pytest.raises(BenchError, match=said):
        runs_of(f"embeddings:{path}-2x2", ("simplecil",), folders, tmp_path, **options)
    same = {"backbone": "ViT-B-32", "pretrained": "openai"}
    assert runs_of(f"embeddings:{path}-2x2", ("simplecil",), folders, tmp_path, **same)[0][0].weights == "ViT-B-32:openai"


@pytest.mark.parametrize(
    "shape, said",
    [("3x2", "3x2 makes 6 classes, there are 4"), ("", "write embeddings:FILE.safetensors-5x4"), ("b1-2x1", "did you mean")],
)
def test_shapes_that_do_not_fit(shape, said, tmp_path):
    path = files.write(tmp_path / "own.safetensors")
    with pytest.raises(BenchError, match=said):
        names.find(f"embeddings:{path}-{shape}".rstrip("-"))
