"""`bench publish`: which runs become rows, which tables are refused, and how rows stand beside own numbers."""

import csv
import io
import json
import os
import re

import pytest
from click.testing import CliRunner

from bench.commands.main import main
from bench.results.measured import files
from bench.results.measured.schema import COLUMNS, METRIC_COLUMNS
from bench.system import registry
from bench.system.files import sha256
from tests.measured_runs import REAL, changed, shipped_run, write_back


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """bench("publish", "results", ...) in an empty folder: (exit code, what was printed, the lines of complaint)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, list[str]]:
        found = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found.exit_code, found.stdout, found.stderr.splitlines()

    return call


@pytest.fixture
def results(tmp_path):
    """A results folder with two runs."""
    for seed in (0, 1):
        write_back(shipped_run(seed=seed), tmp_path / "results")
    return tmp_path / "results"


# -- from a results folder --------------------------------------------------------------------------------------


def test_finished_runs_become_a_table_that_passes_its_own_check(bench, results, tmp_path):
    code, printed, complaints = bench("publish", results, "-o", "out/measured.csv", "--who", "Ada B.")
    assert (code, complaints) == (0, []) and "2 runs of 1 method on 1 protocol" in printed
    runs = files.read(tmp_path / "out/measured.csv")
    assert [run.seeds for run in runs] == [(0, 0), (0, 1)] and {run["who"] for run in runs} == {"Ada B."}
    assert all(run.metrics == shipped_run(seed=seed).metrics for seed, run in enumerate(runs))
    assert runs[0]["seconds_learn"] == "1.0" and runs[0]["exemplar_bytes"] == "" and runs[0]["open_clip"] == "3.3.0"
    assert bench("publish", "--check", "out/measured.csv")[0] == 0


def test_nothing_in_the_table_says_where_or_by_whom_it_was_made(bench, results, tmp_path):
    bench("publish", results, "-o", "measured.csv")
    text = (tmp_path / "measured.csv").read_text()
    assert str(tmp_path) not in text and ",anonymous," in text
    assert not {os.environ.get("USER", "-"), os.uname().nodename} & set(re.split(r"[\W_]+", text))


def edit(folder, old: str, new: str, checksum: bool = False) -> None:
    """Change an accuracy in records.csv, and in the manifest its checksum."""
    path, manifest = folder / "records.csv", folder / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if checksum:
        manifest.write_text(manifest.read_text().replace(sha256(text.encode()), sha256(path.read_bytes())))


def unfinished(folder):
    (folder / "manifest.json").unlink()


def renamed(folder):
    folder.rename(folder.with_name("0123456789abcdef"))


def without_samples(folder):
    (folder / "samples.safetensors").unlink()


DAMAGES = {
    "edited": (lambda folder: edit(folder, ",0.9025,", ",0.9925,"), "records.csv is damaged: its checksum differs"),
    "edited-with-checksum": (lambda folder: edit(folder, ",0.9025,", ",0.9925,", True), "the predictions in samples"),
    "other-method": (lambda folder: edit(folder, ",simplecil,", ",coop,", True), "rows of one run differ"),
    "unfinished": (unfinished, "unfinished, it has no manifest.json"),
    "renamed": (renamed, "manifest.json does not belong to this run"),
    "without-samples": (without_samples, "samples.safetensors is missing"),
    "damaged-manifest": (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json"),
    "empty-manifest": (lambda folder: (folder / "manifest.json").write_text('{"run_id": 3}'), "manifest.json is damaged"),
}


@pytest.mark.parametrize("damage, why", DAMAGES.values(), ids=DAMAGES)
def test_a_run_that_is_not_as_it_was_written_is_refused_by_name(bench, results, tmp_path, damage, why):
    broken = next(results.glob("*/simplecil/" + shipped_run(seed=1)["run_id"]))
    damage(broken)
    (tmp_path / "measured.csv").write_bytes(REAL.read_bytes())
    code, printed, complaints = bench("publish", results, "-o", "measured.csv")
    assert code == 2 and not printed and len(complaints) == 2 and "1 of 2 runs cannot be published" in complaints[-1]
    assert why in complaints[0] and "mini60-6x10/simplecil/" in complaints[0]
    assert (tmp_path / "measured.csv").read_bytes() == REAL.read_bytes()  # nothing was written
    code, printed, complaints = bench("publish", results, "-o", "measured.csv", "--leave-out-refused")
    assert code == 0 and "1 of 2 left out" in printed and "left out: mini60-6x10/simplecil/" in complaints[0]
    assert [run.seeds for run in files.read(tmp_path / "measured.csv")] == [(0, 0)]


SETTINGS = shipped_run().identity["settings"]
REFUSED = {
    "limited": ({"limits": "test=2"}, "LIMITED to test=2 images a class"),
    "synthetic": ({"limits": "data=synthetic"}, "SYNTHETIC images"),
    "validation": ({"protocol": "mini60-6x10+validation=20%"}, "validation images"),
    "validation-by-limits": ({"limits": "validation=20%"}, "validation images"),
    "unknown-method": ({"method": "simplecli"}, "unknown method 'simplecli'; did you mean"),
    "unknown-protocol": ({"protocol": "mini60-5x12x"}, "unknown protocol"),
    "unknown-option": ({"protocol": "mini60-6x10+exemplar"}, "unknown option"),
    "own-folder": ({"protocol": "folder:pets-5x4"}, "a folder of one's own"),
    "path": ({"settings": {**SETTINGS, "reference_images": "/home/ada/images"}}, "names a folder or file of one machine"),
    "other-exemplars": ({"protocol": "mini60-6x10+exemplars=20-per-class"}, "column 'exemplars' holds 'none'"),
}


@pytest.mark.parametrize("identity, why", REFUSED.values(), ids=REFUSED)
def test_runs_that_nobody_may_compare_or_can_repeat_are_refused(bench, tmp_path, identity, why):
    run = changed(shipped_run(), identity)
    write_back(run, tmp_path / "results")
    code, printed, complaints = bench("publish", "results", "-o", "measured.csv", "--leave-out-refused")
    assert code == 2 and not printed and why in complaints[0] and run["run_id"] in complaints[0]
    assert "nothing was written" in complaints[-1] and not (tmp_path / "measured.csv").exists()
    files.write(tmp_path / "forged.csv", [run])  # nor is a table taken that holds such a run
    code, _, complaints = bench("publish", "--check", "forged.csv")
    assert code == 2 and why in complaints[0]


def test_a_method_of_another_package_is_refused(bench, results, monkeypatch):
    real = registry.package
    monkeypatch.setattr(registry, "package", lambda kind, name: "theirs" if kind == "method" else real(kind, name))
    code, _, complaints = bench("publish", results, "-o", "measured.csv")
    assert code == 2 and "its method comes from the package theirs" in complaints[0]


def test_the_folder_of_a_file_that_a_setting_names_is_cut_off(bench, tmp_path):
    identity = {"settings": {"words": "sha256:" + "1" * 64}}
    run = changed(shipped_run(), identity, overrides="words=../ada/words.json@11111111")
    write_back(run, tmp_path / "results")
    assert bench("publish", "results", "-o", "measured.csv")[0] == 0
    (row,) = files.read(tmp_path / "measured.csv")
    assert row["overrides"] == "words=words.json@11111111" and bench("publish", "--check", "measured.csv")[0] == 0


def test_a_run_of_an_earlier_version_that_noted_no_images_is_refused(bench, tmp_path):
    write_back(shipped_run(), tmp_path / "results", images=None)
    code, _, complaints = bench("publish", "results", "-o", "measured.csv")
    assert code == 2 and "noted nothing of its images" in complaints[0]


def test_the_same_run_counts_once_and_with_other_numbers_not_at_all(bench, tmp_path):
    run = shipped_run()
    write_back(run, tmp_path / "a"), write_back(run, tmp_path / "b")
    assert "1 run of 1 method" in bench("publish", "a", "b", "-o", "measured.csv")[1]
    write_back(changed(run, None, correct=run["correct"].replace("0/0/seen=361", "0/0/seen=362")), tmp_path / "c")
    code, _, complaints = bench("publish", "a", "c", "-o", "measured.csv")
    assert code == 2 and "several folders with different numbers" in complaints[0]


@pytest.mark.parametrize(
    "arguments, why",
    [
        ((), "no path was given"),
        (("results",), "-o FILE"),
        (("results", "-o", "results"), "is a folder"),
        (("results", "-o", "notes.txt"), "holds no measured results"),
        (("absent", "-o", "m.csv"), "no such folder"),
        (("empty", "-o", "m.csv"), "no run there yet"),
        (("results", "-o", "m.csv", "--who", "=1+1"), "--who"),
        (("results", "-o", "m.csv", "--who", "two\nlines"), "--who"),
        (("--check", "absent.csv"), "absent.csv"),
        (("--check", "results"), "no table (*.csv) lies there"),
        (("--check", "notes.txt", "-o", "m.csv"), "--check only reads"),
    ],
)
def test_bad_input_gets_one_line(bench, results, tmp_path, arguments, why):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    code, printed, complaints = bench("publish", *arguments)
    assert code == 2 and not printed and len(complaints) == 1 and why in complaints[0]
    assert (tmp_path / "notes.txt").read_text() == "mine" and not (tmp_path / "m.csv").exists()


def test_a_writer_that_is_stopped_leaves_the_earlier_table(bench, results, tmp_path, monkeypatch):
    bench("publish", results, "-o", "measured.csv", "--who", "Ada")
    before = (tmp_path / "measured.csv").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert bench("publish", results, "-o", "measured.csv", "--who", "Bob")[0] == 2
    assert (tmp_path / "measured.csv").read_bytes() == before and not list(tmp_path.glob(".*"))


# -- tables that were handed in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", files.shipped(), ids=lambda path: path.name)
def test_what_ships_is_in_order(bench, path):
    assert bench("publish", "--check", path) == (0, f"{path}: {len(files.read(path))} runs, in order\n", [])


def test_a_run_of_one_person_stands_in_one_table(bench, tmp_path):
    assert files.shipped() and files.read_all(files.shipped())
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_bytes(REAL.read_bytes())
    code, _, complaints = bench("publish", "--check", tmp_path)
    assert code == 2 and "stands in" in complaints[0] and "one.csv" in complaints[0]


def rewritten(path, change) -> None:
    """The real table with its rows changed in place."""
    rows = list(csv.DictReader(io.StringIO(REAL.read_text())))
    names = list(rows[0])
    rows = change(rows) or rows
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name in {*names, *rows[0]}], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def cell(name: str, value: str):
    def change(rows):
        rows[1][name] = value

    return change


def within(name: str, old: str, new: str):
    return lambda rows: rows[1].update({name: rows[1][name].replace(old, new, 1)})


def without(name: str):
    return lambda rows: [{key: value for key, value in row.items() if key != name} for row in rows]


EDITS = {
    "metric": (cell("last", "0.9"), "last is 0.9, its accuracies give 0.78"),
    "metric-left-out": (cell("last", ""), "last is None"),
    "nan": (cell("last", "nan"), "column 'last' holds 'nan', which is not a number"),
    "word-for-number": (cell("avg", "good"), "column 'avg' holds 'good'"),
    "accuracy": (within("correct", "=361", "=362"), "something in the row was changed"),
    "too-many-right": (within("correct", "=361", "=401"), "401 right ones in 0/0/seen"),
    "cell-twice": (lambda rows: rows[1].update(correct=rows[1]["correct"] + " 0/0/seen=361"), "has the cell 0/0/seen twice"),
    "cell-outside": (cell("correct", "6/0/seen=3"), "there are 6 tasks"),
    "no-cells": (cell("correct", "all of them"), "column 'correct' is not"),
    "run-id": (cell("run_id", "0123456789abcdef"), "the run id is not the digest of the identity"),
    "seed": (cell("seed", "7"), "column 'seed' holds '7', the identity"),
    "identity": (within("identity", '"scale": 1.0', '"scale": 2.0'), "the run id is not"),
    "identity-nan": (lambda rows: rows[1].update(identity='{"settings": NaN}'), "column 'identity'"),
    "identity-other": (cell("identity", "[1]"), "holds no identity of a run"),
    "escape-sequence": (within("tasks", "classes 1-10", r"\u001b[31mred"), "column 'tasks' holds"),
    "too-many-tasks": (cell("tasks", str(["t"] * 1001).replace("'", '"')), "more than 1000"),
    "no-list-of-tasks": (cell("tasks", '{"a": 1}'), "column 'tasks' is not a list"),
    "images-of-tasks": (cell("test_images", "400 400"), "not one whole number a task"),
    "method": (cell("method", "coop"), "column 'method' holds 'coop'"),
    "scenario": (cell("scenario", "offline"), "unknown scenario"),
    "version": (cell("torch", "9.9"), "a cell was changed since bench publish wrote the row"),
    "who": (cell("who", "Somebody"), "a cell was changed since"),
    "device": (cell("device", "cuda H100"), "column 'device' holds"),
    "date": (cell("published", "yesterday"), "which is not a date"),
    "cost": (cell("seconds_learn", "-1"), "column 'seconds_learn' holds '-1'"),
    "digest": (cell("images", "xyz"), "column 'images' holds 'xyz'"),
    "empty": (cell("torch", ""), "column 'torch' is empty"),
    "newer": (lambda rows: [row.update(schema="2", later="1") for row in rows] and None, "written by a newer version (schema 2"),
    "duplicate": (lambda rows: [*rows, rows[1]], "stands in row 2 already"),
    "column-missing": (without("source"), "column 'source' is missing"),
    "column-unknown": (lambda rows: [row.update(mine="1") for row in rows] and None, "unknown column 'mine'"),
    "no-rows": (lambda rows: [], "holds no rows"),
}


@pytest.mark.parametrize("change, why", EDITS.values(), ids=EDITS)
def test_a_table_that_does_not_hold_together_is_refused(bench, tmp_path, change, why):
    path = tmp_path / "measured.csv"
    if why == "holds no rows":
        path.write_text(REAL.read_text().splitlines()[0] + "\n")
    else:
        rewritten(path, change)
    code, printed, complaints = bench("publish", "--check", path)
    assert code == 2 and not printed and why in complaints[0] and len(complaints) <= 2
    code, _, complaints = bench("table", "--measured", path)  # nor is it shown
    assert code == 2 and why in complaints[0] and len(complaints) == 1


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b'schema,run_id,who\n"1', REAL.read_bytes()[:5000]])
def test_what_is_no_table_gets_one_line(bench, tmp_path, text):
    (tmp_path / "measured.csv").write_bytes(text)
    code, printed, complaints = bench("publish", "--check", "measured.csv")
    assert code == 2 and not printed and len(complaints) == 1 and "measured.csv" in complaints[0]


def test_the_text_of_records_is_that_which_the_run_has_written(results):
    """The digest in a row is worth something because the row alone gives the file."""
    for path in results.rglob("records.csv"):
        assert sha256(path.read_bytes()) in REAL.read_text()


# -- beside own numbers -----------------------------------------------------------------------------------------


def rows_of(printed: str) -> dict[str, dict]:
    """Rows of the only table by their source."""
    (table,) = json.loads(printed)
    return {(row["method"], row["source"]): row for row in table["rows"]}


def test_measured_rows_stand_below_own_ones_and_are_never_averaged_with_them(bench, results, tmp_path):
    for seed in (0, 1):
        run = shipped_run(seed=seed)
        write_back(changed(run, None, correct=run["correct"].replace("5/5/seen=330", "5/5/seen=270")), tmp_path / "other")
    bench("publish", "other", "-o", "measured.csv", "--who", "Ada")
    alone = rows_of(bench("table", results, "--format", "json")[1])["simplecil", "measured"]
    found = rows_of(bench("table", results, "--measured", "measured.csv", "--format", "json")[1])
    theirs = next(row for (_, source), row in found.items() if source.startswith("measured by Ada, "))
    assert found["simplecil", "measured"] == alone and alone["runs"] == theirs["runs"] == 2
    assert theirs["last"] == pytest.approx(alone["last"] - 60 / 400 / 6)
    assert theirs["last_difference"] == pytest.approx(60 / 400 / 6)
    text = bench("table", results, "--measured", "measured.csv")[1]
    assert "Ada, handed in 20" in text and "torch 2.15.0" in text and "with OTHER numbers: " in text and "  measured [M1]" in text


def test_equal_runs_are_said_to_be_equal(bench, results):
    text = bench("table", results, "--measured", REAL)[1]
    assert "2 of these runs made here too" in text and "with equal numbers" in text


@pytest.mark.parametrize(
    "identity, cells, said",
    [
        ({"protocol_version": "2"}, {}, "other protocol_version"),
        ({}, {"templates": "12345678"}, "other templates"),
        ({"backbone": "ViT-B-16"}, {"backbone": "ViT-B-16"}, "other backbone"),
        ({"settings": {**SETTINGS, "scale": 2.0}}, {}, "other settings"),
        ({"order_seed": 5}, {}, "other class orders"),
    ],
)
def test_what_differs_is_said_and_no_difference_of_numbers_given(bench, tmp_path, identity, cells, said):
    write_back(changed(shipped_run(), identity, **cells), tmp_path / "own")
    own = json.loads(next((tmp_path / "own").rglob("manifest.json")).read_text())
    assert own["identity"] != shipped_run().identity or cells
    text = bench("table", "own", "--measured", REAL)[1]
    (row,) = [line for line in text.splitlines() if line.startswith("  measured")]
    assert said in row and "(" not in row and "differs in" in text


def test_measured_results_alone(bench):
    code, text, _ = bench("table", "--measured")
    assert code == 0 and "measured by others" in text and "simplecil, measured [M" in text
    assert bench("table", "--measured", REAL, "--view", "tasks", "--published")[0] == 0
    for format in ("markdown", "latex", "html", "csv", "json"):
        assert bench("table", "--measured", REAL, "--format", format)[0] == 0


def test_a_table_without_the_option_is_told_where_it_belongs(bench):
    code, _, complaints = bench("table", REAL)
    assert code == 2 and f"write --measured {REAL}" in complaints[0]


def test_other_code_of_a_method_is_said(bench, tmp_path):
    write_back(shipped_run(), tmp_path / "own")  # its manifest names another source than the row
    assert "the method's code is another one here" in bench("table", "own", "--measured", REAL)[1]


def test_a_folder_behind_the_option_is_one_of_own_results(bench, results):
    assert "made here too" in bench("table", "--measured", results)[1]


def test_a_table_of_nothing_is_still_a_mistake(bench, results):
    code, _, complaints = bench("table")
    assert code == 2 and complaints == ["bench: Missing argument 'PATHS...'. (bench table --help says more)"]
    code, _, complaints = bench("table", results, "--measured", "--view", "matrix")
    assert code == 2 and "--view matrix has own runs only" in complaints[0]


# -- the page ---------------------------------------------------------------------------------------------------


def test_the_page_has_the_columns_of_the_code():
    page = (REAL.parent.parent / "docs" / "measured.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| (.*) \|$", page, re.MULTILINE)
    assert {name: (kind, meaning) for name, kind, meaning in rows} == {
        name: (kind, meaning.replace("|", r"\|")) for name, (kind, meaning) in COLUMNS.items()
    }
    assert all(f"`{name}`" in page for name in METRIC_COLUMNS)
