"""`bench show published`: every paper and every number that ships is shown, once and as it was printed."""

import re

import pytest

from bench.commands import published_pages, show
from bench.errors import BenchError
from bench.results import published

PAPERS = published_pages._papers()


def test_every_paper_has_a_name_of_its_own_and_says_what_it_reports():
    assert len(PAPERS) == len({row["reported_in"] for row in published.rows()})
    page = show.show("published")
    for name, rows in PAPERS.items():
        assert f"\n{name}: {rows[0]['reported_in']}, {len(rows)} numbers" in page
    assert "mtil_transfer, mtil_avg, mtil_last" in page


@pytest.mark.parametrize("name", PAPERS)
def test_the_page_of_a_paper_has_all_of_its_numbers(name):
    page = show.show("published", paper=name)
    rows = PAPERS[name]
    printed = re.findall(r"(?<=  )[\d.]+(?= ±|  |$)", page, re.M)
    assert len(printed) == len(rows)
    assert sorted(printed) == sorted(published.as_printed(float(row["value"])) for row in rows)
    for row in rows:
        assert row["method"] in page and row["protocol"] in page and row["table"] in page and row["certainty"] in page


def test_a_number_stands_in_the_line_of_its_method_and_the_column_of_its_metric():
    lines = show.show("published", paper="ZSCL").splitlines()
    head = next(line for line in lines if "MTIL Transfer" in line)
    own = next(line for line in lines if re.match(r"mtil-order1 +ViT-B-16 +zscl ", line))
    assert own.split()[3:] == ["68.1", "75.4", "83.6"]
    assert own.index("68.1") + 4 == head.index("MTIL Transfer") + len("MTIL Transfer")


def test_the_rows_are_those_that_tables_set_beside_measured_ones():
    frame = published.load()
    assert [row["method"] for row in published.rows()] == list(frame["method"])
    assert [float(row["value"]) for row in published.rows()] == list(frame["value"])


def test_a_paper_that_is_not_there_is_refused_with_the_close_ones():
    with pytest.raises(BenchError, match=r"unknown paper 'zscll'; did you mean zscl\? \(bench show published names them all\)"):
        show.show("published", paper="zscll")
    with pytest.raises(BenchError, match="a paper stands behind published alone"):
        show.show("coop", paper="zscl")
