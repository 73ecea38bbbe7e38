"""The study files of papers' tables: every published number maps to one, and to a run or a reason."""

import tomllib

import pytest

from bench.errors import BenchError
from bench.results import paper_tables, published
from bench.results.metrics import METRICS
from bench.results.paper_tables import UNREAD, UNSTATED
from bench.runs import paper_study, request
from bench.streams.names import find as protocol_named
from bench.system import registry

NAMES = paper_tables.names()


def cells_of(name):
    table = paper_tables.find(name)
    return paper_tables.cells(table, paper_study.keys(paper_study.read(table, {}).whole))


def test_every_published_number_is_a_cell_of_exactly_one_table():
    rows = published.load()
    tables = [paper_tables.find(name) for name in NAMES]
    for (paper, place), own in rows.groupby(["reported_in", "table"]):
        holders = [table.name for table in tables if table.reported_in == paper and place in table.tables]
        assert len(holders) == 1, (paper, place, holders)
        found = [cell for cell in cells_of(holders[0]) if cell.where == place]
        assert sorted(cell.value for cell in found) == sorted(own["value"])
    read = [cell for name in NAMES for cell in cells_of(name) if cell.reason != UNREAD]
    assert len(read) == len(rows) > 700  # and none twice


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_has_a_run_or_says_why_it_has_none(name):
    for cell in cells_of(name):
        if cell.key is None:
            assert cell.reason not in ("", UNREAD, UNSTATED), cell
            continue
        protocol, label = cell.key
        stream, method = protocol_named(protocol), label.partition(" ")[0]
        assert method in registry.names("method") and stream.name == protocol
        for metric in cell.metrics:  # those of one data set name a task of the stream
            metric, _, task = metric.partition("/") if metric not in METRICS else (metric, "", "")
            assert metric in METRICS and (not task or task in {plan.name for plan in stream.tasks(0)}), cell
        assert (len(cell.metrics) == 1) == (cell.reason == ""), cell


@pytest.mark.parametrize("name", NAMES)
def test_a_study_file_states_what_its_runs_are(name):
    table = paper_tables.find(name)
    study = paper_study.read(table, {}).whole
    if not study.requests:
        assert all(cell.key is None for cell in cells_of(name))
        return
    assert {"seeds", "orders", "exemplars", "training"} <= set(table.facts) and table.differs and table.runs >= 1
    assert len({(part.backbone, part.pretrained) for part in study.requests}) == 1 and table.backbone.startswith("ViT-")
    used = {cell.key for cell in cells_of(name) if cell.key}
    assert set(paper_study.keys(study)) == used  # a run without a cell would be made for nothing
    names = {row for cell in cells_of(name) for row in (cell.method, cell.protocol, cell.metric.partition("/")[0])}
    said = {*table.methods, *table.protocols, *table.metrics, *table.absent} - names
    assert not said, "the study file explains names that no number has"


def test_a_name_that_a_study_file_says_nothing_of_is_an_error():
    table = paper_tables.find("dpw-mtil")
    with pytest.raises(LookupError, match="no run for zscl on mtil-order1"):
        paper_tables.cells(table, [])


def test_an_unknown_table_is_answered_with_suggestions():
    with pytest.raises(BenchError, match=r"unknown table 'zscl-table'; did you mean zscl-table3"):
        paper_tables.find("zscl-table")


def test_the_rows_of_a_paper_are_found_in_its_runs():
    cell = next(cell for cell in cells_of("xtail-fullshot") if cell.method == "lada (lambda1 8, lambda2 16)")
    assert cell.key == ("xtail-order1", "lada (components=16;units=8)")
    assert paper_tables.row_key("xtail-order1", "lada", "components=16;epochs=2;units=8", ["epochs"]) == cell.key
    anywhere = next(cell for cell in cells_of("zscl-table3") if cell.protocol == "MTIL (any order)")
    assert anywhere.key == ("mtil-order1", "zero-shot") and anywhere.metrics[0].startswith("mtil_last/")
    assert {cell.reason for cell in cells_of("cgil-table")} == {UNSTATED, UNREAD}


def test_other_backbones_are_not_held_against_a_run():
    reasons = {cell.reason for cell in cells_of("ranpac-clip") if cell.key is None}
    assert {"other backbone: resnet50_in1k", "other backbone: resnet152_in1k"} <= reasons


@pytest.mark.parametrize("name", NAMES)
def test_a_study_file_is_one_that_bench_run_takes(name, tmp_path):
    text = paper_tables.find(name).text
    if "methods" in tomllib.loads(text):
        path = tmp_path / "study.toml"
        path.write_text(text)
        found = request.read(path, {})
        assert paper_study.keys(found) == paper_study.keys(paper_study.read(paper_tables.find(name), {}).whole)
