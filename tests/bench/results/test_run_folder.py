"""The names of a run's files: one place says them, and what is written is found again."""

import re
from pathlib import Path

import bench
from bench.results import run_folder
from bench.results.run_folder import NAMES, RunFolder, finished_runs, run_id_of


def test_every_file_of_a_run_lies_in_its_folder_under_a_known_name():
    run = RunFolder.of(Path("results"), "toy-3x2", "coop", "0123456789abcdef")
    files = [run.records, run.samples, run.manifest, run.log, run.checkpoint, run.failure, run.traceback, run.damaged_manifest]
    files += [run.model, run.places]
    assert {file.name for file in files} == NAMES
    assert {file.parent for file in files} == {Path("results/toy-3x2/coop/0123456789abcdef")}
    assert run.lock == Path("results/.locks/0123456789abcdef.lock")


def test_a_run_id_depends_on_facts_not_on_their_order():
    assert run_id_of({"seed": 0, "method": "coop"}) == run_id_of({"method": "coop", "seed": 0})
    assert run_id_of({"seed": 0, "method": "coop"}) != run_id_of({"seed": 1, "method": "coop"})
    assert re.fullmatch("[0-9a-f]{16}", run_id_of({}))


def test_only_folders_with_a_manifest_are_finished_runs(tmp_path):
    whole, begun = (RunFolder.of(tmp_path, "toy-3x2", "coop", name * 16) for name in "ab")
    for run in (whole, begun):
        run.path.mkdir(parents=True)
        run.records.touch()
    whole.manifest.touch()
    (tmp_path / run_folder.MANIFEST).touch()  # of no run: it lies too high
    assert finished_runs(tmp_path) == [whole]
    assert (whole.finished, begun.finished) == (True, False)


def test_no_other_module_puts_such_a_name_together():
    """A second spelling of a file name is a second truth: one of them would be forgotten when it changes."""
    spelled = re.compile("|".join(f"[\"']{re.escape(name)}[\"']" for name in NAMES))
    sources = Path(bench.__file__).parent.rglob("*.py")
    guilty = [str(path) for path in sources if path.name != "run_folder.py" and spelled.search(path.read_text(encoding="utf-8"))]
    assert not guilty
