"""A method may bring a pretrained tower beside the backbone: its results then stand by themselves."""

import json

import pandas as pd

from bench.pictures.page import reproduction
from bench.results import groups, records
from tests.bench.small_runs import execute, small_run


def test_rows_of_two_backbones_are_never_in_a_table_of_one(tmp_path, cache):
    tables = []
    for vit in ("clip", "test_vit"):
        run = small_run("star-prompt", tmp_path, vit=vit, vit_pretrained=False)
        execute(run, cache)
        tables.append(records.read_csv(run.folder / "records.csv"))
    assert [table["backbone"].unique().tolist() for table in tables] == [["mini"], ["mini + test_vit"]]
    assert len(groups.comparable(pd.concat(tables))) == 2
    again = reproduction.command(tables[1].iloc[0].to_dict(), json.loads((run.folder / "manifest.json").read_text()))
    assert "--backbone" not in again
