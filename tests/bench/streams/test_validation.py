"""Validation parts: which images they hold, that no test image is opened, and that test results never stand beside them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from bench.commands.main import main
from bench.commands.show import show
from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.reports import ranking, tables
from bench.results import published, records
from bench.streams import sources
from bench.streams.names import find
from bench.streams.validation import Validation
from bench.system import registry
from tests.bench.fake_records import fake_records
from tests.bench.system.test_registry import plugin  # noqa: F401

# ten training images of each of four classes, and a data set with a single one of a fifth; their test images cannot be opened
TOYS = """
    import numpy as np
    from bench import Dataset, DatasetInfo, ImageSource

    def made(name, labels, names):
        def open_split(split, folders):
            assert split == "train", "a test image was opened"
            images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
            return ImageSource.from_arrays(images, np.array(labels))

        return Dataset(DatasetInfo(name, "1", names, ("a {}.",), name, "here", len(labels), 5), open_split, content="own")

    NAMES = ("cat", "dog", "bird", "fish", "fox")
    toys = made("toys", [0, 1, 2, 3] * 10, NAMES[:4])
    foxes = made("foxes", [0, 1, 2, 3] * 10 + [4], NAMES)
"""


@pytest.fixture
def toys(plugin, monkeypatch, tmp_path, cache):  # noqa: F811
    """bench("show", ...) where the data set `toys` is installed, in an empty folder."""
    plugin("[bench.datasets]\ntoys = novel:toys\nfoxes = novel:foxes\n", novel=TOYS)
    monkeypatch.chdir(tmp_path)

    def bench(*words):
        return CliRunner().invoke(main, [*words, "--cache-dir", str(cache), "--data-dir", "data"], catch_exceptions=False)

    return bench


def counts(protocol, split: str, limit: int | None = None) -> list[int]:
    folders = Folders(None, None)
    return np.bincount(sources.images(protocol, "toys", split, folders, limit).labels, minlength=4).tolist()


def images(protocol, split: str, limit: int | None = None) -> list[bytes]:
    source = sources.images(protocol, "toys", split, Folders(None, None), limit)
    return [image.tobytes() for image in source.read(np.arange(len(source)))]


# -- which images ------------------------------------------------------------------------------------------------


def test_a_part_of_every_class_is_held_out_and_the_rest_is_left(toys):
    held = find("toys-2x2+validation=20%")
    assert counts(held, "train") == [8] * 4 and counts(held, "test") == [2] * 4
    every = sources.images(find("toys-2x2"), "toys", "train", Folders(None, None), None)
    assert sorted(images(held, "train") + images(held, "test")) == sorted(image.tobytes() for image in every.read(np.arange(40)))
    assert counts(find("toys-2x2+validation=3-per-class"), "test") == [3] * 4


def test_a_larger_part_holds_the_smaller_one_whatever_the_other_options_and_limits(toys):
    few, many = (set(images(find(f"toys-2x2+validation={part}"), "test")) for part in ("10%", "4-per-class"))
    assert len(few) == 4 and few < many
    for name in ("toys-4x1+order=natural+validation=10%", "toys-2x2+exemplars=2-per-class+budgeted+validation=10%"):
        assert set(images(find(name), "test")) == few
    held = find("toys-2x2+validation=40%")
    first = [image for image in images(held, "train") if image in images(held, "train", 2)]
    assert first == images(held, "train", 2) and counts(held, "train", 2) == [2] * 4  # of what is left
    assert counts(held, "test", 3) == [3] * 4 and set(images(held, "test", 3)) < set(images(held, "test"))


def test_the_choice_is_the_same_on_every_machine():
    rows, labels = np.arange(12), np.array([0, 1] * 6)
    assert Validation(50, "%").divided(rows, labels, "toys")["test"].tolist() == [0, 2, 3, 6, 7, 11]


def test_of_few_shots_a_part_is_held_out_and_an_image_drawn_twice_is_on_one_side():
    held = find("mini-mtil-order1")
    rows = np.array([3, 3, 5, 5, 8, 9, 9, 11])
    for number in (1, 2, 3, 4):
        found = Validation(number, "-per-class").divided(rows, np.zeros(8, np.int64), "x")
        assert len(found["test"]) == number == len(set(found["test"]))
        assert not set(found["test"]) & set(found["train"]) and set(found["test"]) | set(found["train"]) == set(rows)
    assert held.validation is None
    few = find("xtail-order1-16shot+validation=20%")
    assert (few.shots, few.validation, few.shot_rule) == (16, Validation(20, "%"), "seed-0")


# -- names -------------------------------------------------------------------------------------------------------


def test_the_option_stands_last_and_in_one_spelling():
    name = "cifar100-10x10+validation=020%+budgeted+replay-free"
    assert find(name).name == "cifar100-10x10+replay-free+budgeted+validation=20%"
    assert find("mtil-order1+agnostic+validation=5-per-class").label_space == "seen"


@pytest.mark.parametrize("part", ["0%", "100%", "0-per-class", "20", "-5%", "1.5%", "five", "9999999999-per-class"])
def test_a_wrong_part_is_answered_in_one_line(part):
    with pytest.raises(BenchError, match=r"N from 1 to 99, or \+validation=N-per-class") as caught:
        find(f"mini60-6x10+validation={part}")
    assert "\n" not in str(caught.value)
    with pytest.raises(BenchError, match="exclude each other"):
        find("mini60-6x10+validation=20%+validation=30%")


@pytest.mark.parametrize("part", ["4%", "96%", "10-per-class", "900-per-class"])
def test_a_class_that_cannot_be_divided_stops_the_plan_in_one_line(toys, part):
    done = toys("run", "--protocol", f"toys-2x2+order=natural+validation={part}", "--methods", "zero-shot", "--dry-run")
    assert done.exit_code == 2 and "class 'cat' of data set toys has 10 training images" in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_a_class_that_the_stream_does_not_learn_may_be_of_any_size(toys):
    every = find("foxes-5x1+validation=20%")
    refused = toys("run", "--protocol", every.name, "--methods", "zero-shot", "--dry-run")
    assert refused.exit_code == 2 and "class 'fox' of data set foxes has 1 training image, of which 20%" in refused.output
    without_foxes = replace(every, tasks=lambda seed: [plan for plan in every.tasks(seed) if plan.labels != (4,)])
    sources.refuse_undivided(without_foxes, 0, Folders(None, None), synthetic=False)


def test_recipes_are_those_of_the_protocol_itself():
    for name in ("ranpac", "mg-clip", "moe-adapters", "condu"):
        method = registry.load("method", name)
        for protocol in ("cifar100-10x10", "mini-mtil-order1", "mtil-order1-5shot", "xtail-order1-16shot"):
            assert method.settings_for(f"{protocol}+validation=20%") == method.settings_for(protocol)
    condu = registry.load("method", "condu")
    assert condu.settings_for("mtil-order1-5shot") != condu.settings_for("mtil-order1")  # a pattern that the suffix would hide


# -- runs --------------------------------------------------------------------------------------------------------


def test_everything_works_where_a_test_image_cannot_be_opened(toys, tmp_path):
    methods = "zero-shot,simplecil,linear-probe"
    asked = ("--protocol", "toys-2x2+order=natural+validation=20%", "--methods", methods, "--out", "out")
    assert "nothing is missing" in toys("run", *asked, "--preflight").output
    done = toys("run", *asked)
    assert done.exit_code == 0, done.output
    loud = "VALIDATION: scored on training images held out (20%), not on test images"
    assert loud in done.output
    again = toys("run", *asked)
    assert "nothing to do" in again.output and "on other images" not in again.output
    table = records.load([tmp_path / "out"])
    assert set(table["limits"]) == {"validation=20%"} and set(table["n"]) == {4}
    manifest = json.loads(next((tmp_path / "out").rglob("manifest.json")).read_text())
    assert manifest["validation"]["held_out"] == "20%" and manifest["tasks"][0]["train_images"] == 16
    row = toys("show", asked[1]).output.split("toys  ")[-1].split()
    assert row[1:3] == ["32", "8"]
    for words in (["report", "out", "-o", "page.html"], ["plot", "out", "-o", "pictures", "--format", "svg"]):
        made = CliRunner().invoke(main, words, catch_exceptions=False)
        assert made.exit_code == 0, made.output
    assert loud in (tmp_path / "page.html").read_text()
    compared = CliRunner().invoke(main, ["compare", "zero-shot", "simplecil", "out"], catch_exceptions=False)
    assert loud in compared.output and "validation images (held out" in compared.output


@pytest.mark.parametrize("name", ["toys-2x2+order=natural+validation=20%"])
def test_the_check_of_a_protocol_opens_no_test_image(toys, name):
    done = toys("check", name)
    assert done.exit_code == 0, done.output


# -- tables ------------------------------------------------------------------------------------------------------


def both():
    import pandas as pd

    held = fake_records(limits="validation=20%;train=5", protocol="mini60-6x10+validation=20%")
    return pd.concat([fake_records(), held], ignore_index=True)


def test_tables_keep_validation_apart_and_say_it():
    first, second = tables.build(both())
    assert "VALIDATION" not in first.caption
    assert "VALIDATION: scored on training images held out (20%), not on test images, LIMITED to train=5 images" in second.caption


def test_no_published_number_and_no_foreign_matrix_stands_beside_it():
    papers = published.load()
    conditions = {"protocol": "cifar100-10x10", "backbone": "ViT-B-16", "pretrained": "openai", "limits": ""}
    assert published.beside(papers, conditions)
    assert not published.beside(papers, conditions | {"limits": "validation=20%"})
    from bench.reports.foreign_rows import Foreign
    from bench.results.foreign.accuracy_matrix import AccuracyMatrix

    one = Foreign("theirs.csv", AccuracyMatrix("theirs", ["a", "b", "c"], np.tril(np.full((3, 3), 0.5))))
    held = both()[lambda rows: rows["limits"] != ""]
    own, apart = tables.build(held, foreign=[one])
    assert "theirs" not in str(own.rows) and "theirs" in str(apart.rows) and "shows test images" in apart.notes[-1]


def test_a_ranking_never_takes_both_and_says_which():
    with pytest.raises(BenchError, match="they are not ranked together"):
        ranking.rank(both())
    held = both()[lambda rows: rows["limits"] != ""]
    assert "VALIDATION" in ranking.to_table(ranking.rank(held)).caption
    assert "VALIDATION" not in ranking.to_table(ranking.rank(fake_records())).caption


def test_the_page_of_a_protocol_says_its_sizes():
    page = show("mtil-order1-16shot+validation=20%")
    assert "about 1300" in page and "about 300" in page and "20% of the training images of every class" in page
    assert "+validation=N-per-class" not in page and "+validation=N-per-class" in show("mini60-6x10")
