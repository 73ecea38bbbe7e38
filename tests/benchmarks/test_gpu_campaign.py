"""The campaign goes on after it was killed, tries again what failed, stops in time, and has steps of all groups and methods."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.errors import BenchError
from bench.system import registry
from tests.benchmarks.gpu import campaign, correctness, kept, tables
from tests.benchmarks.gpu.__main__ import main
from tests.benchmarks.gpu.kept import Machine, Result
from tests.benchmarks.gpu.steps import GROUPS, Conditions, Step, all_steps

PLANTED = "tests.benchmarks.planted_steps:steps"
ROOT = Path(__file__).parents[2]
HERE = Machine("a device", "2.15.0", "small")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(what, seconds: float = 300) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_killed_resumed_and_tried_again(tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    code = (
        "from pathlib import Path\nfrom tests.benchmarks.gpu import campaign\nfrom tests.benchmarks.gpu.steps import Conditions\n"
        f"if __name__ == '__main__':\n"
        f"    campaign.carry_out(Conditions('cpu', 'small', Path({str(cache)!r})), Path({str(out)!r}), 5, {PLANTED!r})\n"
    )
    script = tmp_path / "campaign.py"
    script.write_text(code)
    begun = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        wait_for((cache / "pid").exists)
    finally:
        begun.send_signal(signal.SIGKILL)  # in the middle of the long step
        begun.wait()
    wait_for(lambda: not is_alive(int((cache / "pid").read_text())))  # nobody computes on

    [folder] = [path.parent for path in out.glob("*/steps")]
    found = kept.read(folder)
    assert {name: result.status for name, result in found.items()} == {
        "quick": "done", "wrong at first": "failed", "crashes at first": "failed", "elsewhere": "not applicable",
    }  # fmt: skip
    assert found["wrong at first"].reason == "ValueError: a planted error of two lines"
    assert found["crashes at first"].reason == "its process ended with code 3"
    assert found["elsewhere"].reason == "needs CUDA"

    (cache / "enough").touch()
    said: list[str] = []
    left = campaign.carry_out(Conditions("cpu", "small", cache), out, 5, PLANTED, say=said.append)
    assert left == 1 and said[-1] == "steps left: 1"
    assert any(line.startswith("too long takes about 3600 s: give it a longer --minutes") for line in said)
    assert "measurements: 2 done, 0 not applicable, 0 failed, 0 left" in said
    assert "candidates: 1 done, 1 not applicable, 0 failed, 1 left" in said
    assert (cache / "quick").read_text() == "x"  # not done again
    found = kept.read(folder)
    assert found["wrong at first"].attempts == found["crashes at first"].attempts == 2
    assert [row["what"] for row in rows(folder / "phases.csv")] == ["alive", "right now"]
    assert {row["device"] for row in rows(folder / "candidates.csv")} == {found["quick"].machine.device}


class Clockwork(campaign.Worker):
    """Carries out a step in as many seconds as its name says, on a clock of its own."""

    now = 0.0

    def start(self) -> Machine:
        return HERE

    def carry_out(self, step: str, seconds: float) -> campaign.Answer:
        needed = float(step.split()[-1])
        type(self).now += min(needed, seconds)
        return ("done", "", [], needed) if needed <= seconds else ("failed", "stopped", [], seconds)

    def stop(self) -> None:
        pass


def timed(names_and_estimates: dict[str, float]):
    return [Step(name, "correctness", "methods", seconds, lambda conditions: []) for name, seconds in names_and_estimates.items()]


@pytest.fixture
def clock(monkeypatch):
    Clockwork.now = 0.0
    monkeypatch.setattr(campaign.time, "monotonic", lambda: Clockwork.now)
    monkeypatch.setattr(campaign, "Worker", Clockwork)


def test_no_step_begins_that_is_not_expected_to_end(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(campaign, "found_by", lambda source, conditions: timed({"a 20": 20, "b 20": 20, "c 30": 30, "d 5": 5}))
    said: list[str] = []
    assert campaign.carry_out(Conditions("cpu", "small", tmp_path), tmp_path, 1, say=said.append) == 2
    assert "the time is over: c 30 takes about 30 s, 17 s are left" in said
    assert "still to do: c 30, d 5" in said
    assert Clockwork.now == 40
    assert campaign.carry_out(Conditions("cpu", "small", tmp_path), tmp_path, 1, say=said.append) == 0
    assert said[-1] == "steps left: 0"


def test_a_step_that_does_not_end_is_stopped_and_comes_last(tmp_path, clock, monkeypatch):
    steps = timed({"hangs 900": 1, "b 10": 10})
    monkeypatch.setattr(campaign, "found_by", lambda source, conditions: steps)
    campaign.carry_out(Conditions("cuda", "small", tmp_path), tmp_path, 2, say=lambda line: None)
    results = kept.read(tmp_path / HERE.folder)
    assert {name: (result.status, result.seconds) for name, result in results.items()} == {
        "hangs 900": ("failed", 60.0), "b 10": ("done", 10.0),
    }  # fmt: skip
    assert [step.name for step in campaign.order(steps, results)] == ["hangs 900"]


def test_one_campaign_at_a_time_and_other_devices_are_named(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(campaign, "found_by", lambda source, conditions: timed({"a 1": 1}))
    other = Machine("NVIDIA Something", "2.15.0", "full")
    kept.write(tmp_path / other.folder, Result("a 1", "correctness", other, "done", 1.0))
    said: list[str] = []
    assert campaign.carry_out(Conditions("cpu", "small", tmp_path), tmp_path, 1, say=said.append) == 0
    others = f"{tmp_path} has 1 steps of another device, NVIDIA Something (full): they stay as they are, and do not count here"
    assert others in said
    with campaign.Claim(tmp_path / "campaign.lock"), pytest.raises(BenchError, match="another campaign is at work there"):
        campaign.carry_out(Conditions("cpu", "small", tmp_path), tmp_path, 1, say=said.append)


def test_a_file_that_was_cut_off_counts_as_not_there(tmp_path):
    kept.write(tmp_path, Result("a step/with: signs", "correctness", HERE, "done", 1.0, rows=[{"x": "1"}]))
    [path] = (tmp_path / kept.STEPS).iterdir()
    assert kept.read(tmp_path)["a step/with: signs"].rows == [{"x": "1"}]
    path.write_text(path.read_text()[:-5])
    assert kept.read(tmp_path) == {}
    path.write_text(json.dumps({"step": "a step"}))
    assert kept.read(tmp_path) == {}


@pytest.mark.parametrize("device, size", [("cpu", "small"), ("cuda", "full")])
def test_every_group_has_steps_and_every_method_is_in_each(device, size, tmp_path):
    steps = all_steps(Conditions(device, size, tmp_path))
    names = [step.name for step in steps]
    assert list(dict.fromkeys(step.group for step in steps)) == list(GROUPS)
    assert {step.table for step in steps} | {"steps"} == set(tables.NAMES)
    towers = ("mini",) if size == "small" else ("ViT-B-16", "ViT-L-14")
    for method in registry.names("method"):
        assert f"stopped and resumed {method}" in names
        assert all(f"phases {tower} {method}" in names for tower in towers)
    assert {"tests tests/bench/clip/test_precision.py", "pixels finetune", "jobs 4", "compile cgil", "graphs cgil"} <= set(names)
    assert len({name.translate({ord(sign): "-" for sign in " /_:"}) for name in names}) == len(names)  # a file each


def test_tests_of_cuda_that_failed_or_were_all_skipped_are_failures():
    def report(*cases: str) -> ElementTree.Element:
        named = [f'<testcase name="t{k}">{case}</testcase>' for k, case in enumerate(cases)]
        return ElementTree.fromstring(f"<suite>{''.join(named)}</suite>")

    assert correctness.outcomes("f", report("", '<skipped message="why"/>')) == [{"tests": "f", "passed": "1", "skipped": "1"}]
    with pytest.raises(AssertionError, match="1 of 2 failed; t1: too far"):
        correctness.outcomes("f", report("", '<failure message="too far"/>'))
    with pytest.raises(AssertionError, match="none of 1 was carried out: no GPU"):
        correctness.outcomes("f", report('<skipped message="no GPU"/>'))
    with pytest.raises(AssertionError, match="none of 0"):
        correctness.outcomes("f", report())


def test_tables_that_are_kept_are_shown_with_their_device(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "KEPT", tmp_path / "kept")
    page, head = tmp_path / "page.md", f"<!-- output: {tables.SHOWS}jobs -->\n"
    others = "<!-- end -->\n<!-- output: python x -->\nother\n<!-- end -->\n"
    page.write_text(f"{head}old\n{others}")
    monkeypatch.setattr(tables.renew_page, "__defaults__", (page,))
    result = Result("jobs 1", "measurements", HERE, "done", 1.0, table="jobs", rows=[{"runs at a time": "1", "seconds": "2.0"}])
    tables.write(tmp_path / HERE.folder, [result])
    assert main(["--keep", str(tmp_path / HERE.folder)]) == 0
    capsys.readouterr()
    assert main(["--show", "jobs"]) == 0
    shown = capsys.readouterr().out
    assert "a device, torch 2.15.0: proof run of the command with small sizes, NO GPU measurement" in shown
    assert page.read_text() == f"{head}{shown.strip()}\n{others}"
    assert "runs at a time" in shown and "| 2.0" in shown.replace("  ", " ") and "a device" not in shown.split("measurement")[1]


@pytest.mark.thorough
@pytest.mark.parametrize("device", ["cpu", "standin"])
def test_a_step_of_every_kind_is_done(device, tmp_path):
    kinds = {
        "stopped and resumed coop", "machine", "generators together", "prompts mini", "jobs 1", "phases mini coop",
        "phases mini finetune", "pixels er", "fused SGD", "channels last",
    }  # fmt: skip
    conditions, said = Conditions(device, "small", tmp_path / "cache"), list[str]()
    campaign.carry_out(conditions, tmp_path, 9, wanted=lambda step: step.name in kinds, say=said.append)
    [folder] = [path.parent for path in tmp_path.glob("*/steps")]
    results = kept.read(folder)
    assert results.keys() == kinds and said[-1] == "steps left: 0", said
    ended = {name: result.status for name, result in results.items() if result.status != "done"}
    assert ended == ({"jobs 1": "not applicable"} if device == "standin" else {})
    [row] = results["phases mini coop"].rows
    # on the stand-in device no operations are counted
    assert (row["utilisation"] == "-") is (row["floor (s)"] == "-") is (device == "standin")
    assert row["steps"].endswith(" of 60") and float(row["seconds"]) > 0


@pytest.mark.slow
def test_the_small_campaign_comes_to_its_end_on_the_cpu(tmp_path):
    """Many minutes: every step, in calls of five minutes."""
    conditions, said = Conditions("cpu", "small", tmp_path / "cache"), list[str]()
    for _ in range(12):
        if not campaign.carry_out(conditions, tmp_path, 5, say=said.append):
            break
    assert said[-1] == "steps left: 0", said[-12:]
    [folder] = [path.parent for path in tmp_path.glob("*/steps")]
    there = {path.stem for path in folder.glob("*.csv")}
    assert there == set(tables.NAMES) - {"tests"}  # which need CUDA
    assert all(row["equal"] == "yes" for row in rows(folder / "candidates.csv"))
