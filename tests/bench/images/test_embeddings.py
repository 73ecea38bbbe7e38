"""Files of embeddings: what is refused, each in one line that names the file, and what identifies one."""

import json

import numpy as np
import pytest

from bench.errors import BenchError
from bench.images.embeddings import open_file, open_split
from bench.images.folders import Folders
from tests import embeddings_file as files


def changed(name: str, change) -> dict:
    """The tensors of a sound file, one of them changed."""
    found = files.tensors()
    found[name] = change(found[name])
    return found


def with_value(place, value):
    def change(array):
        array[place] = value
        return array

    return change


def without(*names: str) -> dict:
    return {name: array for name, array in files.tensors().items() if name not in names}


BAD_TENSORS = {
    "test/features are 5 wide, train/features 6": changed("test/features", lambda a: np.ascontiguousarray(a[:, :5])),
    "text/features: shape (4, 2, 5); (4, 2, 6) is wanted": changed("text/features", lambda a: np.ascontiguousarray(a[..., :5])),
    "text/features: shape (3, 2, 6)": changed("text/features", lambda a: a[:3]),
    "text/features: shape (4, 1, 6)": changed("text/features", lambda a: np.ascontiguousarray(a[:, :1])),
    "text/features: shape (4, 6); (classes, templates, width)": changed("text/features", lambda a: np.ascontiguousarray(a[:, 0])),
    "train/labels: label 4 of row 2 is out of range 0..3": changed("train/labels", with_value(2, 4)),
    "test/labels: label -1 of row 0 is out of range": changed("test/labels", with_value(0, -1)),
    "5 different labels, 4 class_names": changed("train/labels", with_value(slice(0, 2), [4, 0])),
    "train/labels: F64; whole numbers are wanted": changed("train/labels", lambda a: a.astype("float64")),
    "train/features: F64; float32 is wanted": changed("train/features", lambda a: a.astype("float64")),
    "test/features: F16; float32 is wanted": changed("test/features", lambda a: a.astype("float16")),
    "text/features: I32; float32 is wanted": changed("text/features", lambda a: a.astype("int32")),
    "train/features: row 7 holds nan or inf": changed("train/features", with_value((7, 1), np.nan)),
    "test/features: row 3 holds nan or inf": changed("test/features", with_value((3, 0), -np.inf)),
    "text/features: class 2, template 1 holds nan or inf": changed("text/features", with_value((2, 1, 0), np.inf)),
    "train/features: row 0 is all zeros": changed("train/features", with_value(0, 0)),
    "text/features: class 1, template 0 is all zeros": changed("text/features", with_value((1, 0), 0)),
    "train/features: 11 rows, and 12 in train/labels": changed("train/features", lambda a: a[:11]),
    "train/features: shape (12, 3, 2); (images, width)": changed("train/features", lambda a: a.reshape(12, 3, 2)),
    "test/labels: shape (12, 1); (images,)": changed("test/labels", lambda a: a[:, None].copy()),
    "train/features: shape (0, 6)": changed("train/features", lambda a: a[:0]),
    "no train image of class 'fig' (label 3)": changed("train/labels", lambda a: np.minimum(a, 2)),
    "no test image of class 'apple' (label 0)": changed("test/labels", lambda a: np.maximum(a, 1)),
    "has no tensor test/labels": without("test/labels"),
    "has no tensor train/features, train/labels": without("train/features", "train/labels"),
    "has train/pooled or test/pooled without the other": files.tensors() | {"train/pooled": np.ones((12, 8), "float32")},
}
BAD_METADATA = {
    "has no metadata": {},
    "its metadata have no class_names": files.metadata(class_names=None),
    "its metadata have no backbone, weights": files.metadata(backbone=None, weights=None),
    "has text/features, and its metadata have no templates": files.metadata(templates=None),
    "has text/features, and its metadata have no logit_scale": files.metadata(logit_scale=None),
    "class_names: 'apple' (label 0) and 'Apple' (label 1) make the same prompt": files.metadata(
        class_names=json.dumps(["apple", "Apple", "plum", "fig"])
    ),
    "train/labels: label 3 of row 9 is out of range 0..2; 4 different labels, 3 class_names": files.metadata(
        class_names=json.dumps(["apple", "pear", "plum"])
    ),
    "class_names: a JSON list of texts": files.metadata(class_names="apple, pear"),
    "class_names: a JSON list": files.metadata(class_names='["apple", 3]'),
    "class_names: 1; a stream needs at least two": files.metadata(class_names='["apple"]'),
    "templates: 'a photo' has not one {}": files.metadata(templates='["a photo", "a {}."]'),
    "templates: 'a {x} {}' has not one {}": files.metadata(templates='["a {x} {}", "a {}."]'),
    "templates: at least one is wanted, each once": files.metadata(templates='["a {}.", "a {}."]'),
    "logit_scale: 'warm' in the metadata": files.metadata(logit_scale="warm"),
    "logit_scale: 'nan' in the metadata": files.metadata(logit_scale="nan"),
    "normalised: 'perhaps' in the metadata": files.metadata(normalised="perhaps"),
    "and the metadata say normalised": files.metadata(normalised="true"),
    "backbone: '' in the metadata": files.metadata(backbone=""),
    "weights: 'a/b' in the metadata": files.metadata(weights="a/b"),
}


@pytest.mark.parametrize("said", BAD_TENSORS)
def test_bad_tensors_are_one_line(said, tmp_path):
    path = files.write(tmp_path / "bad.safetensors", BAD_TENSORS[said])
    refused(path, said)


@pytest.mark.parametrize("said", BAD_METADATA)
def test_bad_metadata_are_one_line(said, tmp_path):
    refused(files.write(tmp_path / "bad.safetensors", said=BAD_METADATA[said]), said)


def refused(path, said: str) -> None:
    with pytest.raises(BenchError) as error:
        open_file(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 5, 100, 900, -1])
def test_a_truncated_file_is_one_line(kept, tmp_path):
    path = files.write(tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "not a safetensors file that is whole")


def test_other_files_are_said_to_be_what_they_are(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    refused(tmp_path / "array.npy", "this is a NumPy array")
    refused(tmp_path / "nothing.safetensors", "there is no such file")
    refused(tmp_path, "a folder, and a file is wanted")


def test_a_file_is_its_content(tmp_path):
    """Not its place, not the order of what is in it, not how wide its whole numbers are; every number and every word."""
    first = open_file(files.write(tmp_path / "one.safetensors")).digest
    again = {name: array.astype("int16") if name.endswith("labels") else array for name, array in files.tensors().items()}
    said = dict(reversed(files.metadata(format="pt").items()))
    assert open_file(files.write(tmp_path / "elsewhere" / "two.safetensors", again, said)).digest == first
    others = [
        files.write(tmp_path / "3.safetensors", changed("test/features", lambda a: a + np.float32(1e-6) * (a == a.max()))),
        files.write(tmp_path / "4.safetensors", changed("text/features", lambda a: a[:, ::-1].copy())),
        files.write(tmp_path / "5.safetensors", without("text/features")),
        files.write(tmp_path / "6.safetensors", said=files.metadata(weights="laion2b")),
        files.write(tmp_path / "7.safetensors", said=files.metadata(class_names=json.dumps(["apple", "pear", "plum", "date"]))),
        files.write(tmp_path / "8.safetensors", said=files.metadata(logit_scale="50")),
    ]
    assert len({first, *(open_file(path).digest for path in others)}) == 7


def test_a_file_that_changes_under_a_run_is_noticed(tmp_path):
    path = files.write(tmp_path / "file.safetensors")
    opened = open_file(path)
    files.write(path, changed("train/features", lambda a: 2 * a))
    with pytest.raises(BenchError, match="has changed since the command began"):
        opened.array("train/features")
    assert open_file(path).digest != opened.digest


def test_rows_stay_together_in_every_selection(tmp_path):
    source = open_split(open_file(files.write(tmp_path / "file.safetensors")), "train", Folders(tmp_path, tmp_path))
    few = source.limited(2).select(np.array([5, 0]))
    assert np.array_equal(few.embedded("projected"), files.tensors()["train/features"][[7, 0]])
    both = source.concatenate([few, source], [few.labels, source.labels])
    assert np.array_equal(both.embedded("projected")[2:], files.tensors()["train/features"])
    with pytest.raises(BenchError, match="holds embeddings and no images"):
        few.read(np.array([0]))
    with pytest.raises(BenchError, match="has no train/pooled"):
        few.embedded("pooled")


def test_tensors_that_mean_nothing_here_are_said(tmp_path):
    path = files.write(tmp_path / "more.safetensors", files.tensors() | {"val/features": np.zeros((2, 2), "float32")})
    assert open_file(path).notes() == [f"{path}: not read: val/features"]
