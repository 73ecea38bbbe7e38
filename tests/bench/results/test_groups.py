"""Runs that may be compared, grouped once for tables, comparisons, pictures and the gate."""

import numpy as np
import pandas as pd
import pytest

from bench.results import groups, run_table
from bench.results.loaded import Results
from tests.bench.fake_records import fake_records


def results(table: pd.DataFrame) -> Results:
    return Results(table, {}, lambda run_id: None)


def test_methods_and_runs_come_as_in_the_records_and_are_arranged_for_pictures():
    table = fake_records(methods=("finetune", "cgil", "zero-shot"), seeds=(2, 0, 1))
    (as_found,) = groups.comparable(table)
    (arranged,) = groups.arranged(results(table))
    assert [own.label for own in as_found.methods] == ["finetune", "cgil", "zero-shot"]
    assert [own.label for own in arranged.methods] == ["zero-shot", "cgil", "finetune"]
    assert as_found.method("cgil").seeds == [(0, 2), (0, 0), (0, 1)]
    assert arranged.method("cgil").seeds == [(0, 0), (0, 1), (0, 2)]


def test_runs_keep_their_data_when_they_are_put_in_order():
    table = fake_records(methods=("cgil",), seeds=(2, 0, 1))
    own = groups.comparable(table)[0].methods[0]
    of_run = dict(zip(own.run_ids, own.runs))
    arranged = own.by_seed()
    assert arranged.run_ids != own.run_ids
    assert all(run is of_run[run_id] for run_id, run in zip(arranged.run_ids, arranged.runs))


def test_a_number_of_a_run_is_computed_once():
    own = groups.comparable(fake_records(methods=("cgil",), seeds=(0, 1)))[0].methods[0]
    asked = []
    for _ in range(2):
        assert own.numbers("one", lambda run: asked.append(run) or 1.0) == [1.0, 1.0]
    assert len(asked) == 2


def test_numbers_are_not_taken_over_when_the_data_of_runs_change():
    """Forward transfer before the baseline is known is missing; afterwards it must not stay so."""
    group = groups.comparable(fake_records(methods=("zero-shot", "cgil")))[0]

    def has_baseline(run):
        return float(run.baseline is not None)

    assert set(group.method("cgil").numbers("baseline", has_baseline)) == {0.0}
    assert set(group.with_baselines().method("cgil").numbers("baseline", has_baseline)) == {1.0}


def test_every_run_is_held_against_zero_shot_of_its_own_class_order():
    table = fake_records(methods=("zero-shot", "cgil"), orders=(0, 1), seeds=(0,), noise=0.05)
    changed = table["method"].eq("zero-shot") & table["order_seed"].eq(1)
    table.loc[changed, "value"] = 0.25
    first, second = groups.comparable(table)[0].with_baselines().method("cgil").runs
    np.testing.assert_allclose(second.baseline, [np.nan, 0.25, 0.25])
    assert not np.allclose(first.baseline[1:], 0.25)


@pytest.mark.parametrize("first", [True, False])
def test_of_several_zero_shots_the_plain_one_is_the_baseline_everywhere(first):
    """Tables and the gate must not give two numbers for the forward transfer of one run."""
    plain = fake_records(methods=("zero-shot", "cgil"), seeds=(0,))
    other = fake_records(methods=("zero-shot",), seeds=(0,), overrides="templates=many")
    other["value"] = 0.9
    table = pd.concat([plain, other] if first else [other, plain], ignore_index=True)
    group = groups.comparable(table)[0].with_baselines()
    alone = groups.comparable(plain)[0].with_baselines()
    assert group.zero_shot is group.method("zero-shot")
    np.testing.assert_allclose(group.method("cgil").runs[0].baseline, alone.method("cgil").runs[0].baseline)
    found, expected = (run_table.values(records, ["forward_transfer"]).set_index("label") for records in (table, plain))
    assert found.loc["cgil", "forward_transfer"] == expected.loc["cgil", "forward_transfer"]


def test_without_zero_shot_there_is_no_baseline():
    group = groups.comparable(fake_records(methods=("cgil",)))[0].with_baselines()
    assert [run.baseline for run in group.methods[0].runs] == [None] * 3


def test_rows_of_the_run_table_keep_the_order_of_the_records():
    table = pd.concat([fake_records(methods=("cgil",), limits="train=5"), fake_records(), fake_records(methods=("joint",))])
    assert list(run_table.values(table)["run_id"]) == list(table["run_id"].drop_duplicates())
