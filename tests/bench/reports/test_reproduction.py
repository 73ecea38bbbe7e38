"""Verdicts on a paper's numbers: the tolerance by hand, and what is no verdict."""

import csv
import io
import json
from math import sqrt

import numpy as np
import pytest

from bench.reports import reproduction
from bench.reports.formats import write
from bench.reports.reproduction import Measured, image_variance, judge, tabulated, tolerance_of
from bench.results import accuracy
from bench.results.metrics import METRICS
from bench.results.paper_tables import UNREAD, UNSTATED, Cell, PaperTable
from bench.results.run_data import RunData

KEY = ("toy", "coop")
TABLE = PaperTable("toy", "", "a toy", "Paper", ("Table 1",), "ViT-B-16 openai", runs=4)
FIRST, SECOND = [[0.8, 0.3], [0.5, 0.9]], [[0.8, 0.3], [0.7, 0.9]]


def run_of(cells, images=(100, 400)):
    return RunData("task-incremental", {"task": np.array(cells)}, np.array(images, dtype=float))


def cell_of(value, metric="mtil_last", std=None, **changes):
    facts = {"key": KEY, "metrics": (metric,)} | changes
    return Cell("toy", "coop", metric, value, std, "Table 1", "exact", **facts)


def verdict_on(cell, *cells, no_verdict="", unfinished=None):
    own = {KEY: Measured("task-incremental", ["one", "two"], [run_of(one) for one in cells])} if cells else {}
    return judge(cell, TABLE, own, unfinished or {}, no_verdict)


def test_variance_of_test_images_adds_up_within_a_task_and_not_between_tasks():
    run = run_of(FIRST)
    last = image_variance(run, METRICS["mtil_last"].function)
    assert last == pytest.approx(0.25 * (0.5 * 0.5 / 100 + 0.9 * 0.1 / 400), rel=1e-3)
    mean = image_variance(run, METRICS["mtil_avg"].function)  # all four cells, a quarter each
    one, two = sqrt(0.8 * 0.2 / 100) + sqrt(0.5 * 0.5 / 100), sqrt(0.3 * 0.7 / 400) + sqrt(0.9 * 0.1 / 400)
    assert mean == pytest.approx((one**2 + two**2) / 16, rel=1e-3)
    assert image_variance(run, lambda run: float(run.learned[-1][1])) == pytest.approx(0.9 * 0.1 / 400, rel=1e-3)
    assert image_variance(run_of([[0.5, 0.5], [0.5, 0.5]]), METRICS["bwt"].function) == pytest.approx(4 * 0.25 / 100, rel=1e-3)
    weighted = image_variance(run_of(FIRST), lambda run: accuracy.last_samples(run.learned, run.n))
    assert weighted == pytest.approx((100 * 0.5 * 0.5 + 400 * 0.9 * 0.1) / 500**2, rel=1e-3)


def test_tolerance_is_that_of_the_formula():
    metric = METRICS["mtil_last"].function
    runs = [run_of(FIRST), run_of(SECOND)]  # 0.7 and 0.8
    images = np.mean([image_variance(run, metric) for run in runs])
    seeds = 0.005 * (1 / 2 + 1 / 4)  # the variance of 0.7 and 0.8, two runs here and four there
    assert tolerance_of(cell_of(75.0), 4, runs, metric) == pytest.approx(1.96 * sqrt(images + seeds) + 0.0005)
    printed = 0.005 / 2 + 0.02**2 / 4
    assert tolerance_of(cell_of(75.0, std=2.0), 4, runs, metric) == pytest.approx(1.96 * sqrt(images + printed) + 0.0005)
    alone = image_variance(runs[0], metric)
    assert tolerance_of(cell_of(75.25), 4, runs[:1], metric) == pytest.approx(1.96 * sqrt(alone) + 0.00005)
    spread = alone + 0.02**2 * (1 + 1 / 4)  # of one run the paper's deviation stands for its own
    assert tolerance_of(cell_of(75.0, std=2.0), 4, runs[:1], metric) == pytest.approx(1.96 * sqrt(spread) + 0.0005)


def test_verdicts():
    near, far = verdict_on(cell_of(71.0), FIRST), verdict_on(cell_of(90.0), FIRST)
    assert (near.word, near.runs, near.measured) == ("reproduced", 1, pytest.approx(0.7))
    assert (far.word, far.why) == ("deviates", "by -20.00")
    at_edge = 70 + 100 * tolerance_of(cell_of(75.0), 4, [run_of(FIRST)], METRICS["mtil_last"].function)
    assert verdict_on(cell_of(round(at_edge, 1) - 0.1), FIRST).word == "reproduced"
    assert verdict_on(cell_of(round(at_edge, 1) + 0.2), FIRST).word == "deviates"
    of_one = verdict_on(cell_of(90.0, "mtil_last/two"), FIRST)
    assert of_one.word == "reproduced" and of_one.measured == pytest.approx(0.9)


def test_what_is_no_verdict_says_so():
    stand_ins = verdict_on(cell_of(70.0), FIRST, no_verdict="stand-in images")
    assert (stand_ins.word, stand_ins.why, stand_ins.tolerance) == ("none", "stand-in images", None)
    unstated = verdict_on(cell_of(70.0, "Accuracy", metrics=("mtil_last", "mtil_avg"), reason=UNSTATED), FIRST)
    assert unstated.word == "none" and unstated.why == f"{UNSTATED}; here MTIL Last 70.0, MTIL Avg 62.5"
    joint = [[np.nan, np.nan], [0.5, 0.9]]
    assert verdict_on(cell_of(70.0, "mtil_transfer"), joint).why == "the method has no such number"
    assert verdict_on(cell_of(70.0), unfinished={KEY: "its run failed"}).word == "not run"
    assert verdict_on(cell_of(70.0, key=None, reason="no such method here")).word == "cannot be run"
    unread = cell_of(None, "", reason=UNREAD, metrics=())
    assert verdict_on(unread).word == "cannot be run"
    assert verdict_on(unread, FIRST).why == f"{UNREAD}; here MTIL Transfer 30.0, MTIL Avg 62.5, MTIL Last 70.0"


@pytest.fixture
def found():
    cells = [cell_of(71.0), cell_of(90.0), cell_of(90.0, "mtil_last/two"), cell_of(50.0, key=None, reason="no such method here")]
    return [(cell, verdict_on(cell, FIRST)) for cell in cells]


def test_the_table_counts_every_number_and_states_the_formula(found):
    text = write([tabulated(TABLE, found, "", ["fewer runs"], per_dataset=False)], "plain")
    assert "4 cells: 2 reproduced, 1 deviate, 1 cannot be run" in text and reproduction.TOLERANCE in text
    assert "1 number of single data sets (--per-dataset)" in text and "differs: fewer runs" in text
    assert "deviates by -20.00" in text and "cannot be run: no such method here" in text and "/two" not in text
    assert "MTIL Last/two" in write([tabulated(TABLE, found, "", [], per_dataset=True)], "plain")


def test_the_table_as_data(found):
    table = tabulated(TABLE, found, "stand-in images", [], per_dataset=True)
    assert "NO VERDICT ON THE PAPER (stand-in images)" in table.caption
    rows = list(csv.DictReader(io.StringIO(write([table], "csv"))))
    assert [row["verdict"] for row in rows] == ["reproduced", "deviates", "reproduced", "cannot be run"]
    assert float(rows[0]["difference"]) == pytest.approx(-0.01) and rows[3]["measured"] == ""
    assert json.loads(write([table], "json"))
