"""The measurement of methods on images works; its numbers are made by python -m tests.benchmarks.pixel_methods."""

import csv

import pytest
import torch

from tests.benchmarks import pixel_methods

SMALL = ["--backbone", "mini", "--device", "cpu", "--batch", "2", "--steps", "2"]


def rows_of(methods: str, out, options: list[str]) -> dict[str, dict[str, str]]:
    pixel_methods.main([*options, "--methods", methods, "--out", str(out)])
    with open(out) as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_each_method_is_measured_in_a_process_of_its_own(tmp_path):
    rows = rows_of("slca,no-such-method", tmp_path / "table.csv", SMALL)
    assert float(rows["slca"]["steps/s"]) > 0
    assert rows["slca"]["loops of the second task"].count("steps at") == 2  # the tower, then the aligned head
    assert float(rows["slca"]["peak memory (MB)"]) >= float(rows["slca"]["before training (MB)"]) > 0
    assert "no-such-method" in rows["no-such-method"]["loops of the second task"]


@pytest.mark.parametrize("name", ["zscl", "icarl", "er"])
def test_second_task_makes_the_steps_that_are_wanted(name):
    """icarl and er have a memory of the first task by then, zscl distils on reference data."""
    [facts] = pixel_methods.main([*SMALL, "--sentences", "3", "--only", name])
    [loop] = facts["phases"]
    assert loop["seconds"] > 0
    assert loop["steps"] == (5 if name == "er" else 2)  # an epoch over one image of each of ten classes, or so many updates
    assert facts["trained"] > 0


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", pixel_methods.METHODS)
def test_full_size_on_a_gpu(name, tmp_path):
    """ViT-B/16 at batch 64."""
    row = rows_of(name, tmp_path / "table.csv", ["--device", "cuda"])[name]
    assert float(row["steps/s"]) > 0.1, row
