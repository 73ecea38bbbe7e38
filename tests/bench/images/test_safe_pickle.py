"""Pickles that hold data are read, all others are refused."""

import collections
import os
import pickle
import subprocess

import numpy as np
import pytest

from bench.images import pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(protocol):
    objects = np.empty(2, object)
    objects[:] = [np.arange(3), None]
    content = {
        "array": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "objects": objects,
        "scalar": np.int64(3),
        "text": "a",
        "bytes": b"\x00\xff",
        "ordered": collections.OrderedDict(a=(1, 2.5, None, True)),
    }
    found = pickles.load(pickle.dumps(content, protocol))
    assert found.keys() == content.keys()
    assert (found["array"] == content["array"]).all() and (found["fortran"] == content["fortran"]).all()
    assert (found["objects"][0] == np.arange(3)).all() and found["objects"][1] is None
    assert [found[name] for name in ("scalar", "text", "bytes", "ordered")] == [3, "a", b"\x00\xff", {"a": (1, 2.5, None, True)}]


def test_arrays_of_either_numpy_are_read():
    new = pickle.dumps(np.arange(4), protocol=2)
    assert b"numpy._core.multiarray" in new
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert pickles.load(old).tolist() == [0, 1, 2, 3]


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    "content",
    [
        Calls(os.system, "true"),
        Calls(subprocess.getoutput, "true"),
        Calls(eval, "1"),
        Calls(getattr, 1, "real"),
        Calls(np.load, "file"),
        Calls(np.lib.npyio.DataSource if hasattr(np.lib, "npyio") else np.save, "."),
        [np.arange(2), {"deep": Calls(os.mkdir, "never")}],
        print,
        Calls,
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_everything_else_is_refused(content, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="which is not data; it is refused"):
        pickles.load(pickle.dumps(content, protocol))
    assert list(tmp_path.iterdir()) == []


def test_bytes_in_other_encodings_are_refused():
    import codecs

    with pytest.raises(pickle.UnpicklingError, match="bytes in zip"):
        pickles.load(pickle.dumps(Calls(codecs.encode, "text", "zip"), protocol=2))


def test_npz_files_with_plain_arrays_and_arrays_of_objects(tmp_path):
    objects = np.empty(2, object)
    objects[:] = [np.arange(3), np.arange(2)]
    np.savez(tmp_path / "a.npz", plain=np.arange(4), objects=objects)
    plain, found = pickles.load_npz(tmp_path / "a.npz", ["plain", "objects"])
    assert plain.tolist() == [0, 1, 2, 3]
    assert [list(part) for part in found] == [[0, 1, 2], [0, 1]]
    objects[0] = Calls(os.mkdir, str(tmp_path / "owned"))
    np.savez(tmp_path / "b.npz", objects=objects)
    with pytest.raises(pickle.UnpicklingError):
        pickles.load_npz(tmp_path / "b.npz", ["objects"])
    assert not (tmp_path / "owned").exists()
