"""A against B on results folders whose differences are known, and the ranking of several methods."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bench.errors import BenchError
from bench.reports import compare, ranking
from bench.results import loaded, records
from bench.results.metrics import METRICS
from bench.results.run_table import values
from tests.results_folder import write_run

GOOD = [[0.9, 0.6, 0.5], [0.8, 0.9, 0.6], [0.8, 0.7, 0.9]]  # Last 0.8
BAD = [[0.7, 0.6, 0.5], [0.6, 0.7, 0.6], [0.4, 0.5, 0.6]]  # Last 0.5


def shifted(matrix, by):
    return np.clip(np.array(matrix) + by, 0, 1)


def write_pairs(out, n, better="cgil", worse="coop", **conditions):
    """n seeds of both: the better one is 0.2, 0.1, 0.3, 0.2, 0.1, ... ahead in every cell."""
    for seed in range(n):
        write_run(out, BAD, method=worse, seed=seed, **conditions)
        write_run(out, shifted(BAD, (0.2, 0.1, 0.3)[seed % 3]), method=better, seed=seed, **conditions)


def numbers(tables, metric="last"):
    return next(row for row in tables[0].data if row["metric"] == metric)


# -- over runs --------------------------------------------------------------------------------------------------


def test_the_difference_is_the_mean_over_pairs(tmp_path):
    write_pairs(tmp_path, 3)
    found = numbers(compare.compare("cgil", "coop", [tmp_path]))
    assert found["difference"] == pytest.approx((0.2 + 0.1 + 0.3) / 3)
    assert (found["smallest"], found["largest"]) == (pytest.approx(0.1), pytest.approx(0.3))
    assert (found["b"], found["pairs"]) == (pytest.approx(0.5), 3)


def test_too_few_pairs_are_said_in_words_and_get_no_interval(tmp_path):
    write_pairs(tmp_path, 4)
    over_runs = compare.compare("cgil", "coop", [tmp_path])[0]
    assert numbers([over_runs])["low"] is None
    assert "better" not in over_runs.header
    assert any("4 pairs of runs: too few" in note and "at least 5" in note for note in over_runs.notes)


def test_five_pairs_get_an_interval_and_a_verdict_that_knows_the_direction(tmp_path):
    write_pairs(tmp_path, 5)
    tables = compare.compare("coop", "cgil", [tmp_path], ["last", "forgetting"])
    last = numbers(tables)
    assert last["low"] <= last["difference"] <= last["high"] < 0
    assert last["better"] == "B"
    assert "one class order" in " ".join(tables[0].notes)


def test_less_forgetting_is_better(tmp_path):
    for seed in range(5):
        write_run(tmp_path, BAD, method="coop", seed=seed, images=100)
        write_run(tmp_path, shifted(GOOD, [[0, 0, 0], [0, 0, 0], [0.01 * seed, 0, 0]]), method="cgil", seed=seed, images=100)
    found = numbers(compare.compare("cgil", "coop", [tmp_path]), "forgetting")
    assert found["difference"] < 0
    assert found["better"] == "A"


def test_a_difference_that_ignores_the_seed_is_no_evidence_over_seeds(tmp_path):
    for seed in range(6):
        write_run(tmp_path, GOOD, method="cgil", seed=seed)
        write_run(tmp_path, BAD, method="coop", seed=seed)
    over_runs = compare.compare("cgil", "coop", [tmp_path], ["last"])[0]
    assert [cell.text for cell in over_runs.rows[0]] == ["Last", "80.00", "50.00", "+30.00", "all equal", "-"]
    assert "does not depend on the seed" in " ".join(over_runs.notes)


def test_swapping_a_and_b_flips_every_sign(tmp_path):
    write_pairs(tmp_path, 6)
    names = ["last", "bwt", "ece", "auroc"]
    one, other = (compare.compare(*sides, [tmp_path], names) for sides in (("cgil", "coop"), ("coop", "cgil")))
    for a, b in zip(one[0].data + one[1].data, other[0].data + other[1].data):
        assert (a["a"], a["b"], a["difference"]) == (b["b"], b["a"], -b["difference"])
        if a["low"] is not None:
            assert (a["low"], a["high"]) == (-b["high"], -b["low"])
    assert [row["p"] for row in one[1].data] == [row["p"] for row in other[1].data]


def test_runs_without_a_partner_are_named(tmp_path):
    write_pairs(tmp_path, 2)
    write_run(tmp_path, GOOD, method="cgil", seed=7)
    over_runs = compare.compare("cgil", "coop", [tmp_path])[0]
    assert numbers([over_runs])["pairs"] == 2
    assert "left out: order 0 seed 7 of A, without a partner" in " ".join(over_runs.notes)


# -- over test images -------------------------------------------------------------------------------------------


def test_images_are_paired_one_by_one(tmp_path):
    # of ten images a task, A is right on 0-7, B on 4-9: A alone on four, B alone on two, three tasks
    write_run(tmp_path, np.full((3, 3), 0.8), method="cgil")
    write_run(tmp_path, np.full((3, 3), 0.6), method="coop", first_right=4)
    found = compare.compare("cgil", "coop", [tmp_path])[1].data[0]
    assert (found["only_a"], found["only_b"], found["images"]) == (12, 6, 30)
    assert found["difference"] == pytest.approx(0.2)
    assert found["low"] < 0.2 < found["high"]
    assert found["p"] == pytest.approx(2 * 31180 / 2**18)  # C(18,0) + ... + C(18,6) = 31180


def test_several_pairs_share_holms_correction(tmp_path):
    for seed in range(2):
        write_run(tmp_path, np.full((3, 3), 0.8), method="cgil", seed=seed)
        write_run(tmp_path, np.full((3, 3), 0.6), method="coop", seed=seed, first_right=4)
    over_images = compare.compare("cgil", "coop", [tmp_path])[1]
    assert [row["p"] for row in over_images.data] == pytest.approx([2 * 2 * 31180 / 2**18] * 2)
    assert "Holm's correction for 2 pairs" in " ".join(over_images.notes)


@pytest.mark.parametrize("kind", ["class-incremental", "task-incremental"])
def test_the_accuracy_over_images_is_that_of_the_records(tmp_path, kind):
    write_run(tmp_path, GOOD, method="cgil", scenario=kind)
    write_run(tmp_path, BAD, method="coop", scenario=kind)
    over_images = compare.compare("cgil", "coop", [tmp_path])[1]
    assert (over_images.data[0]["a"], over_images.data[0]["b"]) == (pytest.approx(0.8), pytest.approx(0.5))
    assert ("own classes compete" in over_images.reading) == (kind == "task-incremental")


def test_runs_without_per_image_scores_are_named(tmp_path):
    write_run(tmp_path, GOOD, method="cgil")
    folder = write_run(tmp_path, BAD, method="coop")
    (folder / "samples.safetensors").unlink()
    over_images = compare.compare("cgil", "coop", [tmp_path])[1]
    assert over_images.data == []
    assert folder.name in over_images.notes[0]


# -- who meets whom ---------------------------------------------------------------------------------------------


def test_folders_of_one_run_each_are_compared_whatever_the_method(tmp_path):
    a = write_run(tmp_path, GOOD, method="cgil")
    b = write_run(tmp_path, BAD, method="coop", overrides="epochs=3")
    tables = compare.compare(str(a), str(b), [])
    assert numbers(tables)["difference"] == pytest.approx(0.3)
    assert f"B = coop (epochs=3) in {b}" in tables[0].caption


def test_folders_of_several_methods_are_compared_method_by_method(tmp_path):
    for folder, matrix in (("old", BAD), ("new", GOOD)):
        write_run(tmp_path / folder, matrix, method="coop")
        write_run(tmp_path / folder, matrix, method="cgil")
    tables = compare.compare(str(tmp_path / "new"), str(tmp_path / "old"), [])
    assert [table.caption.split()[2] for table in tables] == ["cgil", "cgil", "coop", "coop"]
    assert numbers(tables)["difference"] == pytest.approx(0.3)


def test_a_folder_of_a_methods_name_is_not_taken_for_its_runs(tmp_path, monkeypatch):
    write_pairs(tmp_path / "results", 1)
    (tmp_path / "coop").mkdir()  # the package of somebody who works on the method
    monkeypatch.chdir(tmp_path)
    assert numbers(compare.compare("cgil", "coop", [tmp_path / "results"]))["difference"] == pytest.approx(0.2)
    with pytest.raises(BenchError, match="no finished run"):
        compare.compare("cgil", "./coop", [tmp_path / "results"])


def test_each_protocol_has_its_own_tables(tmp_path):
    write_pairs(tmp_path, 1)
    write_pairs(tmp_path, 1, protocol="toy-b")
    write_run(tmp_path, GOOD, method="cgil", protocol="toy-c")
    tables = compare.compare("cgil", "coop", [tmp_path])
    assert [table.conditions["protocol"] for table in tables] == ["toy-3x2", "toy-3x2", "toy-b", "toy-b"]
    assert tables[-1].notes[-1] == "only cgil was run on toy-c"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "ViT-B-16"}, "backbone mini against ViT-B-16"),
        ({"protocol_version": "2"}, "protocol_version 1 against 2"),
        ({"limits": "train=5"}, "limits none against train=5"),
        ({"seed": 3}, "no seeds in common on toy-3x2: order 0 seed 0 against order 0 seed 3"),
        ({"order_seed": 1}, "no seeds in common"),
    ],
)
def test_runs_that_do_not_match_are_refused_in_one_line(tmp_path, changes, message):
    write_run(tmp_path, GOOD, method="cgil")
    write_run(tmp_path, BAD, method="coop", **changes)
    with pytest.raises(BenchError, match=message) as caught:
        compare.compare("cgil", "coop", [tmp_path])
    assert "\n" not in str(caught.value)


def test_other_weights_under_the_same_name_are_refused(tmp_path):
    write_run(tmp_path, GOOD, method="cgil")
    manifest = write_run(tmp_path, BAD, method="coop") / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"weights_digest": "f" * 64}))
    with pytest.raises(BenchError, match="pretrained mini, weights [0-9a-f]{8} against mini, weights ffffffff"):
        compare.compare("cgil", "coop", [tmp_path])


def test_other_test_images_are_refused(tmp_path):
    write_run(tmp_path, GOOD, method="cgil")
    manifest = write_run(tmp_path, BAD, method="coop", images=20) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"images_digest": ""}))
    with pytest.raises(BenchError, match="different test images"):
        compare.compare("cgil", "coop", [tmp_path])


def test_two_runs_of_one_seed_are_refused(tmp_path):
    write_run(tmp_path, GOOD, method="cgil")
    write_run(tmp_path, BAD, method="coop")
    again = write_run(tmp_path, BAD, method="coop", seed=1)
    path = again / "records.csv"
    path.write_text(path.read_text().replace(",0,1,", ",0,0,"))  # as after a new version of the method: same seed, new id
    with pytest.raises(BenchError, match="coop on toy-3x2 has two runs with order seed 0 and seed 0"):
        compare.compare("cgil", "coop", [tmp_path])


def test_an_unknown_method_and_an_ambiguous_folder_are_refused(tmp_path):
    write_pairs(tmp_path, 1)
    with pytest.raises(BenchError, match="unknown method or folder 'coup'; did you mean coop"):
        compare.compare("coup", "cgil", [tmp_path])
    with pytest.raises(BenchError, match=r"holds several methods \(cgil, coop\)"):
        compare.compare("coop", str(tmp_path), [tmp_path])
    with pytest.raises(BenchError, match="unknown metric 'lst'; did you mean last"):
        compare.compare("coop", "cgil", [tmp_path], ["lst"])


@pytest.mark.parametrize("format", ["plain", "markdown", "latex", "html", "csv", "json"])
def test_every_format_holds_the_difference(tmp_path, format):
    write_pairs(tmp_path, 5)
    text = compare.render("cgil", "coop", [tmp_path], ["last"], format)
    assert "+18.00" in text or "0.18" in text or "0.1799999" in text


# -- values and ranking -----------------------------------------------------------------------------------------


def test_the_order_of_rows_changes_nothing_and_records_stay_as_they_are(tmp_path):
    write_pairs(tmp_path, 2)
    write_run(tmp_path, BAD, method="zero-shot")
    found = loaded.load([tmp_path])
    kept = found.table.copy()
    names = [name for name, metric in METRICS.items() if metric.needs != "samples"]
    one = values(found.table, names).sort_values("run_id", ignore_index=True)
    other = values(found.table.sample(frac=1, random_state=0), names).sort_values("run_id", ignore_index=True)
    assert one.equals(other)
    assert found.table.equals(kept)


def test_forward_transfer_is_against_the_zero_shot_run_of_the_same_class_order(tmp_path):
    flat = np.full((3, 3), 0.5)
    for order, accuracies in ((0, flat), (1, flat + 0.2)):
        write_run(tmp_path, accuracies, method="zero-shot", order_seed=order)
        write_run(tmp_path, flat, method="coop", order_seed=order)
    found = values(records.load([tmp_path]), ["forward_transfer"])
    coop = found[found["method"] == "coop"].sort_values("order_seed")
    assert coop["forward_transfer"].tolist() == pytest.approx([0.0, -0.2])


def write_league(out, protocols, methods=("a", "b", "c", "d"), **conditions):
    """Each method is one tenth better than the one before, on every protocol."""
    for protocol in range(protocols):
        for place, method in enumerate(methods):
            write_run(out, np.full((3, 3), 0.2 + 0.1 * place), method=method, protocol=f"toy-{protocol}", **conditions)


def test_a_method_that_always_wins_has_rank_one(tmp_path):
    write_league(tmp_path, 6)
    found = ranking.rank(records.load([tmp_path]))
    assert found.names == ["d", "c", "b", "a"]
    assert found.ranks.tolist() == [1, 2, 3, 4]
    assert found.cd == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 6)), rel=1e-3)  # 1.91
    assert found.p < 0.001
    assert found.cliques == [(0, 1), (1, 2), (2, 3)]


def test_too_few_protocols_get_ranks_but_no_critical_difference(tmp_path):
    write_league(tmp_path, 4)
    found = ranking.rank(records.load([tmp_path]))
    assert (found.cd, found.p, found.cliques) == (None, None, [])
    assert "4 protocols: too few for a critical difference (at least 5)" in ranking.render([tmp_path])


def test_without_evidence_nobody_can_be_told_apart(tmp_path):
    for protocol in range(6):
        for place, method in enumerate("abc"):
            write_run(tmp_path, np.full((3, 3), 0.3 + 0.1 * ((place + protocol) % 3)), method=method, protocol=f"toy-{protocol}")
    found = ranking.rank(records.load([tmp_path]))
    assert found.ranks.tolist() == [2, 2, 2]
    assert found.cliques == [(0, 2)]
    assert "no evidence that the methods differ" in ranking.render([tmp_path])


def test_scores_are_means_over_seeds_and_equal_scores_share_a_rank(tmp_path):
    write_run(tmp_path, np.full((3, 3), 0.4), method="a", seed=0)
    write_run(tmp_path, np.full((3, 3), 0.6), method="a", seed=1)
    for seed in range(2):
        write_run(tmp_path, np.full((3, 3), 0.5), method="b", seed=seed)
    found = ranking.rank(records.load([tmp_path]))
    assert found.scores.tolist() == [pytest.approx([0.5, 0.5])]
    assert found.block_ranks.tolist() == [[1.5, 1.5]]


def test_lower_is_better_reverses_the_ranks(tmp_path):
    write_run(tmp_path, GOOD, method="cgil")
    write_run(tmp_path, BAD, method="coop")
    assert ranking.rank(records.load([tmp_path]), "forgetting").names == ["cgil", "coop"]
    assert ranking.rank(records.load([tmp_path]), "ece", loaded.load([tmp_path]).samples_of).metrics == ["ece"]


def test_each_scenario_is_ranked_by_its_own_last(tmp_path):
    write_league(tmp_path, 1)
    for place, method in enumerate("abcd"):
        write_run(tmp_path, np.full((3, 3), 0.2 + 0.1 * place), method=method, protocol="toy-tasks", scenario="task-incremental")
    assert ranking.rank(records.load([tmp_path])).metrics == ["last", "mtil_last"]


def test_what_cannot_be_ranked_is_left_out_by_name(tmp_path):
    write_league(tmp_path, 2)
    write_run(tmp_path, GOOD, method="new", protocol="toy-0")
    write_run(tmp_path, np.ones((3, 3)), method="joint", protocol="toy-0", joint=True)
    found = ranking.rank(records.load([tmp_path]))
    assert set(found.names) == set("abcd")
    assert found.notes == ["left out, not available on toy-1: new", "left out, learned all tasks at once: joint"]


def test_a_protocol_under_two_conditions_is_refused(tmp_path):
    write_league(tmp_path, 1)
    write_league(tmp_path, 1, limits="train=5")
    with pytest.raises(BenchError, match=r"toy-0 was run under several conditions \(limits none and train=5\)"):
        ranking.rank(records.load([tmp_path]))


def test_one_method_is_no_ranking(tmp_path):
    write_league(tmp_path, 2, methods=("a",))
    with pytest.raises(BenchError, match="needs two methods"):
        ranking.rank(records.load([tmp_path]))


def test_two_methods_are_compared_without_what_is_slow_to_load(tmp_path):
    """scipy.stats takes longer to import than everything else that a comparison does."""
    for method in ("cgil", "coop"):
        write_run(tmp_path, [[0.9, 0.5], [0.8, 0.7]], method=method)
    code = (
        "import sys; from pathlib import Path; from bench.reports import compare; "
        f"compare.render('cgil', 'coop', [Path({str(tmp_path)!r})]); "
        "print([name for name in ('torch', 'scipy.stats', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_nothing_here_imports_torch():
    code = (
        "import sys; from bench.gate import comparison, report; from bench.reports import compare, ranking; "
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# -- what is on one side only, and what differs -------------------------------------------------------------------


def notes(tables) -> str:
    return " | ".join(note for table in tables for note in table.notes)


def alter(folder, **changes) -> None:
    """Change a manifest: top-level fields, and those of its identity under `identity`."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    identity = manifest["identity"] | changes.pop("identity", {})
    path.write_text(json.dumps(manifest | changes | {"identity": identity}))


def test_conditions_that_one_side_lacks_are_named_with_what_differs(tmp_path):
    for method in ("cgil", "coop"):
        write_run(tmp_path, GOOD, method=method)
    write_run(tmp_path, GOOD, method="cgil", limits="train=5")
    write_run(tmp_path, GOOD, method="coop", protocol_version="2")
    write_run(tmp_path, GOOD, method="coop", protocol="other-3x2")
    said = notes(compare.compare("cgil", "coop", [tmp_path]))
    assert "only cgil was run on toy-3x2" in said and "limits train=5 against none of coop" in said
    assert "only coop was run on toy-3x2" in said and "protocol_version 2 against 1 of cgil" in said
    assert "only coop was run on other-3x2" in said


def test_methods_and_settings_that_one_folder_lacks_are_named(tmp_path):
    for place in ("old", "new"):
        for method in ("cgil", "coop"):
            write_run(tmp_path / place, GOOD, method=method)
    write_run(tmp_path / "new", GOOD, method="cgil", overrides="epochs=9")
    write_run(tmp_path / "old", GOOD, method="proof")
    said = notes(compare.compare(str(tmp_path / "old"), str(tmp_path / "new"), []))
    assert f"only in {tmp_path / 'old'}, not compared: proof" in said
    assert f"only in {tmp_path / 'new'}, not compared: cgil (epochs=9); the other folder has cgil" in said


def test_a_changed_default_another_version_and_other_libraries_are_said(tmp_path):
    write_run(tmp_path / "old", GOOD, method="cgil")
    new = write_run(tmp_path / "new", GOOD, method="cgil")
    alter(new, identity={"settings": {"epochs": 5}, "method_version": "2"}, environment={"torch": "9.9", "python": "3.11"})
    alter(tmp_path / "old" / new.relative_to(tmp_path / "new"), environment={"torch": "2.4", "python": "3.11"})
    said = notes(compare.compare(str(tmp_path / "old"), str(tmp_path / "new"), []))
    assert "A -> B: epochs 3 -> 5" in said and "A -> B: method version 1 -> 2" in said and "A -> B: torch 2.4 -> 9.9" in said


def test_a_pair_on_other_images_is_left_out_by_name_and_the_others_are_compared(tmp_path):
    for seed in range(3):
        write_run(tmp_path, GOOD, method="cgil", seed=seed)
        folder = write_run(tmp_path, BAD, method="coop", seed=seed)
    alter(folder, images_digest="other")
    tables = compare.compare("cgil", "coop", [tmp_path])
    assert numbers(tables)["pairs"] == 2
    assert f"and {folder.name} saw different images under the same name" in notes(tables)


def test_seeds_of_two_versions_of_a_method_are_never_one_row(tmp_path):
    from bench.reports import tables
    from bench.results import records

    write_run(tmp_path, GOOD, method="cgil", seed=0)
    alter(write_run(tmp_path, BAD, method="cgil", seed=1), identity={"method_version": "2"})
    alter(write_run(tmp_path, BAD, method="coop", seed=0), identity={"settings": {"epochs": 5}})
    write_run(tmp_path, GOOD, method="coop", seed=1)
    said = tables.render(records.load([tmp_path]))
    rows = [line.split("  ")[0] for line in said.splitlines() if line.startswith(("cgil", "coop"))]
    assert sorted(rows) == ["cgil (method version=1)", "cgil (method version=2)", "coop (epochs=3)", "coop (epochs=5)"]


def test_runs_on_other_images_are_never_one_row(tmp_path):
    from bench.reports import tables
    from bench.results import records

    for seed, digest in enumerate(("a", "b", None)):
        folder = write_run(tmp_path, GOOD, method="cgil", seed=seed)
        if digest:
            alter(folder, images={"toy": {"train": digest, "test": digest}})
    said = tables.render(records.load([tmp_path]))
    captions = [line for line in said.splitlines() if line.startswith("toy-3x2")]
    assert len(captions) == 3 and len(set(captions)) == 3
    assert sum("images not stated" in line for line in captions) == 1 and " ± " not in said


def test_runs_on_the_same_images_stay_together_whatever_an_earlier_version_did_not_store(tmp_path):
    from bench.reports import tables
    from bench.results import records

    write_run(tmp_path, GOOD, method="cgil", seed=0)
    alter(write_run(tmp_path, GOOD, method="cgil", seed=1), images={"toy": {"train": "a", "test": "b"}})
    said = tables.render(records.load([tmp_path]))
    assert "images" not in said and "±" in said


def test_device_and_code_that_differ_within_a_row_are_said(tmp_path):
    from bench.reports import tables
    from bench.results import loaded

    write_run(tmp_path, GOOD, method="cgil", seed=0)
    alter(write_run(tmp_path, GOOD, method="cgil", seed=1), identity={"device": "cuda"})
    found = loaded.load([tmp_path])
    said = tables.render(found.table, manifests=found.manifests)
    assert "cgil: averaged over runs that differ in device (cpu, cuda)" in said
