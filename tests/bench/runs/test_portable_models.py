"""A kept model names no folder of its machine, works where these are gone, and says in one line what it needs there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.clip import backbone as backbones
from bench.clip.mini import WEIGHTS
from bench.errors import BenchError
from bench.images.folders import Folders
from bench.results.run_folder import MODEL, PLACES
from bench.runs import earlier_images, kept_model, trained_model
from bench.runs.places import Places
from bench.streams.features import FeatureStore

METHOD = """
from dataclasses import dataclass
from pathlib import Path

from bench import Method, setting


@dataclass(frozen=True)
class Settings:
    words: str | None = setting(None, "a file", names_file=True)


class Named(Method):
    Settings = Settings
    paper, trains = "none", "nothing"
    inputs = "features"

    def learn(self, task):
        pass

    def prepare(self):
        self.factor = float(Path(self.settings.words).read_text())
        self.register_buffer("texts", self.backbone.classifier(self.scenario.prompts_of(range(len(self.scenario.class_names)))))

    def logits(self, batch, classes):
        return self.factor * batch @ self.texts[list(classes)].T
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache):
    """The folder of a run of a method in a file, on a folder of images, with weights and a setting in files; and an image."""
    root = tmp_path_factory.mktemp("somebodys-home")
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("apple", "fig", "pear", "plum"):
            (root / "fruit" / split / name).mkdir(parents=True)
            for k in range(2):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype="uint8")
                Image.fromarray(pixels).save(root / "fruit" / split / name / f"{k}.png")
    (root / "mine").mkdir()
    (root / "mine" / "own.py").write_text(METHOD)
    (root / "mine" / "words.txt").write_text("3")
    shutil.copy(WEIGHTS, root / "mine" / "clip.safetensors")
    runs = bench.run(
        f"folder:{root / 'fruit'}-2x2", f"{root / 'mine' / 'own.py'}:Named", pretrained=root / "mine" / "clip.safetensors",
        set={"named.words": str(root / "mine" / "words.txt")}, out=root / "results", keep_model=True, cache_dir=cache,
    )  # fmt: skip
    return root, Path(runs.folder[0])


@pytest.fixture
def elsewhere(made, tmp_path):
    """The model alone, on a machine that has nothing else of what it was made with."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(made[1] / MODEL, folder)
    return folder


def refused(message: str, *arguments, **options) -> None:
    with pytest.raises(BenchError, match=message) as error:
        trained_model.load(*arguments, **options)
    assert "\n" not in str(error.value)


def test_the_file_holds_no_path_and_its_neighbour_all(made):
    root, folder = made
    assert str(root).encode() not in (folder / MODEL).read_bytes()
    known = json.loads((folder / PLACES).read_text())
    assert set(known) == {"protocol", "method", "weights", "setting words"} and all(str(root) in text for text in known.values())
    image = root / "fruit" / "test" / "fig" / "0.png"
    assert trained_model.load(folder).predict(image)[0] in ("apple", "fig", "pear", "plum")


def test_what_is_missing_is_said_and_found_beside_the_model(made, elsewhere):
    root, run = made
    own = f"{root / 'mine' / 'own.py'}:Named"
    refused(r"own.py:Named, that is not where it was; name it: --method FILE.py:Named", elsewhere)
    (elsewhere / "own.py").write_text("raise RuntimeError")
    refused("name it", elsewhere)  # code beside a model that somebody has handed over is not run
    refused("weights of mini that it was trained with, clip.safetensors, is not here; put it beside", elsewhere, method=own)
    shutil.copy(root / "mine" / "clip.safetensors", elsewhere)
    refused("the file of its setting words, words.txt, is not here", elsewhere, method=own)
    (elsewhere / "words.txt").write_text("4")
    refused("another one than the model was trained with", elsewhere, method=own)
    shutil.copy(root / "mine" / "words.txt", elsewhere)
    refused("'simplecil', and the kept model is one of 'named'", elsewhere, method="simplecil")
    image = root / "fruit" / "test" / "fig" / "0.png"
    there, here = trained_model.load(elsewhere, method=own), trained_model.load(run)
    assert torch.equal(there.scores(image), here.scores(image))


def test_images_of_earlier_tasks_are_asked_for_where_they_are_gone(made, elsewhere, cache):
    root, _ = made
    folders, store = Folders(cache / "no-data", cache), FeatureStore(backbones.load("mini", None, "cpu"), cache)
    kept = kept_model.read(elsewhere)
    with pytest.raises(BenchError, match="named goes back to the images of folder:fruit-2x2, which are not here: "):
        len(earlier_images.learned_tasks(kept, store, folders)[0].train.labels)
    shutil.copytree(root / "fruit", elsewhere / "fruit")
    assert len(earlier_images.learned_tasks(kept_model.read(elsewhere), store, folders)[0].train.labels) == 4
    taught = replace(kept, tasks=(*kept.tasks, kept_model.LearnedTask("more", (4,), str(root / "gone" / "more"), "0")))
    taught.write(elsewhere)
    assert b"gone" not in (elsewhere / MODEL).read_bytes()
    with pytest.raises(BenchError, match="a folder of images that named goes back to, more, is not here; put it beside"):
        len(earlier_images.learned_tasks(kept_model.read(elsewhere), store, folders)[2].train.labels)


def test_a_model_of_an_earlier_version_which_held_paths_is_read(made, tmp_path, monkeypatch):
    kept = kept_model.read(made[1])
    full = replace(kept.run, given=kept.places.known["protocol"], method_from=kept.places.known["method"])
    monkeypatch.setattr(kept_model.places, "taken_out", lambda run: (run, {}))
    replace(kept, run=full, places=Places(tmp_path)).write(tmp_path)
    monkeypatch.undo()
    again = kept_model.read(tmp_path)
    assert again.run.given == "folder:fruit-2x2" and again.places.method() == full.method_from
