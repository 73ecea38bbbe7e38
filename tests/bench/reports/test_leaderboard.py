"""Leaderboards rank only what was measured under equal conditions, and average only what one maker measured with one code."""

import json
import shutil

import numpy as np
import pytest

from bench.errors import BenchError
from bench.reports.leaderboard import boards, to_table
from bench.results.measured import files
from tests.measured_runs import changed, shipped_run, write_back
from tests.results_folder import write_run


def flat(value):
    return np.full((2, 2), value).tolist()


def shown(board):
    return [(place.method, rank, place.who) for place, rank in zip(board.places, board.ranks)]


def test_places_are_ranked_and_equal_numbers_share_a_rank(tmp_path):
    for method, last in (("zero-shot", 0.4), ("coop", 0.7), ("cgil", 0.9), ("zscl", 0.7)):
        write_run(tmp_path / "mine", flat(last), method=method)
    write_run(tmp_path / "mine", flat(1.0), method="joint", joint=True)
    (board,) = boards([tmp_path / "mine"], lambda path: path.name)
    assert shown(board) == [
        ("cgil", 1, "mine"), ("coop", 2, "mine"), ("zscl", 2, "mine"), ("zero-shot", 4, "mine"), ("joint", None, "mine"),
    ]  # fmt: skip
    table = to_table(board)
    assert [row[0].text for row in table.rows][-1] == "joint ‡" and table.rows[-1][1].text == "-"
    assert table.rows[0][2].text == "90.0" and "‡ learned all tasks at once (upper bound), not ranked" in table.notes


def test_folders_are_ranked_against_each_other_and_never_averaged(tmp_path):
    for name, last in (("one", 0.7), ("other", 0.8)):
        for seed in (0, 1):
            write_run(tmp_path / name, flat(last), method="coop", seed=seed)
    (board,) = boards([tmp_path / "one", tmp_path / "other"], lambda path: path.name)
    assert shown(board) == [("coop", 1, "other"), ("coop", 2, "one")]
    assert [len(place.runs) for place in board.places] == [2, 2]


@pytest.mark.parametrize(
    "condition",
    ["protocol_version", "backbone", "pretrained", "templates", "exemplars", "limits"],
)
def test_conditions_are_never_mixed(condition, tmp_path):
    write_run(tmp_path / "one", flat(0.7), method="coop")
    other = {"limits": "train=5"}.get(condition, "other")
    write_run(tmp_path / "other", flat(0.8), method="coop", **{condition: other})
    assert [len(board.places) for board in boards([tmp_path / "one", tmp_path / "other"])] == [1, 1]


def test_other_images_and_weights_under_the_same_names_are_other_conditions(tmp_path):
    for name, images, weights in (("a", "1", "w"), ("b", "2", "w"), ("c", "1", "v"), ("d", "1", "w")):
        manifest = write_run(tmp_path / name, flat(0.7), method=f"coop-{name}") / "manifest.json"
        facts = json.loads(manifest.read_text()) | {"images": {"mini60": {"test": images}}, "weights_digest": weights}
        manifest.write_text(json.dumps(facts))
    found = boards([tmp_path / name for name in "abcd"])
    assert sorted(tuple(place.method for place in board.places) for board in found) == [
        ("coop-a", "coop-d"),
        ("coop-b",),
        ("coop-c",),
    ]
    assert len(boards([tmp_path])) == 3  # read together, bench.results.run_facts has set them apart already


def test_other_versions_or_code_make_another_row(tmp_path):
    for seed, torch in ((0, "2.15"), (1, "2.15"), (2, "2.16")):
        manifest = write_run(tmp_path, flat(0.7), method="coop", seed=seed) / "manifest.json"
        facts = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(facts | {"environment": facts["environment"] | {"torch": torch}}))
    (board,) = boards([tmp_path])
    assert sorted((len(place.runs), place.made_with["torch"]) for place in board.places) == [(1, "2.16"), (2, "2.15")]


def test_published_files_say_who_and_when_and_are_not_counted_twice(tmp_path):
    run, other = shipped_run("simplecil"), shipped_run("zero-shot")
    files.write(tmp_path / "theirs.csv", [run, other])
    folder = tmp_path / "results"
    write_back(run, folder)
    write_back(shipped_run("simplecil", 1), folder)
    (board,) = boards([folder, tmp_path / "theirs.csv"], lambda path: path.name)
    assert shown(board) == [
        ("simplecil", 1, "continual-clip-bench"), ("simplecil", 1, "results"), ("zero-shot", 3, "continual-clip-bench"),
    ]  # fmt: skip
    theirs, mine = board.places[0], board.places[1]
    assert theirs.when == run["published"] and theirs.made_with["torch"] == run["torch"]
    assert mine.run_ids == [shipped_run("simplecil", 1)["run_id"]]
    assert theirs.conditions == mine.conditions


def test_the_same_folder_twice_gives_no_second_row(tmp_path):
    write_run(tmp_path / "one", flat(0.7), method="coop")
    (board,) = boards([tmp_path / "one", tmp_path / "one"])
    assert len(board.places) == 1


def test_a_copied_run_gives_no_second_row_and_the_same_run_carried_out_elsewhere_does(tmp_path):
    run = write_run(tmp_path / "one", flat(0.7), method="coop")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    assert [len(board.places) for board in boards([tmp_path / "one", tmp_path / "copy"])] == [1]
    manifest = tmp_path / "copy" / run.relative_to(tmp_path / "one") / "manifest.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts | {"cost": facts.get("cost", {}) | {"seconds_prepare": 12.5}}))
    assert [len(board.places) for board in boards([tmp_path / "one", tmp_path / "copy"])] == [2]


def test_a_changed_number_in_a_published_file_is_refused(tmp_path):
    path = tmp_path / "theirs.csv"
    files.write(path, [shipped_run("simplecil")])
    path.write_text(path.read_text().replace(",2.15.0,", ",2.15.1,", 1))
    with pytest.raises(BenchError, match="bench publish --check says more"):
        boards([path])


def test_what_is_neither_a_folder_nor_a_published_file_is_refused(tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BenchError, match="not a file that bench publish has written"):
        boards([tmp_path / "notes.csv"])
    with pytest.raises(BenchError, match="no such file or folder"):
        boards([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="no finished run there"):
        boards([tmp_path / "empty"])


def test_rows_of_another_torch_than_published_stay_apart_in_one_board(tmp_path):
    run = shipped_run("simplecil")
    files.write(tmp_path / "a.csv", [run])
    files.write(tmp_path / "b.csv", [changed(run, torch="2.99.0")])
    (board,) = boards([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert sorted(place.made_with["torch"] for place in board.places) == [run["torch"], "2.99.0"]
