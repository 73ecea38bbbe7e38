"""The gate: an unchanged rerun passes, a degraded method fails, what cannot be compared is refused."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.gate import baseline, comparison, report
from bench.gate.tolerance import FLOOR, WIDTH, Tolerance
from bench.results.metrics import DEFAULTS
from tests.results_folder import write_run

MATRIX = np.array([[0.90, 0.60, 0.50], [0.80, 0.90, 0.60], [0.70, 0.80, 0.90]])  # Last 0.8


def write_method(out, change=0.0, seeds=3, **conditions):
    """Three seeds whose Last is 0.79, 0.80, 0.81, all changed by the same amount."""
    for seed in range(seeds):
        write_run(out, np.clip(MATRIX + change + 0.01 * (seed - 1), 0, 1), seed=seed, images=100, **conditions)


@pytest.fixture
def stored(tmp_path) -> Path:
    """A baseline of two methods."""
    for method in ("coop", "cgil"):
        write_method(tmp_path / "old", method=method)
    comparison.update([tmp_path / "old"], tmp_path / "base.csv")
    return tmp_path / "base.csv"


def verdicts(outcome, metric="last"):
    return {change.method: change.verdict for change in outcome.changes if change.metric == metric}


# -- what passes and what fails ---------------------------------------------------------------------------------


def test_an_unchanged_rerun_passes_even_with_no_tolerance(tmp_path, stored):
    found = comparison.gate([tmp_path / "old"], stored, "0")
    assert found.passed
    assert {change.verdict for change in found.changes} == {"within"}
    assert report.text(found).startswith("nothing moved\n")


def test_a_degraded_method_fails_and_the_other_does_not(tmp_path, stored):
    write_method(tmp_path / "new", method="coop", change=-0.1)
    write_method(tmp_path / "new", method="cgil")
    found = comparison.gate([tmp_path / "new"], stored)
    assert not found.passed
    assert verdicts(found) == {"coop": "regression", "cgil": "within"}
    last = next(change for change in found.changes if change.failed)
    assert last.sentence == "Last of coop: 80.00 -> 70.00 (-10.00), allowed 2.45"


def test_a_better_method_is_reported_and_passes(tmp_path, stored):
    write_method(tmp_path / "new", method="coop", change=0.09)
    write_method(tmp_path / "new", method="cgil")
    found = comparison.gate([tmp_path / "new"], stored)
    assert found.passed
    assert verdicts(found) == {"coop": "improvement", "cgil": "within"}


def test_more_forgetting_is_worse(tmp_path):
    write_run(tmp_path / "old", MATRIX, images=100)
    comparison.update([tmp_path / "old"], tmp_path / "base.csv")
    forgetful = np.add(MATRIX, [[0.2, 0, 0], [0, 0, 0], [-0.1, 0.1, 0]])  # Last as before
    write_run(tmp_path / "new", forgetful, images=200)
    found = comparison.gate([tmp_path / "new"], tmp_path / "base.csv")
    assert verdicts(found, "last") == {"coop": "within"}
    assert verdicts(found, "forgetting") == {"coop": "regression"}


def test_a_method_that_is_gone_fails_and_a_new_one_does_not(tmp_path, stored):
    write_method(tmp_path / "new", method="coop")
    write_method(tmp_path / "new", method="clap")
    found = comparison.gate([tmp_path / "new"], stored)
    assert not found.passed
    assert verdicts(found) == {"coop": "within", "cgil": "missing", "clap": "new"}
    n = len(DEFAULTS["class-incremental"])
    counts = f"0 regressions, {n} missing, 0 changed, 0 improvements, {n} new"
    assert found.summary == f"gate FAILED: {counts}; {2 * n} rows of {stored}"


def test_a_changed_hyper_parameter_shows_as_what_it_does_to_the_numbers(tmp_path, stored):
    write_method(tmp_path / "new", method="coop", change=-0.1, overrides="epochs=0")
    write_method(tmp_path / "new", method="cgil")
    found = comparison.gate([tmp_path / "new"], stored)
    assert verdicts(found) == {"coop": "regression", "cgil": "within"}
    changed = {change.differs for change in found.changes if change.method == "coop"}
    assert changed == {("overrides its own hyper-parameters -> epochs=0",)}


def test_equal_hyper_parameters_go_first(tmp_path, stored):
    for overrides in ("", "epochs=0"):
        write_method(tmp_path / "new", method="coop", overrides=overrides, change=-0.1 * bool(overrides))
    write_method(tmp_path / "new", method="cgil")
    assert verdicts(comparison.gate([tmp_path / "new"], stored)) == {"coop": "within", "cgil": "within", "coop (epochs=0)": "new"}


def test_fewer_seeds_are_compared_and_noted(tmp_path, stored):
    for method in ("coop", "cgil"):
        write_method(tmp_path / "new", method=method, seeds=1)
    found = comparison.gate([tmp_path / "new"], stored)
    assert found.passed
    assert "coop on toy-3x2: other order/seed than the baseline (only in the baseline 0/1 0/2)" in found.notes


def test_another_protocol_beside_it_is_noted(tmp_path, stored):
    write_method(tmp_path / "old", method="coop", protocol="toy-b")
    found = comparison.gate([tmp_path / "old"], stored)
    assert found.passed
    assert found.notes == ["not in the baseline, not compared: coop on toy-b (version 1, class-incremental), backbone mini"]


def test_the_order_of_rows_changes_nothing(tmp_path, stored):
    rows = pd.read_csv(stored, dtype=str, keep_default_na=False).sample(frac=1, random_state=0)
    rows.to_csv(tmp_path / "shuffled.csv", index=False)
    for path in (tmp_path / "old").rglob("records.csv"):
        pd.read_csv(path, dtype=str, keep_default_na=False)[::-1].to_csv(path, index=False)
    assert comparison.gate([tmp_path / "old"], tmp_path / "shuffled.csv", "0").passed


def test_comparing_leaves_the_tables_as_they_are(stored):
    one = baseline.read(stored)
    other, kept = one.assign(mean=one["mean"] - 0.1), one.copy()
    comparison.compare(stored, one, other, Tolerance())
    assert one.equals(kept)
    assert other["mean"].equals(kept["mean"] - 0.1)


# -- tolerance --------------------------------------------------------------------------------------------------


def test_the_default_tolerance_is_the_spread_of_the_baseline_but_at_least_the_floor():
    allowed = Tolerance().allowed("last", mean=0.8, std=0.01, n=3, runs=3)
    assert allowed == pytest.approx(WIDTH * 0.01 * np.sqrt(2 / 3))  # 0.0245
    assert Tolerance().allowed("last", mean=0.8, std=0.001, n=3, runs=3) == FLOOR
    assert Tolerance().allowed("last", mean=0.8, std=float("nan"), n=1, runs=1) == FLOOR
    assert Tolerance().allowed("last", mean=0.8, std=0.01, n=3, runs=1) > allowed  # one fresh run is less certain


@pytest.mark.parametrize(
    ("text", "metric", "allowed"),
    [
        ("1.5", "last", 0.015),
        ("last:1", "last", 0.01),
        ("last:1", "avg", 0.024494897),
        ("last:1,2", "avg", 0.02),
        ("ci_transfer:5%", "ci_transfer", 0.04),
        ("5%, last:.5", "last", 0.005),
        ("0", "last", 0.0),
    ],
)
def test_a_tolerance_is_points_or_a_share_for_one_metric_or_all(text, metric, allowed):
    assert Tolerance.parse(text).allowed(metric, mean=-0.8, std=0.01, n=3, runs=3) == pytest.approx(allowed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lst:1", "unknown metric 'lst'; did you mean last"),
        ("last:", "'last:' is not METRIC:POINTS"),
        ("last", "'last' is not METRIC:POINTS"),
        ("", "'' is not METRIC:POINTS"),
        ("last:-1", "'last:-1' is not"),
        ("nan", "'nan' is not"),
        ("1e3", "'1e3' is not"),
        ("last:1,last:2", "two values for last"),
        ("1,2", "two values for all metrics"),
    ],
)
def test_a_bad_tolerance_is_refused(text, message):
    with pytest.raises(BenchError, match=message):
        Tolerance.parse(text)


def test_a_fall_by_exactly_the_tolerance_passes(tmp_path, stored):
    for method in ("coop", "cgil"):
        write_method(tmp_path / "new", method=method, change=-0.02)
    assert comparison.gate([tmp_path / "new"], stored, "2", ["last"]).passed
    assert not comparison.gate([tmp_path / "new"], stored, "1.9", ["last"]).passed


# -- what cannot be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol_version": "2"}, "toy-3x2 cannot be compared: protocol_version 2, in .* 1"),
        ({"backbone": "ViT-B-16"}, "backbone ViT-B-16, in .* mini"),
        ({"limits": "train=5"}, "limits train=5, in .* none"),
        ({"protocol": "toy-b"}, "base.csv is of toy-3x2, these results are of toy-b"),
    ],
)
def test_results_under_other_conditions_are_refused_in_one_line(tmp_path, stored, changes, message):
    write_method(tmp_path / "new", **changes)
    with pytest.raises(BenchError, match=message) as caught:
        comparison.gate([tmp_path / "new"], stored)
    assert "\n" not in str(caught.value)


def test_other_weights_under_the_same_name_are_refused(tmp_path, stored):
    for path in (tmp_path / "old").rglob("manifest.json"):
        path.write_text(path.read_text().replace('"weights_digest": "', '"weights_digest": "ffffffff'))
    with pytest.raises(BenchError, match="weights mini are ffffffff"):
        comparison.gate([tmp_path / "old"], stored)


def test_two_runs_of_one_seed_are_refused(tmp_path, stored):
    folder = write_run(tmp_path / "old", MATRIX, seed=9)
    path = folder / "records.csv"
    path.write_text(path.read_text().replace(",0,9,", ",0,0,"))  # as after a new version of the method: same seed, new id
    with pytest.raises(BenchError, match="coop on toy-3x2 has two runs with order seed 0 and seed 0"):
        comparison.gate([tmp_path / "old"], stored)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: "", "not a CSV file"),
        (lambda text: "a,b\n1,2\n", "column 'protocol' is missing"),
        (lambda text: text.splitlines()[0] + "\n", "holds no rows"),
        (lambda text: re.sub(r"(,last,)[^,]+", r"\1much", text), "column 'mean' holds 'much', which is not a number"),
        (lambda text: re.sub(r"(,last,)[^,]+", r"\1inf", text), "column 'mean' holds 'inf'"),
        (lambda text: text.replace(",last,", ",lst,"), "unknown metric 'lst'; did you mean last"),
        (lambda text: text + text.splitlines()[1] + "\n", "cgil has two rows for last; keep one"),
        (lambda text: text.replace(",3,0/0", ",0,0/0"), "column 'n' must be 1 or larger"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused_and_never_overwritten(tmp_path, stored, edit, message):
    stored.write_text(edit(stored.read_text()))
    broken = stored.read_text()
    for use in (comparison.gate, comparison.update):
        with pytest.raises(BenchError, match=message):
            use([tmp_path / "old"], stored)
    assert stored.read_text() == broken


def test_a_missing_baseline_says_how_to_write_one(tmp_path):
    write_method(tmp_path)
    with pytest.raises(BenchError, match="gone.csv: no such baseline; bench gate with --update writes one"):
        comparison.gate([tmp_path], tmp_path / "gone.csv")


# -- the baseline file ------------------------------------------------------------------------------------------


def test_a_baseline_holds_mean_standard_deviation_and_count(stored):
    rows = baseline.read(stored)
    assert list(rows.columns) == list(baseline.COLUMNS)
    last = rows[(rows["metric"] == "last") & (rows["method"] == "coop")].iloc[0]
    assert (last["mean"], last["std"], last["n"]) == (pytest.approx(0.8), pytest.approx(0.01), 3)
    assert (last["runs"], len(last["weights"])) == ("0/0 0/1 0/2", 8)


def test_a_baseline_of_one_run_has_no_spread(tmp_path):
    write_method(tmp_path / "old", seeds=1)
    comparison.update([tmp_path / "old"], tmp_path / "base.csv")
    assert baseline.read(tmp_path / "base.csv")["std"].isna().all()
    assert comparison.gate([tmp_path / "old"], tmp_path / "base.csv").passed


def test_update_says_whose_runs_make_no_tolerance(tmp_path):
    write_method(tmp_path / "runs", method="coop")  # three seeds, three numbers
    for seed in range(3):
        for method in ("zero-shot", "simplecil"):
            write_run(tmp_path / "runs", MATRIX, seed=seed, images=100, method=method)
    write_method(tmp_path / "runs", method="cgil", seeds=1)
    _, done = comparison.update([tmp_path / "runs"], tmp_path / "base.csv")
    assert done.splitlines()[1:] == [
        "no tolerance from the runs of cgil on toy-3x2: one run has no spread; several --seeds make the tolerance. "
        "The gate will allow 1 point",
        "no tolerance from the runs of simplecil, zero-shot on toy-3x2: all 3 runs have equal numbers, whatever their seeds. "
        "The gate will allow 1 point",
    ]


def test_a_baseline_without_the_optional_columns_will_do(tmp_path, stored):
    rows = pd.read_csv(stored, dtype=str, keep_default_na=False).drop(columns=list(baseline.OPTIONAL))
    rows.to_csv(stored, index=False)
    found = comparison.gate([tmp_path / "old"], stored, "0")
    assert found.passed
    assert found.notes == []


def test_update_says_what_moved_and_replaces_the_file(tmp_path, stored):
    for method in ("coop", "cgil"):
        write_method(tmp_path / "new", method=method, change=-0.1)
    outcome, done = comparison.update([tmp_path / "new"], stored)
    assert verdicts(outcome) == {"coop": "regression", "cgil": "regression"}
    assert done == f"wrote {stored}: 14 rows"
    assert comparison.gate([tmp_path / "new"], stored, "0").passed


def test_update_after_a_new_protocol_version_needs_no_comparison(tmp_path, stored):
    write_method(tmp_path / "new", protocol_version="2")
    outcome, done = comparison.update([tmp_path / "new"], stored)
    assert outcome is None
    assert "not compared with what it held: toy-3x2 cannot be compared: protocol_version 2" in done
    assert set(baseline.read(stored)["protocol_version"]) == {"2"}


def test_update_keeps_the_metrics_of_the_file(tmp_path, stored):
    comparison.update([tmp_path / "old"], stored, ["ece", "auroc"])
    assert set(baseline.read(stored)["metric"]) == {"ece", "auroc"}
    comparison.update([tmp_path / "old"], stored)
    assert set(baseline.read(stored)["metric"]) == {"ece", "auroc"}
    assert comparison.gate([tmp_path / "old"], stored, "0").passed
    for path in (tmp_path / "old").rglob("samples.safetensors"):
        path.unlink()
    with pytest.raises(BenchError, match="none of ece, auroc is available"):
        comparison.gate([tmp_path / "old"], stored)


def test_an_interrupted_update_leaves_the_old_file(tmp_path, stored, monkeypatch):
    before = stored.read_text()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        comparison.update([tmp_path / "old"], stored, ["last"])
    assert stored.read_text() == before
    assert not list(stored.parent.glob(".base.csv*"))


# -- reports ----------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(tmp_path, stored):
    write_method(tmp_path / "new", method="coop", change=-0.1, overrides='note=<&"\x01|*>')
    write_method(tmp_path / "new", method="clap")
    return comparison.gate([tmp_path / "new"], stored)


def test_junit_counts_every_row_and_parses_whatever_the_names(failed):
    root = ElementTree.fromstring(report.junit(failed))
    assert root.tag == "testsuites"
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert suite.get("tests") == root.get("tests") == str(len(cases)) == "21"
    failures = [case for case in cases if case.find("failure") is not None]
    assert suite.get("failures") == str(len(failures))
    assert {case.find("failure").get("type") for case in failures} == {"regression", "missing"}
    assert sum(case.find("skipped") is not None for case in cases) == int(suite.get("skipped")) == 7
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["protocol_version"] == "1"
    assert failures[0].get("classname").startswith("toy-3x2.")


def test_junit_holds_no_character_that_xml_forbids(tmp_path, stored):
    write_method(tmp_path / "new", method="coop", overrides='a=<&"\x01>')
    write_method(tmp_path / "new", method="coop")
    write_method(tmp_path / "new", method="cgil")
    root = ElementTree.fromstring(report.junit(comparison.gate([tmp_path / "new"], stored)))
    assert 'toy-3x2.coop (a=<&"?>)' in {case.get("classname") for case in root.iter("testcase")}


def test_text_and_markdown_hold_what_moved_and_the_verdict(failed):
    text, markdown = report.text(failed), report.markdown(failed)
    assert text.splitlines()[-1] == failed.summary
    assert markdown.startswith(f"## {failed.summary}\n")
    for wanted in ("REGRESSION", "MISSING", "80.00", "70.00", "-10.00", "lower is better: Forgetting"):
        assert wanted in text
        assert wanted in markdown
    assert "| coop | Last | 80.00 | 70.00 | -10.00 | 2.45 | REGRESSION |" in markdown


def test_a_copied_results_folder_counts_once(tmp_path, stored):
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    assert comparison.gate([tmp_path / "old", tmp_path / "copy"], stored, "0").passed


# -- a changed run is changed, not new ----------------------------------------------------------------------------


def alter(folder, **changes) -> None:
    """Change the manifests of all runs below: top-level fields, and those of the identity under `identity`."""
    for path in Path(folder).rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        identity = manifest["identity"] | changes.get("identity", {})
        path.write_text(json.dumps(manifest | changes | {"identity": identity}))


def with_stored(tmp_path, **facts) -> Path:
    """A baseline whose runs' manifests state these facts, and the same runs as fresh ones in `new`."""
    write_method(tmp_path / "old", method="coop")
    alter(tmp_path / "old", **facts)
    comparison.update([tmp_path / "old"], tmp_path / "base.csv")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    return tmp_path / "base.csv"


@pytest.mark.parametrize(
    ("change", "differs", "passed"),
    [
        ({"identity": {"settings": {"epochs": 5}}}, "epochs 3 -> 5", True),
        ({"identity": {"method_version": "2"}}, "method version 1 -> 2", True),
        ({"images": {"toy": {"train": "a", "test": "c"}}}, "images ", False),
    ],
)
def test_what_records_do_not_hold_makes_a_run_changed(tmp_path, change, differs, passed):
    base = with_stored(tmp_path, images={"toy": {"train": "a", "test": "b"}})
    alter(tmp_path / "new", **change)
    found = comparison.gate([tmp_path / "new"], base)
    assert verdicts(found) == {"coop": "changed"} and found.passed is passed
    assert all(one.differs[0].startswith(differs) for one in found.changes)
    assert f"{len(found.changes)} changed" in found.summary and "0 new" in found.summary
    assert differs in report.text(found)
    assert differs in report.markdown(found).replace("&gt;", ">").replace("\\", "")
    root = ElementTree.fromstring(report.junit(found))
    failures = root.findall(".//failure")
    assert len(failures) == (0 if passed else len(found.changes)) and all(one.get("type") == "changed" for one in failures)
    assert differs in ElementTree.tostring(root, encoding="unicode").replace("&gt;", ">")


def test_a_changed_run_that_got_worse_is_a_regression_that_says_what_changed(tmp_path):
    base = with_stored(tmp_path)
    shutil.rmtree(tmp_path / "new")
    write_method(tmp_path / "new", method="coop", change=-0.1)
    alter(tmp_path / "new", identity={"settings": {"epochs": 5}})
    found = comparison.gate([tmp_path / "new"], base)
    assert verdicts(found) == {"coop": "regression"} and "changed: epochs 3 -> 5" in found.changes[0].sentence


def test_other_conditions_beside_known_ones_are_changed_and_fail(tmp_path, stored):
    write_method(tmp_path / "new", method="coop", limits="train=5")
    write_method(tmp_path / "new", method="cgil")
    found = comparison.gate([tmp_path / "new"], stored)
    assert verdicts(found) == {"coop": "changed", "cgil": "within"} and not found.passed
    assert {one.differs for one in found.changes if one.method == "coop"} == {("limits none -> train=5",)}


def test_everything_in_which_a_protocol_differs_is_said_in_one_line(tmp_path, stored):
    for method in ("coop", "cgil"):
        write_method(tmp_path / "new", method=method, limits="train=5", protocol_version="2")
    with pytest.raises(BenchError, match=r"protocol_version 2, in .* 1, limits train=5, in .* none"):
        comparison.gate([tmp_path / "new"], stored)


def test_two_versions_of_a_method_in_one_folder_are_refused(tmp_path, stored):
    write_method(tmp_path / "new", method="coop", seeds=2)
    alter(next((tmp_path / "new").rglob("manifest.json")).parent, identity={"method_version": "2"})
    with pytest.raises(BenchError, match="has runs that differ: method version . -> .; gate a results folder"):
        comparison.gate([tmp_path / "new"], stored)


def test_the_versions_stand_side_by_side(tmp_path):
    then = {"python": "3.11.4", "torch": "2.4.0", "open_clip_torch": "2.30", "numpy": "1.26"}
    base = with_stored(tmp_path, environment=then)
    alter(tmp_path / "new", environment=then | {"torch": "2.9.1"})
    found = comparison.gate([tmp_path / "new"], base)
    assert found.passed and ("torch", "2.4.0", "2.9.1") in found.versions
    assert "versions, baseline -> now: Python 3.11.4, torch 2.4.0 -> 2.9.1, open_clip 2.30, numpy 1.26" in report.text(found)
    assert "| torch | 2.4.0 | 2.9.1 |" in report.markdown(found)
    properties = ElementTree.fromstring(report.junit(found)).findall("properties/property")
    named = {one.get("name"): one.get("value") for one in properties}
    assert (named["torch (baseline)"], named["torch (now)"]) == ("2.4.0", "2.9.1")


def test_a_baseline_that_states_no_versions_is_read_and_said_to(tmp_path):
    base = with_stored(tmp_path, environment={"torch": "2.4.0"})
    table = pd.read_csv(base, dtype=str, keep_default_na=False).drop(columns=["images", "settings", "versions"])
    table.to_csv(base, index=False)
    found = comparison.gate([tmp_path / "new"], base, "0")
    assert found.passed and "versions: not stated by the baseline; now torch 2.4.0" in report.text(found)
