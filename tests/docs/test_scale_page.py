"""docs/scale.md: its table is what its script prints, and what its text says of the table is so."""

import re

import pytest

from bench.reports.formats import write
from bench.runs.memory_sums import SUMS
from tests.docs.test_reference_pages import page, script


@pytest.fixture(scope="module")
def scale():
    return script("scale_table")


def test_the_table_is_what_the_script_prints(scale):
    [shown] = re.findall(r"<!-- output: python docs/scale_table.py -->\n(.*?)<!-- end -->", page("scale.md"), re.DOTALL)
    assert shown.strip() == write([scale.table()], "markdown").strip()
    assert set(re.findall(r"^\| ([a-z0-9-]+) \|", shown, re.M)) - {"method"} == set(SUMS)


def test_what_the_page_says_breaks(scale):
    assert scale.cost("rail-dual", 1_000).breaks.startswith("GPU memory: the kernel matrix")
    assert scale.GPU**0.5 / 8**0.5 == pytest.approx(100_000, rel=0.01)  # images whose kernel fills it
    for method in ("joint-prompts", "linear-probe"):
        assert scale.cost(method, 1_000).breaks == "GPU memory: embeddings of all training images"
    assert scale.cost("proof", 20_000).breaks.startswith("time") and scale.cost("proof", 20_000).parts["GPU memory"][0] > 1
    assert scale.cost("simplecil", 20_000).disk == pytest.approx(205e9 + 2e9, rel=0.01)
    scores, files = (next(t.bytes for t in scale.cost("zero-shot", 20_000).host if what in t.what) for what in ("scores", "list"))
    assert (scores, files) == (pytest.approx(8e9), pytest.approx(15e9, rel=0.02))
    assert "not measured" not in write([scale.table()], "markdown")
    assert 0 < scale.cost("condu", 1_000).hours < 1  # counts its updates, whatever the images
    assert scale.cost("clg-cbm", 20_000).breaks.startswith("time")


def test_time_is_in_proportion_to_images_and_grows_by_the_measured_power(scale, monkeypatch):
    growth = {"coop": {"200 classes": "2", "power": "1"}, "clip-adapter": {"200 classes": "2", "power": "-0.5"}}
    own = scale.scale("coop", 20_000)
    encoding = scale.seconds("clip-adapter", own, growth, {}) - 2 * own.train / 200
    assert encoding == pytest.approx((own.train + own.test) * scale.operations_of_an_image(own.towers) / scale.THREAD)
    assert scale.seconds("coop", own, growth, {}) - encoding == pytest.approx(2 * own.train / 200 * 100 / 2)
    own = scale.scale("linear-probe", 20_000)  # joint training has all classes from the start
    growth = {"linear-probe": growth["coop"], "ranpac": growth["coop"]}
    assert scale.seconds("linear-probe", own, growth, {}) - encoding == pytest.approx(2 * own.train / 200 * 100)
    assert scale.seconds("ranpac", own, growth, {}) - encoding == pytest.approx(2 * own.train / 200)
    closed_form = {"cca-cl": {"steps/s": "-", "second task (s)": "5"}}  # ten images of a task
    scoring = own.tasks * own.test * scale.operations_of_an_image(own.towers) / scale.THREAD
    assert scale.seconds("cca-cl", own, {}, closed_form) == pytest.approx(own.train / 2 + scoring)
    assert scale.operations_of_an_image(own.towers) == pytest.approx(35e9, rel=0.03)  # of ViT-B/16
