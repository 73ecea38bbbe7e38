"""bench doctor: what is damaged is found, and mended only on request and without loss."""

import json
import shutil

import pytest
from click.testing import CliRunner

from bench.checks import features
from bench.checks import results as doctor_results
from bench.checks.diagnosis import Diagnosis
from bench.commands.main import main
from bench.system.claims import Claim
from tests.bench.small_runs import execute, small_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A results folder with one finished run, made once."""
    out = tmp_path_factory.mktemp("finished")
    execute(small_run("zero-shot", out), cache)
    return out


@pytest.fixture
def results(finished, tmp_path):
    """A copy of it that may be damaged."""
    return shutil.copytree(finished, tmp_path / "results")


@pytest.fixture
def store(cache, finished, tmp_path):
    return shutil.copytree(cache / "features", tmp_path / "features")


def run_folder(results):
    return next(results.rglob("manifest.json")).parent


def examined(part, folder, repair: bool = False) -> Diagnosis:
    diagnosis = Diagnosis(repair=repair)
    part.examine(folder, diagnosis)
    return diagnosis


def flip(path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_manifest(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


RESULT_DAMAGES = {
    "a changed byte of the records": (lambda run: flip(run / "records.csv"), "records.csv is damaged: its checksum differs"),
    "a changed byte of the samples": (
        lambda run: flip(run / "samples.safetensors"),
        "samples.safetensors is damaged: its checksum differs",
    ),
    "no samples": (lambda run: (run / "samples.safetensors").unlink(), "samples.safetensors is missing"),
    "half a manifest": (lambda run: (run / "manifest.json").write_text('{"run_id"'), "manifest.json: cannot be read"),
    "another run's manifest": (lambda run: edit_manifest(run / "manifest.json", run_id="x"), "does not belong to this run"),
    "no checksums": (lambda run: edit_manifest(run / "manifest.json", checksums=None), "manifest.json is damaged"),
}


@pytest.mark.parametrize("damage", RESULT_DAMAGES)
def test_a_finished_run_that_is_not_whole_is_set_aside_and_made_again(results, cache, damage):
    run = run_folder(results)
    whole = (run / "records.csv").read_bytes()
    spoil, complaint = RESULT_DAMAGES[damage]
    spoil(run)
    found = examined(doctor_results, results)
    assert found.wrong == found.mendable == 1 and complaint in "\n".join(found.lines)
    assert (run / "manifest.json").exists()  # looking changes nothing
    mended = examined(doctor_results, results, repair=True)
    assert (mended.wrong, mended.mended) == (0, 1)
    execute(small_run("zero-shot", results), cache)
    assert (run / "records.csv").read_bytes() == whole
    assert examined(doctor_results, results, repair=True).mended == 1  # the manifest that was set aside
    assert examined(doctor_results, results).wrong == 0
    assert sorted(path.name for path in run.iterdir()) == ["manifest.json", "records.csv", "samples.safetensors"]


def test_a_whole_folder_is_fine_and_not_touched(results):
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    found = examined(doctor_results, results, repair=True)
    assert (found.wrong, found.mended) == (0, 0) and "1 finished" in found.lines[-1]
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def test_leftovers_and_orphans(results):
    run = run_folder(results)
    (run / "checkpoint.safetensors").write_bytes(b"")
    (run / ".records.csv.abc.tmp").write_text("half")
    (run / "notes.txt").write_text("mine")
    (results / "stray.csv").write_text("mine")
    empty = run.parent / "0123456789abcdef"
    empty.mkdir()
    found = examined(doctor_results, results, repair=True)
    assert (found.wrong, found.mended) == (0, 3)
    assert not empty.exists() and (run / "notes.txt").exists()
    assert f"2 files belong to no run: {run / 'notes.txt'}, {results / 'stray.csv'}" in "\n".join(found.lines)
    assert examined(doctor_results, results).wrong == 0


def test_unfinished_runs_and_damaged_checkpoints(results):
    run = run_folder(results)
    (run / "manifest.json").unlink()
    assert "unfinished, it starts over" in "\n".join(examined(doctor_results, results).lines)
    (run / "checkpoint.safetensors").write_bytes(b"half a check")
    found = examined(doctor_results, results)
    assert found.wrong == 1 and "the checkpoint is damaged (it is cut short or no checkpoint)" in "\n".join(found.lines)
    assert examined(doctor_results, results, repair=True).mended == 1
    assert not (run / "checkpoint.safetensors").exists()


def test_failed_runs_are_listed_with_their_reason(results):
    run = run_folder(results)
    (run / "manifest.json").unlink()
    (run / "failure.json").write_text(json.dumps({"reason": "the loss\nis not finite"}))
    found = examined(doctor_results, results)
    assert found.wrong == 0 and "failed (the loss is not finite), it starts over" in "\n".join(found.lines)
    (run / "failure.json").write_text("{")
    assert examined(doctor_results, results).wrong == 1


def test_a_run_that_is_being_made_is_left_alone(results):
    run = run_folder(results)
    flip(run / "records.csv")
    with Claim(results / ".locks" / f"{run.name}.lock"):
        found = examined(doctor_results, results, repair=True)
    assert (found.wrong, found.mended) == (0, 0) and "running now (process" in "\n".join(found.lines)


def spoiled_store(store, damage: str) -> None:
    array = next(store.rglob("*.npy"))
    {
        "a changed byte": lambda: flip(array),
        "cut short": lambda: array.write_bytes(array.read_bytes()[:-9]),
        "no checksum": lambda: array.with_suffix(".json").unlink(),
        "no array": lambda: array.unlink(),
        "a damaged checksum file": lambda: array.with_suffix(".json").write_text("[]"),
        "half a file": lambda: array.with_name(f".{array.name}.abc.tmp").write_text("half"),
    }[damage]()


@pytest.mark.parametrize(
    "damage", ["a changed byte", "cut short", "no checksum", "no array", "a damaged checksum file", "half a file"]
)
def test_damaged_entries_of_the_store_are_removed_on_request(store, damage):
    entries = len(list(store.rglob("*.npy")))
    assert examined(features, store).wrong == 0
    spoiled_store(store, damage)
    assert examined(features, store).wrong == 1
    mended = examined(features, store, repair=True)
    assert (mended.wrong, mended.mended) == (0, 1)
    after = examined(features, store)
    assert after.wrong == 0 and f"{entries - (damage != 'half a file')} entries are whole" in after.lines[-1]


def test_an_entry_that_is_being_written_is_left_alone(store):
    array = next(store.rglob("*.npy"))
    array.with_suffix(".json").unlink()
    with Claim(array.with_suffix(".lock")):
        found = examined(features, store, repair=True)
    assert (found.wrong, found.mended) == (0, 0) and array.exists()


def test_the_command_says_what_is_wrong_and_its_exit_code_too(results, store, tmp_path):
    arguments = ["doctor", str(results), "--cache-dir", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    good = CliRunner().invoke(main, arguments)
    assert good.exit_code == 0, good.output
    for wanted in ("builds the mini CLIP", "computes on cpu", "GB free", "data sets are there", "1 finished", "nothing is wrong"):
        assert wanted in good.output
    flip(run_folder(results) / "records.csv")
    bad = CliRunner().invoke(main, arguments)
    assert bad.exit_code == 1 and bad.output.endswith("1 wrong, --repair mends 1\n")
    mended = CliRunner().invoke(main, [*arguments, "--repair"])
    assert mended.exit_code == 0 and mended.output.endswith("nothing is wrong, 1 mended\n")


def test_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    arguments = [
        "doctor",
        str(tmp_path / "file" / "results"),
        "--cache-dir",
        str(tmp_path / "cache"),
        "--data-dir",
        str(tmp_path),
    ]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 1 and f"{tmp_path / 'file'} is a file" in found.output
