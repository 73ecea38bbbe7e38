"""The gate on speed: python -m tests.benchmarks.gate, as a test."""

import json

import pytest

from tests.benchmarks import gate


@pytest.mark.slow
def test_nothing_has_become_slow():
    assert gate.main([]) == 0


def test_a_stored_ratio_that_is_far_below_the_present_one_fails_the_gate(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gate, "measure", lambda: {"reading": 3.0, "writing": 1.0})
    path = tmp_path / "baseline.json"
    assert gate.main(["--update", "--baseline", str(path)]) == 0
    assert gate.main(["--baseline", str(path)]) == 0
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"ratios": {"reading": 1.0, "writing": 1.0}}))
    assert gate.main(["--baseline", str(path)]) == 1
    assert "reading: 3 times the reference, 3 times the stored ratio of 1" in capsys.readouterr().out
    assert gate.main(["--baseline", str(path), "--tolerance", "4"]) == 0


def test_a_piece_without_a_stored_ratio_fails_the_gate():
    assert "--update stores it" in gate.slower({"new": 1.0}, {}, 2.0)[0]
    assert "no longer measured" in gate.slower({}, {"old": 1.0}, 2.0)[0]


def test_every_piece_can_be_measured():
    assert min(gate.measure_pieces(rounds=1).values()) > 0
