"""The tidy CSV: written, read, refused."""

import pytest

from bench.errors import BenchError
from bench.results import records
from tests.results_folder import write_run


def row(**changes) -> dict:
    values = dict.fromkeys(records.COLUMNS, "") | {
        "schema": records.SCHEMA, "run_id": "r", "protocol": "p", "protocol_version": "1", "scenario": "class-incremental",
        "method": "m", "backbone": "mini", "pretrained": "mini", "templates": "00e12345", "exemplars": "none", "order_seed": 0,
        "seed": 0, "after_task": 0, "eval_task": 0, "eval_name": "t", "candidates": "seen", "metric": "accuracy",
        "value": 1 / 3, "n": 3,
    }  # fmt: skip
    return values | changes


def write(path, rows):
    path.write_text(records.to_csv(rows))
    return path


def test_what_is_written_is_read_back_exactly(tmp_path):
    table = records.read_csv(write(tmp_path / "records.csv", [row(), row(candidates="task", value=0.1)]))
    assert table["value"].tolist() == [1 / 3, 0.1]
    assert table["templates"].tolist() == ["00e12345"] * 2  # a digest that looks like a number stays text
    assert table["overrides"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(schema=records.SCHEMA + 1)], "newer version"),
        ([row(value="much")], "'much', which is not a number"),
        ([row(value=40.0)], "fractions between 0 and 1"),
        ([row(candidates="some")], "unknown candidates 'some'"),
        ([row(), row()], "same cell appears twice"),
        ([], "no rows"),
    ],
)
def test_a_bad_table_is_refused_with_a_reason(tmp_path, rows, message):
    with pytest.raises(BenchError, match=message):
        records.read_csv(write(tmp_path / "records.csv", rows))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b'"'])
def test_a_file_that_is_no_records_file_is_refused(tmp_path, content):
    path = tmp_path / "records.csv"
    path.write_bytes(content)
    with pytest.raises(BenchError, match="records.csv"):
        records.read_csv(path)


def test_an_unfinished_run_is_not_read(tmp_path):
    write(tmp_path / "records.csv", [row()])
    with pytest.raises(BenchError, match="no finished run"):
        records.load([tmp_path])
    (tmp_path / "manifest.json").write_text("{}")
    assert len(records.load([tmp_path, tmp_path])) == 1  # found twice, counted once


def test_a_run_that_lies_in_two_folders_counts_once_if_it_is_the_same_and_is_refused_if_not(tmp_path):
    import shutil

    folder = write_run(tmp_path / "old", [[0.5, 0.5], [0.5, 0.5]])
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    assert records.load([tmp_path / "old", tmp_path / "new"])["run_id"].nunique() == 1
    path = tmp_path / "new" / folder.relative_to(tmp_path / "old") / "records.csv"
    path.write_text(path.read_text().replace(",0.5,", ",0.4,"))
    with pytest.raises(BenchError, match="lies in several folders with different numbers .*old.* and .*new"):
        records.load([tmp_path / "old", tmp_path / "new"])
