"""Every metric has a formula and a worked example whose arithmetic and the harness agree."""

import numpy as np
import pytest

from bench.commands import show
from bench.errors import BenchError
from bench.results import worked_examples
from bench.results.formulas import FORMULAS, OF_MATRICES
from bench.results.metrics import METRICS


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_shown_with_its_formula_and_an_example_that_is_computed(name):
    page, example = show.show(name), worked_examples.held_against_the_harness(name)
    assert FORMULAS[name].text in page and METRICS[name].title in page
    assert example.numbers in page and f"= {example.value:.2f} percent" in page
    assert all(meaning in page for meaning in (*FORMULAS[name].meanings, *FORMULAS[name].among))
    if name in OF_MATRICES:
        assert FORMULAS[name].cells in page and "after task 3, A[3, k]" in page
    else:
        assert example.given in page


def test_no_formula_is_of_a_metric_that_is_not_there():
    assert list(FORMULAS) == [name for name in FORMULAS if name in METRICS]


def test_an_example_that_disagrees_with_the_harness_is_an_error(monkeypatch):
    matrix = np.full((3, 3), np.nan)
    with pytest.raises(BenchError, match=r"not plain arithmetic|arithmetic gives"):
        worked_examples.of_matrix(matrix, worked_examples.IMAGES, worked_examples.ZERO_SHOT)
    monkeypatch.setitem(worked_examples.METRICS, "bwt", METRICS["last"])
    with pytest.raises(BenchError, match="bwt: the arithmetic gives -3"):
        worked_examples.of("bwt")


def test_the_batches_of_an_example_are_not_the_whole():
    assert worked_examples.of("ece").value != worked_examples.of("ece_batch32").value
