"""Every method against one: pairs, intervals only where pairs carry them, and corrections for as many comparisons as are made."""

import numpy as np
import pytest

from bench.reports.against import against, best_of
from bench.reports.significance import fewest_pairs
from bench.results.groups import arranged
from bench.results.loaded import load
from bench.results.run_table import values
from tests.results_folder import write_run


def table_of(folder, reference=None):
    results = load([folder])
    (group,) = arranged(results)
    return against(group, results, values(results.table, ["last"]), reference)


def flat(value, tasks=2):
    return np.full((tasks, tasks), value).tolist()


def rows(table):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_differences_are_the_methods_number_minus_the_references(tmp_path):
    for method, last in (("cgil", 0.9), ("coop", 0.7), ("zscl", 0.4)):
        write_run(tmp_path, flat(last), method=method, images=100)
    table = table_of(tmp_path)
    assert table.caption.startswith("every method against cgil on toy-3x2")
    assert rows(table) == {
        "coop": ["70.00", "-20.00", "1", "worse"],
        "zscl": ["40.00", "-50.00", "1", "worse"],
    }
    assert table.header == ["method", "Last", "difference", "pairs", "over test images"]
    assert any("too few pairs of runs" in note for note in table.notes)
    assert any("chosen by these same numbers" in note for note in table.notes)
    named = table_of(tmp_path, "coop")
    assert [(row["method"], row["over_images"]) for row in named.data] == [("cgil", "better"), ("zscl", "worse")]
    assert not any("chosen by these same numbers" in note for note in named.notes)


def test_intervals_come_with_enough_pairs_and_are_wider_with_more_methods(tmp_path):
    seeds, random = range(fewest_pairs(1 - 0.05 / 4)), np.random.default_rng(0)
    for seed in seeds:
        shared = random.normal(0, 0.05)
        for method, level in (("cgil", 0.8), ("coop", 0.7), ("near", 0.8)):
            write_run(tmp_path, flat(level + shared + random.normal(0, 0.01)), method=method, seed=seed, images=200)
    few = {row["method"]: row for row in table_of(tmp_path, "cgil").data}
    assert {method: row["over_runs"] for method, row in few.items()} == {"coop": "worse", "near": "not told apart"}
    for seed in seeds:
        write_run(tmp_path, flat(0.1), method="a", seed=seed, images=200)
        write_run(tmp_path, flat(0.2), method="b", seed=seed, images=200)
    many = {row["method"]: row for row in table_of(tmp_path, "cgil").data}
    assert many["coop"]["low"] < few["coop"]["low"] and many["coop"]["high"] > few["coop"]["high"]
    write_run(tmp_path, flat(0.3), method="once", images=200)
    once = {row["method"]: row for row in table_of(tmp_path, "cgil").data}["once"]
    assert once["over_runs"] == "-" and once["pairs"] == 1


def test_models_that_differ_by_chance_are_not_told_apart(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, flat(0.8), method="cgil", seed=seed, images=20)
        write_run(tmp_path, flat(0.75), method="coop", seed=seed, images=20)
    (row,) = table_of(tmp_path).rows
    assert row[-1].text == "not told apart in all 2"


def test_what_has_no_partner_is_said_and_joint_methods_are_left_out(tmp_path):
    write_run(tmp_path, flat(0.9), method="cgil", seed=0)
    write_run(tmp_path, flat(0.7), method="coop", seed=1)
    write_run(tmp_path, flat(0.6), method="zscl", seed=0)
    write_run(tmp_path, flat(0.6), method="zscl", seed=1)
    write_run(tmp_path, flat(0.95), method="joint", joint=True)
    table = table_of(tmp_path)
    assert list(rows(table)) == ["zscl"]
    notes = "\n".join(table.notes)
    assert "coop: not compared, cgil and coop have no seeds in common" in notes
    assert "some runs have no partner of equal class order and seed (A: the reference, B: zscl)" in notes
    assert "left out, learned all tasks at once: joint" in notes


def test_where_nobody_can_be_compared_the_reasons_stay(tmp_path):
    write_run(tmp_path, flat(0.9), method="cgil", seed=0)
    write_run(tmp_path, flat(0.7), method="coop", seed=1)
    table = table_of(tmp_path)
    assert not table.rows and table.header[0] == "method" and "coop: not compared" in table.notes[-1]


def test_one_method_alone_has_nobody_to_be_compared_with(tmp_path):
    write_run(tmp_path, flat(0.9), method="cgil")
    assert table_of(tmp_path) is None
    assert best_of(arranged(load([tmp_path]))[0]) is None


def test_without_per_image_scores_only_runs_are_compared(tmp_path):
    write_run(tmp_path, flat(0.9), method="cgil")
    (write_run(tmp_path, flat(0.7), method="coop") / "samples.safetensors").unlink()
    table = table_of(tmp_path)
    assert table.header[-1] == "pairs" and "per-image scores were not kept of some runs: coop" in table.notes


@pytest.mark.parametrize("scenario", ["class-incremental", "task-incremental"])
def test_the_best_is_the_one_that_the_table_ranks_first(scenario, tmp_path):
    for method, last in (("cgil", 0.5), ("coop", 0.7)):
        write_run(tmp_path, flat(last), method=method, scenario=scenario)
    assert best_of(arranged(load([tmp_path]))[0]) == "coop"
