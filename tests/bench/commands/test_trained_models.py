"""bench run --keep-model, bench predict, bench learn and bench.load, in processes of their own, on images in folders."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from bench.images.dataset import Folders
from bench.runs import kept_model, trained_model
from bench.streams import names, sources

METHODS = ("simplecil", "coop")
FEW = ("--set", "coop.epochs=1", "--keep-model")


@pytest.fixture(scope="module")
def world(tmp_path_factory, cache):
    """The mini world as PNG files: `seven` has 14 classes for seven tasks, `six` those of the first six, `seventh` the others."""
    root = tmp_path_factory.mktemp("world")
    mini = names.find("mini60-6x10")
    known = mini.dataset("mini60").info.class_names
    chosen = sorted(range(60), key=lambda label: known[label])[:14]
    for split, limit in (("train", 3), ("test", 2)):
        source = sources.images(mini, "mini60", split, Folders(cache / "no-data", cache), limit)
        for place, label in enumerate(chosen):
            for row in np.flatnonzero(source.labels == label):
                picture = Image.fromarray(np.asarray(source.read(np.array([row]))[0]))
                for folder in ("seven", "six" if place < 12 else "seventh"):
                    file = root / folder / split / known[label] / f"{row}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    picture.save(file)
    return root


@pytest.fixture(scope="module")
def results(world, cache, forked, tmp_path_factory):
    """Runs over the first six tasks."""
    out = tmp_path_factory.mktemp("kept") / "results"
    protocol = f"folder:{world / 'six'}-6x2+order=natural"
    command = ["run", "--protocol", protocol, "--methods", ",".join(METHODS), *FEW, "--out", str(out)]
    found = forked.run(command, world, os.environ | {"BENCH_CACHE": str(cache)}, 600)
    assert found.returncode == 0, found.stderr
    return out


@pytest.fixture
def kept(results, tmp_path):
    """From a method to the folder of its run, a copy in the test's own folder."""
    shutil.copytree(results, tmp_path / "results")
    return {method: next(tmp_path.glob(f"results/*/{method}/*")) for method in METHODS}


def test_predict_equals_the_evaluation_and_learning_on_equals_one_run(kept, bench, world, tmp_path):
    run = kept["simplecil"]
    stored = load_file(run / "samples.safetensors")
    found = bench("predict", run, world / "six" / "test", "--format", "csv", "--top", "1")
    assert found.returncode == 0, found.stderr
    predicted = [row["class"] for row in csv.DictReader(io.StringIO(found.stdout))]
    model = trained_model.load(run)
    wanted = np.concatenate([stored[f"prediction/5/{task}/seen"] for task in range(6)])  # folders and tasks are both in order
    assert predicted == [model.class_names[k] for k in wanted] and len(predicted) == 24

    learned = bench("learn", run, "--task", world / "seventh", "-o", "new")
    assert learned.returncode == 0 and "2 classes, 6 images" in learned.stdout, learned.stderr
    seven = f"folder:{world / 'seven'}-7x2+order=natural"
    whole = bench("run", "--protocol", seven, "--methods", "simplecil", "--keep-model", "--out", "all")
    assert whole.returncode == 0, whole.stderr
    one, other = kept_model.read(tmp_path / "new"), kept_model.read(tmp_path / "all")
    assert one.scenario == other.scenario and one.state.keys() == other.state.keys()
    assert all((one.state[name] == other.state[name]).all() for name in one.state)
    answers = [bench("predict", place, world / "seven" / "test", "--format", "json").stdout for place in ("new", "all")]
    assert answers[0] == answers[1] and len(json.loads(answers[0])) == 28
    assert json.loads((tmp_path / "new" / "learned.json").read_text())["classes"] == 2

    again = bench("learn", run, "--task", world / "seventh", "-o", "new")
    assert again.returncode == 2 and "something already" in again.stderr
    known = bench("learn", "new", "--task", world / "seventh", "-o", "newer")
    assert known.returncode == 2 and "a task brings new ones" in known.stderr and not (tmp_path / "newer").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["coop", "ranpac"])
def test_a_method_that_draws_goes_on_as_one_run_over_the_whole_stream(method, bench, world, tmp_path):
    """`+tasks=6` is the whole stream up to there, under the names that its draws have; learning the seventh goes on with them."""
    seven = f"folder:{world / 'seven'}-7x2+order=natural"
    short = ("--methods", method, "--set", "coop.epochs=1" if method == "coop" else "ranpac.projection=64", "--keep-model")
    for place, protocol in (("first", f"{seven}+tasks=6"), ("whole", seven)):
        assert (found := bench("run", "--protocol", protocol, *short, "--out", place)).returncode == 0, found.stderr
    learned = bench("learn", "first", "--task", world / "seventh", "-o", "new")
    assert learned.returncode == 0, learned.stderr
    one, other = kept_model.read(tmp_path / "new"), kept_model.read(tmp_path / "whole")
    assert one.scenario == other.scenario and one.state.keys() == other.state.keys()
    assert all((one.state[name] == other.state[name]).all() for name in one.state)


@pytest.mark.thorough
def test_names_that_were_never_learned(kept, bench, world):
    image = next((world / "seventh" / "test").rglob("*.png"))
    found = bench("predict", kept["coop"], image, "--classes", 'zebra crossing, "cup, broken",bird', "--top", "9")
    assert found.returncode == 0 and all(name in found.stdout for name in ("zebra crossing", "cup, broken", "bird")), found.stderr
    twice = bench("predict", kept["coop"], image, image, "--top", "1").stdout.splitlines()
    assert len(twice) == 2 and twice[0] == twice[1]
    refused = bench("predict", kept["simplecil"], image, "--classes", "zebra")
    assert refused.returncode == 2 and "only classes that it has learned" in refused.stderr


def test_bad_input_is_one_line(kept, bench, world, tmp_path):
    run, image = kept["simplecil"], next((world / "six" / "test").rglob("*.png"))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    for arguments in (
        ("predict", run, "text.png"),
        ("predict", run, "missing.png"),
        ("predict", run, "empty"),
        ("predict", run, image, "--classes", ","),
        ("predict", run, image, "--classes", "cat\ndog"),
        ("predict", "results", image),  # two models
        ("predict", "empty", image),
        ("learn", run, "--task", "empty", "-o", "x"),
        ("learn", run, "--task", world / "seventh", "-o", "text.png/new"),
    ):
        found = bench(*arguments)
        assert found.returncode == 2 and not found.stdout, arguments
        assert len(found.stderr.strip().splitlines()) == 1, found.stderr


@pytest.mark.thorough
def test_a_run_without_its_model_is_carried_out_again(bench, tmp_path):
    arguments = ("run", "--protocol", "mini60-6x10", "--limit-train", "2", "--limit-test", "1", "--methods", "simplecil")
    assert bench(*arguments).returncode == 0
    run = next(tmp_path.glob("results/*/*/*"))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    again = bench(*arguments, "--keep-model")
    assert "runs again for its model" in again.stdout and "must come out equal" in again.stderr, again.stderr
    after = {path.name: path.read_bytes() for path in run.iterdir()}
    assert before.items() <= after.items() and after.keys() - before.keys() == {"model.safetensors"}
    (run / "model.safetensors").unlink()
    (run / "records.csv").write_bytes(before["records.csv"].replace(b"accuracy", b"accuracy ", 1))
    other = bench(*arguments, "--keep-model")
    assert other.returncode == 1 and "has other results" in other.stderr and not (run / "model.safetensors").exists()
    study = tmp_path / "study.toml"
    few = 'protocols = "mini60-6x10"\nmethods = "zero-shot"\nlimit_train = 1\nlimit_test = 1\n'
    study.write_text(few + 'keep_model = true\nout = "s"')
    assert bench("run", "--study", study).returncode == 0 and list(tmp_path.glob("s/*/*/*/model.safetensors"))
    study.write_text(study.read_text().replace("true", '"yes"'))
    assert "true or false is wanted" in bench("run", "--study", study).stderr


def test_damaged_files_and_other_versions(kept, bench, tmp_path, monkeypatch):
    file = kept["simplecil"] / "model.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:1000], whole[:-1], whole[:-9] + b"x" + whole[-8:], b"", b"junk"):
        file.write_bytes(damaged)
        with pytest.raises(trained_model.BenchError, match=r"^\S*model.safetensors: it(s checksum| is cut)[^\n]*$"):
            trained_model.load(file)
    assert "model.safetensors" in bench("doctor", "results").stdout
    file.write_bytes(whole)
    model = kept_model.read(file)
    shutil.rmtree(tmp_path / "results")

    def rewritten(**changes):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(kept_model.replace(model, **changes).to_bytes())
        return file

    with pytest.raises(trained_model.BenchError, match="does not fit the method"):  # a tensor is missing
        trained_model.load(rewritten(state=dict(list(model.state.items())[1:])))
    with pytest.raises(trained_model.BenchError, match="version 0 of the method, version 1 is here"):
        trained_model.load(rewritten(run=kept_model.replace(model.run, method_version="0")))
    with pytest.raises(trained_model.BenchError, match="other weights"):
        trained_model.load(rewritten(weights_digest="0" * 64))
    with monkeypatch.context() as patched:
        patched.setattr(kept_model, "FORMAT", 0)
        rewritten()
    with pytest.raises(trained_model.BenchError, match="in a form that version"):
        trained_model.load(file)
