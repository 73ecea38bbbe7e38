"""Checkpoints: what was written comes back, and nothing else does."""

import json
import random

import pytest
import torch

from bench.runs import checkpoint, sealed_file
from bench.runs.checkpoint import Damaged, Journal


@pytest.fixture
def data() -> bytes:
    rows = [{"eval_name": 'a "sha256":"' + "f" * 64, "value": 0.25}]  # text that looks like the digest's own place
    journal = Journal(2, rows, {"labels/0": torch.arange(5)}, [{"learn": 1.0, "evaluate": 2.0}], 7)
    return checkpoint.to_bytes(journal, "run", {"weights": torch.arange(12.0).view(3, 4).t(), "count": torch.tensor(3)})


def test_what_was_written_comes_back(data, tmp_path):
    journal, run_id, state = checkpoint.from_bytes(data)
    assert (journal.finished_tasks, journal.image_passes, run_id) == (2, 7, "run")
    assert journal.rows[0]["value"] == 0.25 and journal.samples["labels/0"].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(state["weights"], torch.arange(12.0).view(3, 4).t()) and state["count"] == 3
    (tmp_path / "file").write_bytes(data)
    assert checkpoint.finished_tasks(tmp_path / "file") == 2


def test_a_file_that_is_written_is_that_of_the_bytes(tmp_path):
    """Tensors that share memory, or lie in it otherwise, or have no place in it, too; and nothing is left beside it."""
    base = torch.arange(12.0)
    tensors = {"all": base, "part": base[4:8], "turned": base.view(3, 4).t(), "none": torch.zeros(0), "nor": torch.zeros(0, 3)}
    sealed_file.write(tmp_path / "file", tensors, {"facts": 1})
    written, wanted = (
        sealed_file.from_bytes(data) for data in ((tmp_path / "file").read_bytes(), sealed_file.to_bytes(tensors, {"facts": 1}))
    )
    assert written[0] == wanted[0] == {"facts": 1} and written[1].keys() == wanted[1].keys() == tensors.keys()
    assert all(torch.equal(written[1][name], value) and torch.equal(wanted[1][name], value) for name, value in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match="checksum"):
        sealed_file.from_bytes((tmp_path / "file").read_bytes())


def test_scores_of_any_kind_and_length_come_back():
    samples = {
        "prediction/0": torch.tensor([3, 1], dtype=torch.int32),
        "confidence/0": torch.tensor([0.5, 0.25]),
        "prediction/1": torch.zeros(0, dtype=torch.int32),
        "confidence/1": torch.tensor([0.125]),
    }
    journal, _, state = checkpoint.from_bytes(checkpoint.to_bytes(Journal(samples=samples), "run", {}))
    assert state == {} and journal.samples.keys() == samples.keys()
    for name, values in samples.items():
        torch.testing.assert_close(journal.samples[name], values, rtol=0, atol=0)


def test_another_layout_is_noticed(monkeypatch):
    dumps = json.dumps
    monkeypatch.setattr(sealed_file.json, "dumps", lambda facts: dumps({k: v for k, v in facts.items() if k != "samples"}))
    with pytest.raises(Damaged, match="another version"):
        checkpoint.from_bytes(checkpoint.to_bytes(Journal(), "run", {}))


def test_any_changed_byte_is_noticed(data):
    for place in random.Random(0).sample(range(len(data)), 200):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(Damaged):
            checkpoint.from_bytes(bytes(changed))


def test_any_cut_is_noticed(data):
    for length in [0, 1, 7, 8, 9, *random.Random(0).sample(range(len(data)), 50)]:
        with pytest.raises(Damaged):
            checkpoint.from_bytes(data[:length])


def test_bytes_at_the_end_are_noticed(data):
    with pytest.raises(Damaged):
        checkpoint.from_bytes(data + b"x")
