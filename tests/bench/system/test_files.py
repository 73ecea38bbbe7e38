"""Atomic writing."""

import numpy as np
import pytest

from bench.system.files import npy, write_atomically


def test_an_error_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_content_of_an_array_file_is_what_numpy_reads_and_writes(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_atomically(tmp_path / "ours.npy", npy(array))
    np.save(tmp_path / "numpys.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpys.npy").read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):  # code could hide in it
        npy(np.array([object()]))
