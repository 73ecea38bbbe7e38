"""Stand-in images: right in number and size, the same everywhere, and never mixed with real ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.images.dataset import DatasetInfo, Folders
from bench.images.stand_ins import IMAGES_PER_CLASS, stand_in
from bench.pictures import plots
from bench.pictures.page import write
from bench.pictures.page.reproduction import command
from bench.reports import tables
from bench.results import groups, loaded, records
from tests.bench.fake_records import fake_records
from tests.results_folder import write_run

NOWHERE = Folders(Path("nowhere"), Path("nowhere"))
INFO = DatasetInfo("birds", "1", ("a", "b", "c"), ("a {}.",), "", "", train_images=11, test_images=5, image_size=(30, 47))
MATRIX = [[0.9, 0.4], [0.6, 0.8]]


def test_the_images_have_the_number_and_size_of_the_data_set():
    train, test = (stand_in(INFO, split, NOWHERE) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [4, 4, 3]
    assert np.bincount(test.labels).tolist() == [2, 2, 1]
    images = train.read(np.array([0, 10]))
    assert all(image.shape == (30, 47, 3) and image.dtype == np.uint8 for image in images)


def test_a_data_set_of_no_fixed_size_gets_a_number_for_every_class():
    source = stand_in(replace(INFO, train_images=None), "train", NOWHERE)
    assert np.bincount(source.labels).tolist() == [IMAGES_PER_CLASS["train"]] * 3


def test_images_depend_on_their_row_alone_and_no_two_are_equal():
    source = stand_in(INFO, "train", NOWHERE)
    every = source.read(np.arange(11))
    assert np.array_equal(stand_in(INFO, "train", NOWHERE).read(np.array([7, 2])), every[[7, 2]])
    assert len({image.tobytes() for image in every}) == 11
    assert not np.array_equal(stand_in(INFO, "test", NOWHERE).read(np.array([0]))[0], every[0])
    assert source.digest != stand_in(INFO, "test", NOWHERE).digest
    assert source.digest != stand_in(replace(INFO, name="fish"), "train", NOWHERE).digest


def test_images_of_a_class_are_more_alike_than_others():
    source = stand_in(INFO, "train", NOWHERE)
    images = source.read(np.arange(11)).astype(float)

    def distance(i: int, j: int) -> float:
        return np.abs(images[i] - images[j]).mean()

    assert max(distance(0, 1), distance(2, 3)) < min(distance(0, 5), distance(1, 9))


def test_results_on_them_are_not_put_beside_real_ones(tmp_path):
    write_run(tmp_path / "real", MATRIX)
    write_run(tmp_path / "made", MATRIX, limits="data=synthetic;train=5")
    for read in (records.load, loaded.load):
        with pytest.raises(BenchError, match="runs on synthetic images .* lie beside runs on real ones"):
            read([tmp_path])
        read([tmp_path / "real"])
        read([tmp_path / "made"])


def test_tables_refuse_a_mixture_and_mark_what_is_synthetic():
    made, real = fake_records(limits="data=synthetic;train=5"), fake_records()
    with pytest.raises(BenchError, match="synthetic"):
        tables.render(records.pd.concat([made, real]))
    assert "SYNTHETIC images: accuracies mean nothing, LIMITED to train=5 images a class" in tables.render(made)
    assert "SYNTHETIC" not in tables.render(real)


def test_pictures_and_reports_say_it(tmp_path):
    write_run(tmp_path, MATRIX, limits="data=synthetic")
    results = loaded.load([tmp_path])
    assert "SYNTHETIC images: accuracies mean nothing" in write.render(results)
    group = groups.arranged(results)[0]
    assert "SYNTHETIC" in plots.of_group(group, results, plots.method_styles([group]))[0].where


def test_the_command_that_repeats_such_a_run_asks_for_them():
    run = {"protocol": "p", "method": "coop", "overrides": "", "backbone": "mini", "pretrained": "mini",
           "limits": "data=synthetic;test=2", "order_seed": 0, "seed": 0}  # fmt: skip
    assert command(run, {}).endswith("--data synthetic --limit-test 2")


def test_a_run_on_stand_ins_needs_no_data_and_its_table_says_so(bench, tmp_path):
    made = bench("run", "--protocol", "isic", "--data", "synthetic", "--methods", "zero-shot",
                 "--limit-train", "2", "--limit-test", "1")  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "SYNTHETIC images: accuracies mean nothing, LIMITED to train=2;test=1 images a class" in made.stdout
    write_run(tmp_path / "results", MATRIX)
    refused = bench("table", "results")
    assert refused.returncode == 2
    assert refused.stderr.startswith("bench: runs on synthetic images (1, for instance isic/zero-shot/")
    assert bench("table", "results/isic").returncode == 0
