"""Images in parquet files: read a row group at a time, labels matched by name, shards complete."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.images import digests
from bench.images.dataset import Copy, DatasetInfo
from bench.images.parquet import parquet_images


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, labels, first: int = 0, names=(), columns=("image", "label")) -> None:
    """Image k is filled with first + k; two rows a group."""
    images = [{"bytes": png(first + k), "path": f"{k}.png"} for k in range(len(labels))]
    table = pa.table({columns[0]: images, columns[1]: list(labels)})
    if names:
        note = {"info": {"features": {columns[1]: {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(note)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


@pytest.fixture
def copy(tmp_path) -> Copy:
    info = DatasetInfo("set", "1", ("ant", "bee", "cat"), ("a {}.",), "three animals", "here")
    return Copy(info, tmp_path / "set", tmp_path / "cache")


@pytest.fixture
def source(copy):
    """Two shards of five and three images."""
    write(copy.folder / "train-00000-of-00002.parquet", [0, 1, 2, 0, 1])
    write(copy.folder / "train-00001-of-00002.parquet", [2, 1, 0], first=100)
    return parquet_images(copy, "train-*.parquet")


def test_rows_of_all_groups_and_shards_are_found(source):
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2, 1, 0]
    values = [int(image[0, 0, 0]) for image in source.read(np.array([7, 4, 0, 5, 3]))]
    assert values == [102, 4, 0, 100, 3]
    assert [image.shape for image in source.read(np.array([0]))] == [(3, 4, 3)]


def test_image_digests_are_those_of_the_encoded_images(source):
    assert source.image_digests(np.array([6, 0])) == [hashlib.sha256(png(value)).hexdigest() for value in (101, 0)]


def test_a_selection_hashes_only_the_files_that_hold_its_rows(source, monkeypatch):
    read, digest_of_file = [], digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda path: read.append(path.name) or digest_of_file(path))
    first, other = source.limited(1), source.select(np.array([0, 1, 3]))
    assert first.digest != other.digest
    assert read == ["train-00000-of-00002.parquet"]
    assert source.digest not in (first.digest, other.digest)
    assert [int(image[0, 0, 0]) for image in other.read(np.array([2]))] == [3]


def test_labels_are_matched_by_the_names_that_the_file_gives(copy):
    write(copy.folder / "train.parquet", [0, 1, 2], names=["Cat", "b-ee", "ANT"])
    assert parquet_images(copy, "train.parquet", classes=["ant", "bee", "cat"]).labels.tolist() == [2, 1, 0]
    assert parquet_images(copy, "train.parquet").labels.tolist() == [0, 1, 2]


def test_labels_without_names_are_those_of_the_list(copy):
    write(copy.folder / "train.parquet", [0, 1, 2])
    classes = ["ant", "bee", "cat"]
    assert parquet_images(copy, "train.parquet", classes=classes).labels.tolist() == [0, 1, 2]
    assert parquet_images(copy, "train.parquet", classes=classes, listed=["cat", "ant", "bee"]).labels.tolist() == [2, 0, 1]


def test_images_of_other_classes_are_left_out_only_when_that_is_wanted(copy):
    write(copy.folder / "train.parquet", [0, 1, 2, 3, 1], names=["dog", "cat", "eel", "ant"])
    with pytest.raises(BenchError, match="it has a class 'dog', which is none of the 3 classes"):
        parquet_images(copy, "train.parquet", classes=["ant", "bee", "cat"])
    listed = ["dog", "cat", "eel", "ant"]
    source = parquet_images(copy, "train.parquet", classes=["ant", "bee", "cat"], listed=listed, trust_names=False)
    assert source.labels.tolist() == [2, 0, 2]
    assert [int(image[0, 0, 0]) for image in source.read(np.arange(3))] == [1, 3, 4]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
@pytest.mark.parametrize("classes", [None, ["ant", "bee", "cat"]])
def test_a_label_out_of_range_is_named(copy, labels, classes):
    write(copy.folder / "train.parquet", labels)
    with pytest.raises(BenchError, match=rf"train.parquet: label {labels[0] or 3} of image \d is out of range 0..2"):
        parquet_images(copy, "train.parquet", classes=classes)


def test_other_columns_are_said(copy):
    write(copy.folder / "train.parquet", [0], columns=("picture", "label"))
    with pytest.raises(BenchError, match=r"no column image or img \(it has picture, label\)"):
        parquet_images(copy, "train.parquet")


def test_a_missing_shard_is_named(copy, source):
    (copy.folder / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(BenchError, match=r"train-\*.parquet: part 0 of 2 is missing"):
        parquet_images(copy, "train-*.parquet")


def test_what_is_no_parquet_file_is_named(copy):
    copy.folder.mkdir()
    (copy.folder / "train.parquet").write_text("<html>")
    with pytest.raises(BenchError, match="set: .*train.parquet: the file is damaged"):
        parquet_images(copy, "train.parquet")
