"""`bench.run`, `bench.results` and `bench.table`, as a notebook calls them."""

import subprocess
import sys

import pandas as pd
import pytest

import bench
from bench.commands import notebook
from bench.reports import tables
from bench.results import records
from tests.bench.fake_records import fake_records

STREAM = {"protocol": "mini-letters-2x10", "limit_train": 1, "limit_test": 1}


@pytest.fixture(scope="module")
def here(tmp_path_factory, cache):
    """Options of a place of this module's own."""
    return {**STREAM, "out": tmp_path_factory.mktemp("runs"), "cache_dir": cache}


@pytest.fixture(scope="module")
def runs(here):
    return bench.run(methods=["zero-shot", "simplecil"], seeds=range(2), **here)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Records of three methods, as `records.load` finds them."""
    table = fake_records(methods=("zero-shot", "coop"))
    for run_id, own in table.groupby("run_id", sort=False):
        folder = tmp_path / "mini60-6x10" / own["method"].iloc[0] / run_id
        folder.mkdir(parents=True)
        (folder / "records.csv").write_text(records.to_csv(own.to_dict("records")))
        (folder / "manifest.json").write_text(f'{{"run_id": "{run_id}"}}')
    return tmp_path


def test_run_gives_a_row_for_every_run_of_the_plan(runs, here):
    assert runs["method"].tolist() == ["zero-shot"] * 2 + ["simplecil"] * 2 and runs["seed"].tolist() == [0, 1, 0, 1]
    assert runs["last"].between(0, 1).all() and all(str(here["out"]) in folder for folder in runs["folder"])
    again = bench.run(methods="zero-shot,simplecil", seeds="0,1", **here)  # finished already
    pd.testing.assert_frame_equal(again, runs)


def test_a_plan_runs_nothing(runs, here):
    plan = bench.run(methods=["zero-shot", "coop"], dry_run=True, set={"coop": {"epochs": 1}}, **here)
    assert plan["status"].tolist() == ["finished", "new"] and plan["overrides"].tolist() == ["", "epochs=1"]


def test_a_class_of_this_process_is_a_method(here):
    class Blind(bench.Method):
        """Knows no image."""

        def learn(self, task):
            pass

        def logits(self, batch, classes):
            return batch.new_ones(len(batch), len(classes))

    found = bench.run(methods=[Blind], **here)
    assert found["method"].tolist() == ["blind"] and found["last"].tolist() == [pytest.approx(0.05)]
    with pytest.raises(bench.BenchError, match="put it into a file of its own"):
        bench.run(methods=[Blind], jobs=2, **here)
    registered = bench.run(methods=[type_of("simplecil")], dry_run=True, **here)
    assert registered["method"].tolist() == ["simplecil"]


def type_of(name: str) -> type:
    from bench.system import registry

    return registry.load("method", name)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"methods": "zero-shoot"}, "unknown method 'zero-shoot'; did you mean zero-shot"),
        ({"methods": "zero-shot", "seedz": 1}, "unknown option 'seedz'; did you mean seeds"),
        ({"methods": "zero-shot", "seeds": "x"}, "whole numbers separated by commas"),
        ({"methods": "zero-shot", "limit_train": 0}, "'--limit-train': 0 is not in the range"),
        ({"methods": "zero-shot", "precision": "half"}, "'half' is not one of"),
        ({"methods": "zero-shot", "fresh": "yes"}, "fresh: True or False is wanted"),
        ({"methods": "zero-shot", "set": {"zero-shot.x": 1}}, "unknown hyper-parameter of zero-shot 'x'"),
        ({"methods": [3]}, "names, FILE.py:CLASS or classes"),
        ({}, "--methods is wanted"),
    ],
)
def test_what_is_wrong_is_one_exception_with_one_line(options, complaint, here):
    with pytest.raises(bench.BenchError, match=complaint) as refused:
        bench.run(**{**here, **options})
    assert "\n" not in str(refused.value)


def test_a_run_that_fails_is_an_error_and_the_others_stay(here, tmp_path):
    class Broken(bench.Method):
        """Learns nothing."""

    options = {**here, "out": tmp_path}
    with pytest.raises(bench.BenchError, match=r"1 of 2 runs did not finish; .*broken.* does not define learn\(task\)"):
        bench.run(methods=[Broken, "zero-shot"], **options)
    assert bench.results(tmp_path)["method"].tolist() == ["zero-shot"]


def test_every_option_of_the_command_has_a_name_in_python():
    names = {notebook._python_name(one) for one in notebook.run_command.params}
    assert {"protocol", "methods", "seeds", "limit_train", "set", "slurm", "data_dir", "cache_dir", "study"} <= names


def test_results_are_a_row_a_run_or_a_row_an_accuracy(stored):
    frame = bench.results(stored, metrics="last,ece")
    assert len(frame) == 6 and {"protocol", "method", "seed", "last", "ece", "folder"} <= set(frame)
    assert frame["ece"].isna().all() and (stored / "mini60-6x10/coop").as_posix() in frame["folder"].iloc[0]
    assert len(bench.results(stored, records=True)) == len(fake_records(methods=("zero-shot", "coop")))
    with pytest.raises(bench.BenchError, match="no such file or folder"):
        bench.results(stored / "nowhere")


def test_tables_hold_the_numbers_of_the_command(stored):
    frame = bench.table(stored, metrics=["last"])
    wanted = tables.build(records.load([stored]), ["last"])[0].data
    assert frame["method"].tolist() == ["zero-shot", "coop"] and frame["last"].tolist() == [row["last"] for row in wanted]
    assert bench.table(stored, view="matrix")["after_task"].tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(bench.BenchError, match="unknown view 'matrices'; did you mean matrix"):
        bench.table(stored, view="matrices")


@pytest.mark.parametrize("first", ["import bench.results.records", "from bench import results", "import bench"])
def test_the_package_of_results_can_be_called_whatever_was_imported_first(first):
    code = f"{first}\nimport bench\nfrom bench.results import records\nimport bench.results.records as again\n"
    code += "assert again is records and callable(bench.results)\ntry: bench.results('/nowhere/at/all')\n"
    code += "except bench.BenchError as error: print(error)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "no such file or folder" in found.stdout, found.stderr
